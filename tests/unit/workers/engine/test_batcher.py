"""A batcher loses nothing, keeps the order, and never writes twice at once."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.virtual_time import VirtualLoop, run
from workers.engine.batcher import LIMIT, PAUSE_S, Batcher


class _Slow:
    """A write that is back when the test says so, or after `seconds`."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[list[int]] = []
        self.begun_at: list[float] = []
        self.open: asyncio.Future[None] | None = None
        self.by_hand = False
        self._seconds = seconds

    async def write(self, batch: list[int]) -> None:
        assert self.open is None, "two writes at once"
        loop = asyncio.get_running_loop()
        self.begun_at.append(loop.time())
        self.open = loop.create_future()
        self.batches.append(batch)
        if self.by_hand:
            await self.open
        else:
            await asyncio.sleep(self._seconds)
        self.open = None

    def written(self) -> list[int]:
        return [item for batch in self.batches for item in batch]


async def batched(items: list[int], *, seconds: float, busy: Callable[[], bool] = lambda: False) -> _Slow:
    """Add all at once, wait until they are written."""
    slow = _Slow(seconds)
    batcher = Batcher(slow.write, busy)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(batcher.run())
        for item in items:
            batcher.add(item)
        await batcher.flush()
        running.cancel()
    return slow


def test_a_lone_item_is_written_at_once() -> None:
    slow = run(batched([1], seconds=1))
    assert (slow.batches, slow.begun_at) == ([[1]], [0.0])


def test_what_has_gathered_is_written_as_soon_as_the_write_before_is_back() -> None:
    slow = run(batched(list(range(600)), seconds=1))
    assert [len(batch) for batch in slow.batches] == [LIMIT, LIMIT, 600 - 2 * LIMIT]
    assert slow.begun_at == [0.0, 1.0, 2.0]


def test_only_a_busy_batcher_leaves_a_pause_between_writes() -> None:
    async def two_writes(*, busy: bool) -> list[float]:
        slow = _Slow(1)
        batcher = Batcher(slow.write, lambda: busy)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(batcher.run())
            batcher.add(1)
            await asyncio.sleep(0.5)
            batcher.add(2)
            await batcher.flush()
            running.cancel()
        return slow.begun_at

    assert run(two_writes(busy=False)) == [0.0, 1.0]
    assert run(two_writes(busy=True)) == pytest.approx([0.0, 1.0 + PAUSE_S])


def test_a_full_batch_is_not_held_back_even_where_it_is_busy() -> None:
    slow = run(batched(list(range(3 * LIMIT)), seconds=1, busy=lambda: True))
    assert slow.begun_at[:2] == [0.0, 1.0]


def test_flush_comes_back_at_once_where_nothing_was_added() -> None:
    assert run(batched([], seconds=1)).batches == []


class _BatcherMachine(RuleBasedStateMachine):
    """Items come, writes come back, and the queue gets busy, in any order."""

    @initialize(busy=st.booleans())
    def start(self, busy: bool) -> None:
        self.loop = VirtualLoop()
        self.slow = _Slow()
        self.slow.by_hand = True
        self.busy = busy
        self.added = 0
        self.flushed: asyncio.Task[None] | None = None
        self.batcher: Batcher[int] = Batcher(self.slow.write, lambda: self.busy)
        self.running = self.loop.create_task(self.batcher.run())
        self.loop.settle()

    @rule(count=st.one_of(st.integers(1, 5), st.integers(200, 600)))
    def add(self, count: int) -> None:
        for _ in range(count):
            self.batcher.add(self.added)
            self.added += 1

    @rule()
    def turn(self) -> None:
        self.loop.settle()

    @rule(seconds=st.sampled_from([PAUSE_S / 2, PAUSE_S, 1.0]))
    def wait(self, seconds: float) -> None:
        self.loop.pass_time(seconds)

    @rule(busy=st.booleans())
    def change_load(self, busy: bool) -> None:
        self.busy = busy

    @precondition(lambda self: self.slow.open is not None)
    @rule()
    def answer(self) -> None:
        assert self.slow.open is not None
        self.slow.open.set_result(None)
        self.loop.settle()

    @precondition(lambda self: self.flushed is None)
    @rule()
    def flush(self) -> None:
        self.flushed = self.loop.create_task(self.batcher.flush())
        self.loop.settle()

    @invariant()
    def order_is_kept_and_nothing_is_lost(self) -> None:
        if not hasattr(self, "slow"):
            return
        written = self.slow.written()
        assert written == list(range(len(written)))
        assert len(written) + len(self.batcher) == self.added
        assert all(0 < len(batch) <= LIMIT for batch in self.slow.batches)
        assert not self.running.done()

    def teardown(self) -> None:
        if not hasattr(self, "slow"):
            return
        flushed = self.flushed or self.loop.create_task(self.batcher.flush())
        self.loop.pass_time(1)
        while self.slow.open is not None:
            self.slow.open.set_result(None)
            self.loop.pass_time(1)
        assert flushed.done()
        assert self.slow.written() == list(range(self.added))
        self.loop.end()


TestBatcherMachine = _BatcherMachine.TestCase
TestBatcherMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
