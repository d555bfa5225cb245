"""The one consumer of a client: reads its partition of `results.replies` from where it ended at the start, and hands results to who awaits them.

It belongs to no group, so it commits nothing and takes nothing from others. Records are told apart by their keys before anything is decoded.
A result that nobody holds a handle for is dropped.
"""

import asyncio
import secrets
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from broker import kafka
from broker.errors import AibrokerError, ClientClosed, ResultLost, ResultTimeout
from broker.events import Events
from broker.settings import Settings
from schemas.result import RESULT_TYPE, Result

REPLY_TOPIC = "results.replies"
_POLL_MS = 1_000
_AT_ONCE = 500
_STOP_S = 5.0

_events = Events("client")


class Slot:
    """Where the result of one job is put; it lives as long as somebody holds it."""

    __slots__ = ("__weakref__", "_arrived", "digest", "error", "event_id", "key", "result")

    def __init__(self, key: str, digest: bytes | None) -> None:
        self.key = key
        self.digest = digest
        self.event_id: bytes | None = None
        self.result: Result | None = None
        self.error: AibrokerError | None = None
        self._arrived = asyncio.Event()

    @property
    def done(self) -> bool:
        """Whether the result is here."""
        return self.result is not None

    def put(self, result: Result, event_id: bytes | None) -> None:
        """Take a result; an event that was here before, or one of an earlier generation, changes nothing."""
        known = self.result
        if known is not None and (event_id == self.event_id or result.generation <= known.generation):
            return
        self.result, self.event_id = result, event_id
        self._arrived.set()

    def fail(self, error: AibrokerError) -> None:
        """Wake who waits: no result will come here any more."""
        self.error = error
        self._arrived.set()

    async def wait(self, timeout_s: float | None) -> Result:
        """Return the result when it is here.

        Raises:
            ResultTimeout: It was not in time.
            ResultLost: It cannot come any more.
            ClientClosed: The client was closed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._arrived.wait()
        except TimeoutError:
            raise ResultTimeout(
                f"no result of {self.key} came within {timeout_s:g} s; the job goes on: await it again, or cancel it"
            ) from None
        if self.result is not None:
            return self.result
        raise self.error or ResultLost(f"the result of {self.key} was lost; await it by its id")


class Replies:
    """What a client awaits.

    Args:
        settings: Where Kafka is.
        ask_again: Has the results of these keys sent again; called when some may have been missed.
    """

    def __init__(self, settings: Settings, ask_again: Callable[[Sequence[str]], Awaitable[None]]) -> None:
        self._settings = settings
        self._ask_again = ask_again
        self._slots: weakref.WeakValueDictionary[bytes, Slot] = weakref.WeakValueDictionary()
        self._consumer: Any = None
        self._place: Any = None
        self._task: asyncio.Task[None] | None = None
        self._error: AibrokerError | None = None

    @property
    def partition(self) -> int:
        """The partition that is read, for `reply_partition`."""
        partition: int = self._place.partition
        return partition

    async def start(self, partitions: int) -> None:
        """Choose a partition at random and begin to read at its end, so that no result of a job that is sent later can be missed."""
        partition = secrets.randbelow(partitions)
        self._place = kafka.TopicPartition(self._settings.topic(REPLY_TOPIC), partition)
        self._consumer = kafka.consumer(self._settings, reset="none")
        with kafka.reaching(self._settings):
            await self._consumer.start()
            self._consumer.assign([self._place])
            ends = await self._consumer.end_offsets([self._place])
        self._consumer.seek(self._place, ends[self._place])
        self._task = asyncio.create_task(self._read(), name="replies")
        self._task.add_done_callback(self._ended)

    def slot(self, key: str, digest: bytes | None = None) -> Slot:
        """Return a slot for the job's result: the one that is awaited already, or a new one."""
        if self._error is not None:
            raise self._error
        slot = self._slots.get(key.encode())
        if slot is None or slot.done:
            slot = self._slots[key.encode()] = Slot(key, digest)
        return slot

    def known(self, key: str) -> Slot | None:
        """Return the newest slot of a job that somebody holds."""
        return self._slots.get(key.encode())

    async def aclose(self) -> None:
        """Stop reading; who waits gets `ClientClosed`."""
        self._error = ClientClosed("the client was closed")
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._consumer is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_STOP_S):
                    await self._consumer.stop()
        self._fail_all(self._error)

    async def _read(self) -> None:
        while True:
            try:
                records = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_AT_ONCE)
            except kafka.OffsetOutOfRangeError:
                await self._catch_up()
                continue
            for record in records.get(self._place, ()):
                self._take(record)

    def _take(self, record: kafka.ConsumerRecord) -> None:
        slot = self._slots.get(record.key) if record.key is not None else None
        if slot is None:
            return
        headers = dict(record.headers)
        if headers.get("ce_type", RESULT_TYPE.encode()) != RESULT_TYPE.encode():
            return
        try:
            slot.put(Result.model_validate_json(record.value or b""), headers.get("ce_id"))
        except ValidationError:
            _events.warning("reply.unreadable", partition=record.partition, offset=record.offset)

    async def _catch_up(self) -> None:
        """Go on at the oldest record that is left: what lay before has expired, so that whatever is awaited is asked for again."""
        _events.warning("replies.expired", partition=self.partition)
        await self._consumer.seek_to_beginning(self._place)
        await self._ask_again([slot.key for slot in self._slots.values() if not slot.done])

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        _events.error("replies.failed", task.exception())
        self._error = ResultLost("the client's consumer failed; make a new client and await the jobs by their ids")
        self._fail_all(self._error)

    def _fail_all(self, error: AibrokerError) -> None:
        for slot in list(self._slots.values()):
            if not slot.done:
                slot.fail(error)
