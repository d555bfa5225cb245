"""The records that wait to be sent: packed into batches, a lane per topic and partition, each with a receipt for whoever handed it over."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

from broker.errors import AibrokerError


class Record(NamedTuple):
    """What shall be sent: a topic with its prefix, bytes, and a partition where the key's shall not decide."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int | None = None

    @property
    def size(self) -> int:
        """Its bytes, about: what it takes of the room."""
        return len(self.value or b"") + len(self.key or b"") + _OVERHEAD


_OVERHEAD = 300  # headers, framing, and what Python adds
_KEYS = 4_096  # tenants, mostly: hashing a key takes 6 us, and job ids never come twice


class Sent(NamedTuple):
    """Where an acknowledged record stands."""

    topic: str
    partition: int
    offset: int


class Batch(Protocol):
    """The library's builder of a batch."""

    def append(
        self, *, timestamp: None, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
    ) -> object:
        """Put a record in; None if it does not fit."""

    def close(self) -> None:
        """Let nothing more in."""


class Receipt(Protocol):
    """Is told what became of records, by the position that the first of a run had in what was handed over."""

    def acknowledged(self, position: int, count: int, first: Sent, /) -> None:
        """They are on a majority of disks, one after the other, the first of them there."""

    def failed(self, position: int, count: int, error: AibrokerError, /) -> None:
        """They are not there, or whether they are is unknown."""


class OneReceipt:
    """The receipt of one record: a future of where it stands."""

    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()

    def acknowledged(self, _position: int, _count: int, first: Sent, /) -> None:
        """Give the place."""
        if not self.future.done():
            self.future.set_result(first)

    def failed(self, _position: int, _count: int, error: AibrokerError, /) -> None:
        """Raise the error where the future is awaited."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # nobody need look: the record is sent again from where it is kept


class ManyReceipt:
    """The receipt of many records: one future of those that failed, by position; empty when all are acknowledged."""

    __slots__ = ("_failures", "_left", "future")

    def __init__(self, count: int) -> None:
        self.future: asyncio.Future[dict[int, AibrokerError]] = asyncio.get_running_loop().create_future()
        self._left = count
        self._failures: dict[int, AibrokerError] = {}
        if not count:
            self.future.set_result({})

    def acknowledged(self, _position: int, count: int, _first: Sent, /) -> None:
        """Count them."""
        self._left -= count
        if not self._left and not self.future.done():
            self.future.set_result(self._failures)

    def failed(self, position: int, count: int, error: AibrokerError, /) -> None:
        """Keep why."""
        self._failures.update(dict.fromkeys(range(position, position + count), error))
        self._left -= count
        if not self._left and not self.future.done():
            self.future.set_result(self._failures)


@dataclass(slots=True)
class Run:
    """Records of one receipt that were handed over one after the other and stand so in a batch."""

    receipt: Receipt
    position: int
    count: int


class Load:
    """A batch that is being filled or sent, and the receipts of its records in their order."""

    __slots__ = ("builder", "bytes", "records", "runs")

    def __init__(self, builder: Batch) -> None:
        self.builder = builder
        self.bytes = 0
        self.records = 0
        self.runs: list[Run] = []

    def add(self, record: Record, receipt: Receipt, position: int) -> bool:
        """Put the record in; False if it does not fit."""
        _, value, key, headers, _ = record
        listed = headers if isinstance(headers, list) else list(headers)
        if self.builder.append(timestamp=None, key=key, value=value, headers=listed) is None:
            return False
        self.bytes += record.size
        self.records += 1
        last = self.runs[-1] if self.runs else None
        if last is not None and last.receipt is receipt and last.position + last.count == position:
            last.count += 1
        else:
            self.runs.append(Run(receipt, position, 1))
        return True

    def acknowledge(self, topic: str, partition: int, offset: int) -> None:
        """Tell every receipt where its record stands, the first of the batch at `offset`."""
        for run in self.runs:
            run.receipt.acknowledged(run.position, run.count, Sent(topic, partition, offset))
            offset += run.count

    def fail(self, error: AibrokerError) -> None:
        """Tell every receipt."""
        for run in self.runs:
            run.receipt.failed(run.position, run.count, error)


class Lane:
    """What waits for one topic and partition: one batch under way, full ones, and one that is being filled.

    One batch under way is all that the library sends to a partition at a time anyway, and while it is away the next one fills by itself.
    """

    __slots__ = ("full", "lingering", "open", "partition", "topic", "under_way")

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.full: deque[Load] = deque()
        self.open: Load | None = None
        self.under_way: Load | None = None
        self.lingering = False

    def add(self, record: Record, receipt: Receipt, position: int, new_batch: Callable[[], Batch]) -> bool:
        """Put a record into the batch that is being filled; True if that is a new one."""
        if self.open is not None and self.open.add(record, receipt, position):
            return False
        load = Load(new_batch())
        load.add(record, receipt, position)
        if self.open is not None:
            self.full.append(self.open)
        self.open = load
        return True

    @property
    def idle(self) -> bool:
        """Whether a record put in now would not have to wait for another batch."""
        return self.under_way is None and not self.full and self.open is None

    @property
    def waiting(self) -> bool:
        """Whether there is a batch that may be sent now."""
        return self.under_way is None and (bool(self.full) or (self.open is not None and not self.lingering))

    def next(self) -> Load:
        """Take the oldest batch and call it under way."""
        load = self.full.popleft() if self.full else self.open
        if load is None:
            raise LookupError("an empty lane has nothing to send")
        if load is self.open:
            self.open = None
        self.under_way = load
        return load

    def drain(self) -> list[Load]:
        """Take all batches, the one under way first."""
        loads = [load for load in (self.under_way, *self.full, self.open) if load is not None]
        self.under_way = self.open = None
        self.full.clear()
        return loads


def home(hashed: int, partitions: int) -> int:
    """The partition of a key by its hash, as Kafka's own clients choose it."""
    return (hashed & 0x7FFFFFFF) % partitions


