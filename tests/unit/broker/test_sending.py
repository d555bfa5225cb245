"""Sending through one task, with a Kafka that is a list."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from broker.errors import AibrokerError, ClientClosed, JobRefused, KafkaMissing, TopicMissing, UsageError
from broker.kafka import KafkaError
from broker.lanes import Record
from broker.sending import Sending
from broker.settings import Settings

WAIT_S = 5


class Batch:
    """Takes `room` records."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.values: list[bytes] = []
        self.closed = False

    def append(self, *, timestamp: None, key: bytes | None, value: bytes, headers: list[Any]) -> object:
        """Put a record in."""
        del timestamp, key
        if not isinstance(value, bytes) or not isinstance(headers, list):
            raise TypeError("bytes are wanted")
        if len(self.values) >= self.room:
            return None
        self.values.append(value)
        return object()

    def close(self) -> None:
        """Let nothing more in."""
        self.closed = True


class Answer(NamedTuple):
    """Where the first record of a batch stands."""

    offset: int


class Kafka:
    """Topics with their partitions, what was sent, and how it answers."""

    def __init__(self, **topics: int) -> None:
        self.topics = topics
        self.sent: list[tuple[str, int, list[bytes]]] = []
        self.under_way: list[asyncio.Future[Answer]] = []
        self.answering = True
        self.producers = 0
        self.fails: list[Exception] = []

    def producer(self, _: Settings) -> "Producer":
        """What `Sending` is given in place of the library's."""
        self.producers += 1
        return Producer(self)

    def acknowledge(self) -> None:
        """Answer what is under way."""
        under_way, self.under_way = self.under_way, []
        for number, future in enumerate(under_way):
            future.set_result(Answer(number))

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """As the library's metadata."""
        return set(range(self.topics[topic])) if topic in self.topics else None


class Producer:
    """As much of the library's producer as is used."""

    def __init__(self, kafka: Kafka) -> None:
        self.kafka = kafka
        self.client = self
        self.cluster = kafka

    async def start(self) -> None:
        """Connect."""

    async def stop(self) -> None:
        """Disconnect."""

    async def flush(self) -> None:
        """Wait for nothing."""

    async def fetch_all_metadata(self) -> Kafka:
        """Say which topics there are."""
        return self.kafka

    async def add_topic(self, topic: str) -> None:
        """Know a topic."""

    def create_batch(self) -> Batch:
        """A batch of three."""
        return Batch(3)

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[Answer]:
        """Take a batch."""
        assert batch.closed
        self.kafka.sent.append((topic, partition, batch.values))
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if self.kafka.fails:
            future.set_exception(self.kafka.fails.pop(0))
        elif self.kafka.answering:
            future.set_result(Answer(10 * len(self.kafka.sent)))
        else:
            self.kafka.under_way.append(future)
        return future


@asynccontextmanager
async def to(kafka: Kafka, **options: Any) -> AsyncIterator[Sending]:  # noqa: ANN401 those of Sending
    async with asyncio.timeout(WAIT_S), Sending(Settings(), make=kafka.producer, **options) as sending:
        yield sending


async def until(holds: Callable[[], object]) -> None:
    while not holds():  # noqa: ASYNC110 the fake tells nobody
        await asyncio.sleep(0)


async def failure(future: "asyncio.Future[Any]") -> AibrokerError:
    with pytest.raises(AibrokerError) as caught:
        await future
    return caught.value


async def test_a_record_stands_where_kafka_says() -> None:
    async with to(Kafka(jobs=4)) as sending:
        sent = await (await sending.put(Record("jobs", b"a", partition=2)))
    assert (sent.topic, sent.partition, sent.offset) == ("jobs", 2, 10)


async def test_the_records_of_a_batch_stand_one_after_the_other() -> None:
    kafka = Kafka(jobs=1)
    async with to(kafka) as sending:
        futures = [await sending.put(Record("jobs", b"%d" % n)) for n in range(3)]
        places = [(await future).offset for future in futures]
    assert places == [10, 11, 12]
    assert kafka.sent == [("jobs", 0, [b"0", b"1", b"2"])]


@pytest.mark.parametrize(("key", "partition"), [(b"21", 4), (b"foobar", 6)])  # from Kafka's own test of its murmur2
async def test_a_key_has_the_partition_that_every_kafka_client_gives_it(key: bytes, partition: int) -> None:
    async with to(Kafka(results=8)) as sending:
        sent = await (await sending.put(Record("results", b"v", key)))
    assert sent.partition == partition


async def test_records_without_a_key_fill_one_partition_at_a_time_and_use_all() -> None:
    kafka = Kafka(jobs=4)
    async with to(kafka) as sending:
        await (await sending.put_many([Record("jobs", b"v" * 100_000)] * 8))
    assert sorted(partition for _, partition, _ in kafka.sent) == [0, 1, 2, 3]
    assert all(len(values) == 2 for _, _, values in kafka.sent)


