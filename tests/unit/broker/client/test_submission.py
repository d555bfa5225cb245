"""How many jobs are under way at a time, in which order they are acknowledged, and what is sent again."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, NamedTuple, cast

import pytest

from broker.client.jobs import JobLike
from broker.client.submission import Flow, acknowledged
from broker.errors import AibrokerError, KafkaMissing, TopicMissing
from broker.lanes import Record
from broker.sending import Sending


class One(NamedTuple):
    """A job that is ready."""

    record: Record


class Fake:
    """Takes records and acknowledges when it is told to."""

    def __init__(self, *, answering: bool = True) -> None:
        self.answering = answering
        self.chunks: list[list[bytes | None]] = []
        self.under_way: list[asyncio.Future[dict[int, AibrokerError]]] = []
        self.failures: list[dict[int, AibrokerError]] = []

    async def put_many(self, records: Sequence[Record]) -> "asyncio.Future[dict[int, AibrokerError]]":
        """As `Sending`."""
        self.chunks.append([record.value for record in records])
        future: asyncio.Future[dict[int, AibrokerError]] = asyncio.get_running_loop().create_future()
        if self.answering:
            future.set_result(self.failures.pop(0) if self.failures else {})
        else:
            self.under_way.append(future)
        return future


def flow(sending: Fake, window: int = 8) -> Flow[One]:
    return Flow(cast("Sending", sending), 5.0, window)


def ready(job: JobLike) -> One | None:
    return None if job == b"bad" else One(Record("t", cast("bytes", job)))


async def values(chunks: AsyncIterator[list[One]]) -> list[Any]:
    return [one.record.value async for chunk in chunks for one in chunk]


async def test_all_jobs_come_back_in_their_order() -> None:
    jobs = [b"%d" % number for number in range(50)]
    assert await values(flow(Fake()).through(jobs, ready)) == jobs


async def test_jobs_that_are_refused_leave_no_gap() -> None:
    assert await values(flow(Fake()).through([b"bad", b"1", b"bad", b"2", b"bad"], ready)) == [b"1", b"2"]


async def test_the_source_is_read_only_as_far_as_there_is_room() -> None:
    sending, read = Fake(answering=False), []

    def source() -> Iterator[bytes]:
        for number in range(1_000):
            read.append(number)
            yield b"%d" % number

    async with asyncio.timeout(5):
        task = asyncio.create_task(values(flow(sending, window=20).through(source(), ready)))
        for _ in range(100):
            await asyncio.sleep(0)
        assert 0 < len(read) <= 30
        sending.answering = True
        for future in sending.under_way:
            future.set_result({})
        assert len(await task) == 1_000


async def test_an_asynchronous_source_that_pauses_holds_nothing_back() -> None:
    more = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield b"1"
        await more.wait()
        yield b"2"

    async with asyncio.timeout(5):
        chunks = flow(Fake(), window=1_000).through(source(), ready)
        assert [one.record.value for one in await anext(chunks)] == [b"1"]
        more.set()
        assert await values(chunks) == [b"2"]


async def test_leaving_early_stops_the_source() -> None:
    async def source() -> AsyncIterator[bytes]:
        while True:
            yield b"1"

    chunks = flow(Fake()).through(source(), ready)
    await anext(chunks)
    await chunks.aclose()  # type: ignore[attr-defined] # a generator
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_what_is_of_unknown_fate_is_sent_again_and_only_that() -> None:
    sending = Fake()
    sending.failures = [{1: KafkaMissing("unknown")}, {}]
    await acknowledged(cast("Sending", sending), [Record("t", b"a"), Record("t", b"b")], 5.0)
    assert sending.chunks == [[b"a", b"b"], [b"b"]]


async def test_what_is_refused_is_not_sent_again() -> None:
    class Final(TopicMissing):
        retryable = False

    sending = Fake()
    sending.failures = [{0: Final("no topic")}]
    with pytest.raises(TopicMissing):
        await acknowledged(cast("Sending", sending), [Record("t", b"a")], 5.0)
    assert len(sending.chunks) == 1


async def test_no_acknowledgement_in_time_is_one_sentence_that_says_what_to_do() -> None:
    with pytest.raises(KafkaMissing, match="submit them again with the same ids"):
        await acknowledged(cast("Sending", Fake(answering=False)), [Record("t", b"a")], 0.01)
