"""A batcher loses nothing, keeps the order, and never writes twice at once."""

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.virtual_time import VirtualLoop, run
from workers.engine.batcher import LIMIT, Batcher


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


async def batched(items: list[int], *, seconds: float, patience_s: float = 0.0, wait_s: float = 0.0) -> _Slow:
    """Add all at once, wait a while, then flush."""
    slow = _Slow(seconds)
    batcher = Batcher(slow.write)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(batcher.run())
        for item in items:
            batcher.add(item, patience_s)
        await asyncio.sleep(wait_s)
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


def test_a_batch_waits_no_longer_than_its_most_impatient_item() -> None:
    async def three(patiences_s: tuple[float, ...]) -> _Slow:
        slow = _Slow(1)
        batcher = Batcher(slow.write)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(batcher.run())
            for item, patience_s in enumerate(patiences_s):
                batcher.add(item, patience_s)
                await asyncio.sleep(0.01)
            await asyncio.sleep(5)
            running.cancel()
        return slow

    assert run(three((0.2, 0.2, 0.2))).begun_at == pytest.approx([0.2])
    assert run(three((0.2, 0.1, 0.3))).begun_at == pytest.approx([0.11])
    hasty = run(three((0.2, 0.2, 0.0)))
    assert (hasty.batches, hasty.begun_at) == ([[0, 1, 2]], pytest.approx([0.02]))


def test_a_full_batch_is_not_held_back_however_patient_its_items_are() -> None:
    slow = run(batched(list(range(2 * LIMIT + 1)), seconds=1, patience_s=9, wait_s=20))
    assert [len(batch) for batch in slow.batches] == [LIMIT, LIMIT, 1]
    assert slow.begun_at[:2] == [0.0, 1.0]


def test_flush_waits_for_nobody_else() -> None:
    assert run(batched([1], seconds=1, patience_s=9)).begun_at == [0.0]


def test_flush_comes_back_at_once_where_nothing_was_added() -> None:
    assert run(batched([], seconds=1)).batches == []


class _BatcherMachine(RuleBasedStateMachine):
    """Patient and impatient items come, and writes come back, in any order."""

    @initialize()
    def start(self) -> None:
        self.loop = VirtualLoop()
        self.slow = _Slow()
        self.slow.by_hand = True
        self.added = 0
        self.due_at: dict[int, float] = {}
        self.flushed: asyncio.Task[None] | None = None
        self.batcher: Batcher[int] = Batcher(self.slow.write)
        self.running = self.loop.create_task(self.batcher.run())
        self.loop.settle()

    @rule(count=st.one_of(st.integers(1, 5), st.integers(200, 600)), patience_s=st.sampled_from([0.0, 0.1, 0.5]))
    def add(self, count: int, patience_s: float) -> None:
        async def added() -> None:
            for _ in range(count):
                self.batcher.add(self.added, patience_s)
                self.due_at[self.added] = self.loop.time() + patience_s
                self.added += 1

        self.loop.run_until_complete(added())

    @rule()
    def turn(self) -> None:
        self.loop.settle()

    @rule(seconds=st.sampled_from([0.05, 0.1, 1.0]))
    def wait(self, seconds: float) -> None:
        self.loop.pass_time(seconds)
        if self.slow.open is None:
            late = [
                item for item in range(len(self.slow.written()), self.added) if self.due_at[item] < self.loop.time()
            ]
            assert not late, "an item waited longer than it has patience while no write was away"

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
TestBatcherMachine.settings = settings(max_examples=60, stateful_step_count=30)