async def test_one_batch_is_under_way_for_a_partition_while_the_next_one_fills() -> None:
    kafka = Kafka(jobs=1)
    kafka.answering = False
    async with to(kafka) as sending:
        await sending.put(Record("jobs", b"a"))
        await until(lambda: kafka.under_way)
        future = await sending.put_many([Record("jobs", b"b"), Record("jobs", b"c")])
        await asyncio.sleep(0.01)
        assert kafka.sent == [("jobs", 0, [b"a"])]
        kafka.answering = True
        kafka.acknowledge()
        assert await future == {}
    assert kafka.sent[1:] == [("jobs", 0, [b"b", b"c"])]


async def test_a_topic_that_does_not_exist_fails_alone() -> None:
    async with to(Kafka(jobs=1)) as sending:
        failures = await (await sending.put_many([Record("jobs", b"a"), Record("nope", b"b"), Record("jobs", b"c")]))
    assert {position: type(error) for position, error in failures.items()} == {1: TopicMissing}


async def test_a_partition_out_of_range_is_refused_until_the_topic_has_it() -> None:
    kafka = Kafka(jobs=2)
    async with to(kafka) as sending:
        error = await failure(await sending.put(Record("jobs", b"a", partition=2)))
        assert "0 to 1" in str(error)
        kafka.topics["jobs"] = 3
        assert (await (await sending.put(Record("jobs", b"a", partition=2)))).partition == 2


@pytest.mark.parametrize(
    ("record", "error"), [(Record("jobs", b"x" * 6_000_000), JobRefused), (Record("jobs", "text"), UsageError)]
)
async def test_a_record_that_cannot_be_sent_fails_alone(record: Record, error: type[AibrokerError]) -> None:
    async with to(Kafka(jobs=1)) as sending:
        assert isinstance(await failure(await sending.put(record)), error)
        await (await sending.put(Record("jobs", b"good")))
        assert sending.unacknowledged == 0


async def test_who_must_not_wait_is_told_that_there_is_no_room() -> None:
    kafka = Kafka(jobs=1)
    kafka.answering = False
    async with to(kafka, max_records=2) as sending:
        assert sending.try_put(Record("jobs", b"a")) is not None
        assert sending.try_put_many([Record("jobs", b"b")]) is not None
        assert sending.try_put(Record("jobs", b"c")) is None
        assert sending.try_put_many([Record("jobs", b"c")]) is None
        waiting = asyncio.create_task(sending.put(Record("jobs", b"c")))
        await until(lambda: kafka.under_way)
        assert not waiting.done()
        kafka.answering = True
        kafka.acknowledge()
        assert (await (await waiting)).topic == "jobs"


async def test_thousands_that_wait_for_room_are_all_let_in() -> None:
    kafka = Kafka(jobs=4)

    async def send(sending: Sending) -> None:
        await (await sending.put(Record("jobs", b"v")))

    async with to(kafka, max_records=10) as sending, asyncio.TaskGroup() as group:
        for _ in range(3_000):
            group.create_task(send(sending))
    assert sum(len(values) for _, _, values in kafka.sent) == 3_000


async def test_a_broken_producer_is_replaced_and_what_was_under_way_is_of_unknown_fate() -> None:
    kafka = Kafka(jobs=2)
    kafka.answering = False
    async with to(kafka) as sending:
        under_way = await sending.put(Record("jobs", b"a", partition=0))
        await until(lambda: kafka.under_way)
        kafka.fails.append(KafkaError("out of order"))
        broken = await sending.put(Record("jobs", b"b", partition=1))
        errors = [await failure(broken), await failure(under_way)]
        assert [(type(error), error.retryable) for error in errors] == [(KafkaMissing, True)] * 2
        kafka.answering = True
        await (await sending.put(Record("jobs", b"c", partition=1)))
    assert kafka.producers == 2


async def test_records_that_shall_linger_wait_for_others() -> None:
    kafka = Kafka(usage=1, results=1)
    async with to(kafka, linger_s={"usage": 0.05}) as sending:
        await (await sending.put_many([Record("usage", b"0"), Record("results", b"0")]))
        kafka.sent.clear()
        first = await sending.put(Record("usage", b"1"))
        await (await sending.put(Record("results", b"r")))
        await sending.put(Record("usage", b"2"))
        await first
    assert kafka.sent == [("results", 0, [b"r"]), ("usage", 0, [b"1", b"2"])]


async def test_flush_waits_for_nothing_that_lingers() -> None:
    kafka = Kafka(usage=1)
    async with to(kafka, linger_s={"usage": 60.0}) as sending:
        future = await sending.put(Record("usage", b"1"))
        await asyncio.sleep(0.01)
        assert await sending.flush(WAIT_S)
        assert future.done()


async def test_closing_fails_what_kafka_does_not_acknowledge_in_time() -> None:
    kafka = Kafka(jobs=1)
    kafka.answering = False
    async with asyncio.timeout(WAIT_S):
        sending = Sending(Settings(), make=kafka.producer)
        await sending.start()
        one, many = await sending.put(Record("jobs", b"a")), await sending.put_many([Record("jobs", b"b")])
        assert not await sending.flush(0.01)
        await sending.aclose(0.01)
        assert isinstance(await failure(one), ClientClosed)
        assert isinstance((await many)[0], ClientClosed)
        with pytest.raises(ClientClosed):
            await sending.put(Record("jobs", b"c"))


async def test_nothing_to_send_is_acknowledged_at_once() -> None:
    async with to(Kafka()) as sending:
        assert await (await sending.put_many([])) == {}
