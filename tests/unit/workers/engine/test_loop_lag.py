"""How late the loop was, in virtual time: a stall is the clock passing without the loop turning."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.virtual_time import run
from workers.engine.loop_lag import BEAT_S, WINDOW_S, LoopLag


class _Clock:
    """The loop's own time, and what has passed while it stood still."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.stalled_s = 0.0

    def __call__(self) -> float:
        return self.loop.time() + self.stalled_s


@contextlib.asynccontextmanager
async def beating(clock: _Clock) -> AsyncIterator[LoopLag]:
    lag = LoopLag(clock)
    task = clock.loop.create_task(lag.run())
    await asyncio.sleep(BEAT_S / 2)
    yield lag
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def test_a_loop_that_turns_in_time_has_no_lag() -> None:
    async def life() -> None:
        async with beating(_Clock()) as lag:
            await asyncio.sleep(60)
            assert lag.worst_s() == pytest.approx(0)
            assert lag.silent_s() <= BEAT_S

    run(life())


def test_a_stall_is_seen_while_it_lasts_and_for_a_window_afterwards() -> None:
    async def life() -> None:
        clock = _Clock()
        async with beating(clock) as lag:
            clock.stalled_s = 3.0
            during = lag.worst_s()
            assert during == pytest.approx(3, abs=BEAT_S)
            await asyncio.sleep(WINDOW_S - 4)
            assert lag.worst_s() == pytest.approx(3, abs=BEAT_S)
            await asyncio.sleep(2 * WINDOW_S + 1)
            assert lag.worst_s() == pytest.approx(0)

    run(life())


def test_a_worse_stall_is_not_forgotten_for_a_later_lesser_one() -> None:
    async def life() -> None:
        clock = _Clock()
        async with beating(clock) as lag:
            for stall_s in (3.0, 1.0):
                clock.stalled_s += stall_s
                await asyncio.sleep(1)
            assert lag.worst_s() == pytest.approx(3, abs=BEAT_S)

    run(life())
