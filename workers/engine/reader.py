"""Reads one priority: hands batches to the intake, and commits what is durable.

Batches finish in order, two under way at most; what is committed is the end of the last finished batch, so a late commit can only repeat work.
The reader never stops polling: errors of the group are parked until somebody polls.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from broker.codec import Place
from broker.events import Events
from workers.engine.failpoints import Failpoints
from workers.engine.intake import Intake
from workers.engine.record import Record

UNDER_WAY = 2
POLL_MS = 500
COMMIT_S = 1.0
COMMIT_TIMEOUT_S = 3.0
ERROR_PAUSE_S = 1.0
LATEST_MS = 253_402_300_799_000
"""The end of the year 9999: a foreign producer's clock may say anything."""


LARGEST_BYTES = 1_000_000
"""How large a record is taken to be before one was seen."""


class Poll(NamedTuple):
    """The most that one poll takes."""

    records: int
    bytes: int

    def fitting(self, record_bytes: int) -> int:
        """How many records of a size it takes."""
        return max(min(self.records, self.bytes // max(record_bytes, 1)), 1)


class Consumer(Protocol):
    """The part of aiokafka's consumer that a reader needs."""

    def assignment(self) -> Any: ...  # noqa: ANN401, D102 aiokafka publishes no types
    async def getmany(self, *, timeout_ms: int, max_records: int) -> Mapping[Any, Sequence[Any]]: ...  # noqa: D102 aiokafka's
    async def commit(self, offsets: Mapping[Any, int]) -> None: ...  # noqa: D102 aiokafka's
    def pause(self, *partitions: Any) -> None: ...  # noqa: ANN401, D102 aiokafka's
    def resume(self, *partitions: Any) -> None: ...  # noqa: ANN401, D102 aiokafka's
    def highwater(self, partition: object) -> int | None:
        """The end of a partition, as the last fetch knew it."""

    def last_poll_timestamp(self, partition: object) -> int | None:
        """When the last answer to a fetch of a partition came, in milliseconds of the wall clock."""

    def paused(self) -> Any: ...  # noqa: ANN401, D102 aiokafka's


class Reader:
    """One priority's way in.

    Args:
        priority: Its name.
        intake: What makes a batch durable.
        cluster: Kafka's cluster id, part of ids that are made of a record's place.
        poll: The most records of one poll, and the most bytes of it.
        failpoints: For tests.
    """

    def __init__(self, priority: str, intake: Intake, *, cluster: str, poll: Poll, failpoints: Failpoints) -> None:
        self.priority = priority
        self._consumer: Consumer | None = None
        self._intake = intake
        self._cluster = cluster
        self._poll_limit = poll
        self._fitting = poll.fitting(LARGEST_BYTES)
        self._failpoints = failpoints
        self._room = asyncio.Semaphore(UNDER_WAY)
        self._durable: dict[Any, int] = {}
        self._committed: dict[Any, int] = {}
        self._last: asyncio.Task[None] | None = None
        self._stopping = False
        self.held = False  # whether its partitions are paused
        self._events = Events("worker.reader")
        self.ticked_at = time.monotonic()
        self.heard_at = time.monotonic()  # when Kafka was last known to answer

    async def run(self, consumer: Consumer) -> None:
        """Read from a started consumer until `stop`."""
        self._consumer = consumer
        async with asyncio.TaskGroup() as group:
            committing = group.create_task(self._commit_for_ever(consumer))
            while not self._stopping:
                self.ticked_at = time.monotonic()
                batch = await self._poll(consumer)
                if batch:
                    await self._room.acquire()
                    self._last = group.create_task(self._keep(batch, self._last))
            if self._last is not None:
                await self._last
            committing.cancel()
        await self.commit()

    def stop(self) -> None:
        """End after the batches that are under way."""
        self._stopping = True

    def hold(self, *, full: bool) -> None:
        """Pause every partition while too much waits, resume afterwards; polling goes on."""
        consumer = self._consumer
        if consumer is None:
            return
        assigned, paused = set(consumer.assignment()), set(consumer.paused())
        if full and assigned - paused:
            consumer.pause(*(assigned - paused))
        if not full and paused & assigned:
            consumer.resume(*(paused & assigned))
        if full != self.held:
            self.held = full
            self._events.warning("reader.paused" if full else "reader.resumed", priority=self.priority)

    def lag(self) -> int:
        """Records of this worker's partitions that are not durable yet, as far as the last fetch knew."""
        if self._consumer is None:
            return 0
        ends = ((self._consumer.highwater(place), done) for place, done in self._durable.items())
        return sum(max(end - done, 0) for end, done in ends if end is not None)

    async def revoked(self) -> None:
        """Commit what is durable before the partitions go to somebody else."""
        await self.commit()
        self._durable.clear()
        self._committed.clear()

    async def commit(self) -> None:
        """Commit the ends of finished batches."""
        consumer = self._consumer
        if consumer is None:
            return
        assigned = set(consumer.assignment())
        ends = {tp: end for tp, end in self._durable.items() if tp in assigned and self._committed.get(tp) != end}
        if not ends:
            return
        self._failpoints.hit("before_commit")
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                await consumer.commit(ends)
        except Exception as error:  # noqa: BLE001 every failure of a commit means the same: later, or somebody else
            self._events.warning("reader.commit_failed", priority=self.priority, reason=repr(error))
            return
        self._committed.update(ends)

    async def _poll(self, consumer: Consumer) -> Mapping[Any, Sequence[Any]]:
        try:
            batch = await consumer.getmany(timeout_ms=POLL_MS, max_records=self._fitting)
        except Exception as error:  # noqa: BLE001 whatever the group parked for us: the next poll may be good
            self._events.warning("reader.poll_failed", priority=self.priority, reason=repr(error))
            await asyncio.sleep(ERROR_PAUSE_S)
            return {}
        if batch:
            self._fitting = self._poll_limit.fitting(
                max(len(raw.value or b"") for raws in batch.values() for raw in raws)
            )
        return batch

    async def _keep(self, batch: Mapping[Any, Sequence[Any]], before: "asyncio.Task[None] | None") -> None:
        try:
            await self._intake.keep(self.priority, [self._record(raw) for records in batch.values() for raw in records])
            if before is not None:
                await before
            self._durable.update({tp: records[-1].offset + 1 for tp, records in batch.items() if records})
        finally:
            self._room.release()

    async def _commit_for_ever(self, consumer: Consumer) -> None:
        while True:
            await asyncio.sleep(COMMIT_S)
            self._listen(consumer)
            await self.commit()

    def _listen(self, consumer: Consumer) -> None:
        """Note when Kafka answered last; who fetches nothing hears nothing, and misses nothing."""
        fetched = set(consumer.assignment()) - set(consumer.paused())
        answers = [consumer.last_poll_timestamp(tp) or 0 for tp in fetched]
        silent_s = max(time.time() - max(answers) / 1000, 0.0) if answers else 0.0
        self.heard_at = max(self.heard_at, time.monotonic() - silent_s)

    def _record(self, raw: Any) -> Record:  # noqa: ANN401 aiokafka publishes no types
        timestamp = datetime.fromtimestamp(min(max(raw.timestamp, 0), LATEST_MS) / 1000, UTC)
        return Record(
            Place(self._cluster, raw.topic, raw.partition, raw.offset, timestamp), raw.key, raw.value, raw.headers
        )
