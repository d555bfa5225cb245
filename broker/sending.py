"""Sends records: everybody hands them over here, and one task alone speaks to the producer.

Concurrent `send()` of the library is quadratic, a topic that does not exist blocks it for 40 s, and a failed batch leaves an idempotent producer
that fails for ever. So records are packed here, a batch under way per partition, places are checked before, and a broken producer is
replaced: what was under way then is of unknown fate and fails, to be sent again by whoever keeps it. Nothing is timed but what shall linger.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from broker.errors import AibrokerError, ClientClosed, JobRefused, KafkaMissing, TopicMissing, UsageError
from broker.events import Events
from broker.kafka import (
    BATCH_BYTES,
    MAX_REQUEST_BYTES,
    AIOKafkaProducer,
    KafkaError,
    MessageSizeTooLargeError,
    murmur2,
    producer,
)
from broker.lanes import Lane, Lanes, Load, ManyReceipt, OneReceipt, Receipt, Record, Sent
from broker.producing import STOP_S, Line
from broker.room import Room
from broker.settings import Settings
from schemas.codes import Code

_PAUSE_S = 0.25
_COUNTS_S = 300.0  # a topic that got more partitions is noticed by then
_LARGEST = MAX_REQUEST_BYTES - 20_000
_IN_A_ROW = 250

_events = Events("sending")


class Sending:
    """One producer and its one sending task; an async context manager.

    Args:
        settings: Where Kafka is.
        make: Makes a producer that is not started, of `settings`; called again when one has broken.
        max_bytes: How much may be unacknowledged before there is no room.
        max_records: How many records may be.
        linger_s: How long a topic's first record waits for others, by the topic's full name; the other topics' do not.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        make: Callable[[Settings], AIOKafkaProducer] = producer,
        max_bytes: int = 32_000_000,
        max_records: int = 20_000,
        linger_s: Mapping[str, float] | None = None,
    ) -> None:
        self._line = Line(settings, make)
        self._linger_s = dict(linger_s or {})
        self._task: asyncio.Task[None] | None = None
        self._closed = self._broken = False
        self._room = Room(max_bytes, max_records)
        self._lanes = Lanes(murmur2, secrets.randbelow, BATCH_BYTES)
        self._ready: dict[Lane, None] = {}
        self._unplaced: list[tuple[Record, Receipt, int]] = []
        self._counted_at = 0.0
        self._wake = asyncio.Event()
        self._since_yield = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def unacknowledged(self) -> int:
        """How many records have been handed over and are neither acknowledged nor failed."""
        return self._room.records

    async def start(self) -> None:
        """Connect.

        Raises:
            KafkaMissing: Kafka does not answer.
        """
        await self._line.start()
        self._task = asyncio.create_task(self._run(), name="sending")
        self._task.add_done_callback(self._ended)

    def try_put(self, record: Record) -> asyncio.Future[Sent] | None:
        """Hand a record over; None if there is no room, so that who must not wait for Kafka keeps it.

        The future gives where the record stands, or raises: `TopicMissing` if its topic or partition does not exist, `KafkaMissing` if whether it
        was written is unknown. Cancelling the future does not take the record back.
        """
        return self._put(record) if self._room.open else None

    async def put(self, record: Record) -> asyncio.Future[Sent]:
        """Hand a record over as soon as there is room; return `try_put`'s future."""
        await self._give_way(1)
        future = self.try_put(record)
        if future is not None:
            return future
        async with self._room.entered():
            return self._put(record)

    def try_put_many(self, records: Sequence[Record]) -> asyncio.Future[dict[int, AibrokerError]] | None:
        """Hand records over, with one future for all: what failed, by its position in `records`; None if there is no room."""
        return self._put_many(records) if self._room.open else None

    async def put_many(self, records: Sequence[Record]) -> asyncio.Future[dict[int, AibrokerError]]:
        """Hand records over as soon as there is room; return `try_put_many`'s future."""
        await self._give_way(len(records))
        future = self.try_put_many(records)
        if future is not None:
            return future
        async with self._room.entered():
            return self._put_many(records)

    async def _give_way(self, records: int) -> None:
        """Let the sending task have its turn where records are handed over in a loop that never waits."""
        self._since_yield += records
        if self._since_yield >= _IN_A_ROW:
            self._since_yield = 0
            await asyncio.sleep(0)

    async def flush(self, timeout_s: float) -> bool:
        """Wait until everything is acknowledged or has failed; False if it was not in time."""
        for lane in self._lanes.all():
            self._ripe(lane)
        try:
            async with asyncio.timeout(timeout_s):
                await self._room.emptied()
        except TimeoutError:
            return False
        return True

    async def aclose(self, timeout_s: float = 10.0) -> None:
        """Send what there is, for at most `timeout_s`, and stop; what is left fails."""
        if self._closed:
            return
        flushed = False
        if self._task is not None and not self._task.done():
            self._closed = True
            flushed = await self.flush(timeout_s)
            self._task.cancel()
            await asyncio.wait({self._task})
        self._closed = True
        self._fail_all(
            ClientClosed("it was closed before Kafka acknowledged the record; whether it is there is unknown")
        )
        await self._line.stop(STOP_S if flushed else 0.0)

    def _put(self, record: Record) -> asyncio.Future[Sent]:
        receipt = OneReceipt()
        self._check_open()
        self._place(record, receipt, 0)
        return receipt.future

    def _put_many(self, records: Sequence[Record]) -> asyncio.Future[dict[int, AibrokerError]]:
        receipt = ManyReceipt(len(records))
        self._check_open()
        for position, record in enumerate(records):
            self._place(record, receipt, position)
        return receipt.future

    def _check_open(self) -> None:
        if self._closed or self._task is None:
            raise ClientClosed("nothing can be sent any more: it was closed")

    def _place(self, record: Record, receipt: Receipt, position: int) -> None:
        """Put a record into its lane, or aside if its place is not known."""
        size = record.size
        self._room.take(size)
        if size > _LARGEST:
            self._fail(record, receipt, position, JobRefused(Code.TOO_LARGE, f"the record has {size:,} bytes"))
            return
        lane = self._lanes.find(record)
        if lane is None:
            self._unplaced.append((record, receipt, position))
            self._wake.set()
        else:
            self._pack(lane, record, receipt, position)

    def _pack(self, lane: Lane, record: Record, receipt: Receipt, position: int) -> None:
        try:
            opened = lane.add(record, receipt, position, self._line.new_batch)
        except (TypeError, ValueError, AttributeError) as error:  # one wrong record must not end the task
            self._fail(record, receipt, position, UsageError(f"the record is none: {error}"))
            return
        if not opened:
            return
        linger_s = self._linger_s.get(lane.topic)
        if linger_s and not lane.lingering:
            lane.lingering = True
            asyncio.get_running_loop().call_later(linger_s, self._ripe, lane)
        self._look_at(lane)

    def _fail(self, record: Record, receipt: Receipt, position: int, error: AibrokerError) -> None:
        self._room.give_back(1, record.size)
        receipt.failed(position, 1, error)

    def _ripe(self, lane: Lane) -> None:
        lane.lingering = False
        self._look_at(lane)

    def _look_at(self, lane: Lane) -> None:
        if lane.waiting:
            self._ready[lane] = None
            self._wake.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            if loop.time() - self._counted_at > _COUNTS_S:
                self._counted_at = loop.time()
                self._lanes.forget_counts()
            if self._broken:
                await self._replace_producer()
            if self._unplaced:
                await self._look_up()
            ready, self._ready = self._ready, {}
            for lane in ready:
                if lane.waiting:
                    await self._submit(lane)

    async def _submit(self, lane: Lane) -> None:
        load = lane.next()
        load.builder.close()
        try:
            future = await self._line.send(load.builder, lane.topic, lane.partition)
        except (KafkaError, AssertionError) as error:
            self._settle(lane, load, error, 0)
        else:
            future.add_done_callback(partial(self._answered, lane, load))

    def _answered(self, lane: Lane, load: Load, future: asyncio.Future[Any]) -> None:
        error = KafkaError("given up") if future.cancelled() else future.exception()
        if lane.under_way is load:  # otherwise it was settled when its producer was replaced
            self._settle(lane, load, error, 0 if error else future.result().offset)

    def _settle(self, lane: Lane, load: Load, error: BaseException | None, offset: int) -> None:
        lane.under_way = None
        self._room.give_back(load.records, load.bytes)
        if error is None:
            load.acknowledge(lane.topic, lane.partition, offset)
        else:
            _events.warning("batch.failed", topic=lane.topic, partition=lane.partition, why=repr(error))
            load.fail(_unknown(error))
            self._broken = True
            self._wake.set()
        self._look_at(lane)

    async def _look_up(self) -> None:
        """Ask which topics there are, and place what was put aside; what has no place fails."""
        asked = {record.topic for record, _, _ in self._unplaced}
        try:
            counts = await self._line.count(asked)
        except (KafkaError, OSError):
            asyncio.get_running_loop().call_later(_PAUSE_S, self._wake.set)
            return
        for topic, partitions in counts.items():
            self._lanes.count(topic, partitions)
        aside, self._unplaced = self._unplaced, []
        for record, receipt, position in aside:
            lane = self._lanes.find(record)
            if lane is not None:
                self._pack(lane, record, receipt, position)
            elif record.topic in asked:
                self._fail(record, receipt, position, TopicMissing(self._lanes.why_not(record)))
            else:  # it came in the meantime
                self._unplaced.append((record, receipt, position))
                self._wake.set()

    async def _replace_producer(self) -> None:
        """Have another producer, however long that takes; what was under way fails."""
        await self._line.stop()
        for lane in self._lanes.all():
            if lane.under_way is not None:
                self._settle(lane, lane.under_way, KafkaError("its producer broke"), 0)
        await self._line.replace(self._lanes.topics())
        self._broken = False
        self._ready = dict.fromkeys(self._lanes.all())
        _events.info("producer.replaced")

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The task ends by `aclose` alone; if it did not, nobody must wait for it."""
        if task.cancelled() or task.exception() is None:
            return
        _events.error("task.failed", task.exception())
        self._closed = True
        self._fail_all(KafkaMissing("the sending task failed; whether the record is there is unknown"))

    def _fail_all(self, error: AibrokerError) -> None:
        for lane in self._lanes.all():
            for load in lane.drain():
                self._room.give_back(load.records, load.bytes)
                load.fail(error)
        aside, self._unplaced = self._unplaced, []
        for record, receipt, position in aside:
            self._fail(record, receipt, position, error)


def _unknown(error: BaseException) -> AibrokerError:
    if isinstance(error, MessageSizeTooLargeError):
        return JobRefused(Code.TOO_LARGE, "the record is larger than its topic allows (max.message.bytes)")
    return KafkaMissing(
        f"Kafka has not acknowledged the record ({error!r}), so whether it is there is unknown: send it again"
    )