class Lanes:
    """Which lane a record goes to; decides by the numbers of partitions that it was told.

    Args:
        hashed: Kafka's murmur2 of a key, so that records with one key are where any other client would put them.
        chance: Returns a number from 0 to below its argument.
        batch_bytes: When a batch is full, about.
    """

    def __init__(self, hashed: Callable[[bytes], int], chance: Callable[[int], int], batch_bytes: int) -> None:
        self._batch_bytes = batch_bytes
        self._hashed = lru_cache(_KEYS)(hashed)
        self._chance = chance
        self._counts: dict[str, int] = {}
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._turns: dict[str, Lane] = {}

    def count(self, topic: str, partitions: int) -> None:
        """Learn how many partitions a topic has; 0 if it does not exist."""
        self._counts[topic] = partitions
        if not partitions:
            del self._counts[topic]

    def forget_counts(self) -> None:
        """Have every topic looked up again: one may have got more partitions."""
        self._counts.clear()

    def topics(self) -> list[str]:
        """The topics that are known."""
        return list(self._counts)

    def all(self) -> list[Lane]:
        """All lanes."""
        return list(self._lanes.values())

    def find(self, record: Record) -> Lane | None:
        """Return a record's lane; None if its topic or partition is not known."""
        count = self._counts.get(record.topic)
        if count is None:
            return None
        partition = record.partition
        if partition is None:
            if record.key is None:
                return self._next(record, count)
            partition = home(self._hashed(record.key), count)
        return self._lane(record.topic, partition) if 0 <= partition < count else None

    def why_not(self, record: Record) -> str:
        """Say why a record has no lane."""
        count = self._counts.get(record.topic)
        if count is None:
            return f"there is no topic {record.topic}: make it with `aibroker topics`"
        return f"the topic {record.topic} has no partition {record.partition}; it has 0 to {count - 1}"

    def _lane(self, topic: str, partition: int) -> Lane:
        lane = self._lanes.get((topic, partition))
        if lane is None:
            lane = self._lanes[topic, partition] = Lane(topic, partition)
        return lane

    def _next(self, record: Record, count: int) -> Lane:
        """The lane of a record without a key: one until its batch is full or under way, then the next, idle ones first."""
        lane = self._turns.get(record.topic)
        if lane is not None and lane.open is not None and lane.open.bytes + record.size <= self._batch_bytes:
            return lane
        first = lane.partition + 1 if lane else self._chance(count)
        lanes = [self._lane(record.topic, (first + step) % count) for step in range(count)]
        self._turns[record.topic] = chosen = next((lane for lane in lanes if lane.idle), lanes[0])
        return chosen
