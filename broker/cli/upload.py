"""Sends jobs to their priority's topic in constant memory, again where it is unknown whether one arrived: its id makes that harmless."""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import orjson

from broker import kafka
from broker.cli.lines import JobLine
from broker.errors import AibrokerError, KafkaMissing, TopicMissing
from broker.lanes import Record
from broker.sending import Sending
from broker.settings import Settings

_CHUNK = 250
_AHEAD = 20  # chunks that wait for their acknowledgement
_ROOM_BYTES = 8_000_000
_ROOM_RECORDS = 5_000
_TRIES = 5
_FLUSH_S = 120.0


class Upload:
    """What is being sent to one topic; get one by `Upload.to`."""

    def __init__(self, settings: Settings, sending: Sending, priority: str, partitions: int) -> None:
        self._settings = settings
        self._sending = sending
        self._topic = settings.topic(f"jobs.{priority}")
        self._partitions = partitions
        self._turn = random.randrange(partitions)  # noqa: S311 spreads load, keeps no secret
        self._chunk: list[Record] = []
        self._ahead: deque[tuple[list[Record], asyncio.Future[dict[int, AibrokerError]]]] = deque()

    @classmethod
    @asynccontextmanager
    async def to(cls, settings: Settings, priority: str) -> AsyncIterator["Upload"]:
        """Open the way to a priority's topic.

        Raises:
            KafkaMissing: Kafka does not answer.
            TopicMissing: The topic is not there.
        """
        name = f"jobs.{priority}"
        partitions = (await kafka.partition_counts(settings)).get(name)
        if not partitions:
            raise TopicMissing(f"there is no topic {settings.topic(name)}: make it with `aibroker topics`")
        async with Sending(settings, max_bytes=_ROOM_BYTES, max_records=_ROOM_RECORDS) as sending:
            yield cls(settings, sending, priority, partitions)

    async def send(self, line: JobLine) -> None:
        """Hand a job over; waits while too much is under way.

        Raises:
            KafkaMissing: Kafka did not take some, tried again and again.
        """
        await self.put(orjson.dumps(line.job))

    async def put(self, value: bytes) -> None:
        """Hand a record's bytes over as `send` does a job."""
        # Chunks go round the partitions, so that all workers read of one file.
        self._chunk.append(Record(self._topic, value, partition=self._turn))
        if len(self._chunk) >= _CHUNK:
            await self._hand_over()
            self._turn = (self._turn + 1) % self._partitions

    async def flush(self) -> None:
        """Wait until all is acknowledged.

        Raises:
            KafkaMissing: Some was not, in two minutes.
        """
        await self._hand_over()
        while self._ahead:
            await self._settle_first()

    async def seal(self, tenant: str, batch_id: str, total: int) -> None:
        """Say that a batch is complete."""
        message = {"action": "seal", "tenant": tenant, "batch_id": batch_id, "total": total}
        await self._acknowledged(
            [Record(self._settings.topic("jobs.control"), orjson.dumps(message), batch_id.encode())]
        )

    async def ends(self) -> dict[kafka.TopicPartition, int]:
        """Where the topic ends now: who has read up to there has read all that was sent."""
        return await ends_of(self._settings, [self._topic])

    async def _hand_over(self) -> None:
        if not self._chunk:
            return
        records, self._chunk = self._chunk, []
        self._ahead.append((records, await self._sending.put_many(records)))
        await asyncio.sleep(0)  # the sending task gets its turn, although there was room
        while len(self._ahead) > _AHEAD or (self._ahead and self._ahead[0][1].done()):
            await self._settle_first()

    async def _settle_first(self) -> None:
        records, future = self._ahead.popleft()
        await self._settle(records, future)

    async def _acknowledged(self, records: list[Record]) -> None:
        await self._settle(records, await self._sending.put_many(records))

    async def _settle(self, records: Sequence[Record], future: asyncio.Future[dict[int, AibrokerError]]) -> None:
        for tried in range(1, _TRIES + 1):
            failures = await self._answer(future)
            if not failures:
                return
            final = next((error for error in failures.values() if not error.retryable or tried == _TRIES), None)
            if final is not None:
                raise final
            records = [records[position] for position in failures]
            future = await self._sending.put_many(records)

    async def _answer(self, future: asyncio.Future[dict[int, AibrokerError]]) -> dict[int, AibrokerError]:
        try:
            async with asyncio.timeout(_FLUSH_S):
                return await future
        except TimeoutError:
            raise KafkaMissing(
                f"Kafka at {self._settings.kafka} did not acknowledge jobs for {_FLUSH_S:.0f} s; "
                "see to it and submit the file again: no job runs twice"
            ) from None


async def ends_of(settings: Settings, topics: Sequence[str]) -> dict[kafka.TopicPartition, int]:
    """The offsets at which topics (full names) end now."""
    counts = await kafka.partition_counts(settings)
    before = settings.topic("")
    places = [
        kafka.TopicPartition(topic, n) for topic in topics for n in range(counts.get(topic.removeprefix(before), 0))
    ]
    reader = kafka.consumer(settings)
    try:
        with kafka.reaching(settings):
            await reader.start()
            ends: dict[kafka.TopicPartition, int] = await reader.end_offsets(places)
    finally:
        await reader.stop()
    return ends
