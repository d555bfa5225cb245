"""Kills workers: at every failpoint, at random moments in the middle of their calls, and one every 20 s for long (R1)."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tests.faults.fleet import Fleet
from tests.faults.history import Kill
from tests.faults.reading import read_stats
from tests.faults.scenario import OPEN_CALLS, Over, Scenario, Terms, latency, plain, struck

FAILPOINTS = {
    "after_insert": 3,
    "before_call": 150,
    "after_call": 150,
    "after_finish": 10,
    "after_publish": 10,
    "before_commit": 2,
}
"""Each failpoint, and at which pass at most a worker dies there."""
R1_RECORDS = 115_000
"""Of which more than 100,000 are jobs that are called: the others are duplicates, over a limit, invalid, or no jobs at all."""
R1_KILLS = 20
_EVERY_S = 20.0
_KILLS = 3
_FRESH = 3
_POLL_S = 0.05
_QUIET_S = 12.0
"""So long without a call, and there is nothing left to disturb."""


def _at_failpoints(chance: random.Random) -> list[str]:
    return [f"{name}:{chance.randint(1, most)}" for name, most in FAILPOINTS.items()]


async def _replace_fallen(fleet: Fleet, chance: random.Random, jobs: int, over: Over) -> None:
    """Put fresh workers in the place of those that have killed themselves, until each has."""
    del chance, jobs
    starting: list[asyncio.Task[object]] = []
    while len(fleet.kills) < len(FAILPOINTS) and not over():
        for _ in await fleet.fallen():
            if len(starting) < _FRESH:
                starting.append(asyncio.create_task(fleet.start([""])))
        await asyncio.sleep(_POLL_S)  # nothing tells of a process's end
    await asyncio.gather(*starting)


async def _kill_at_random(fleet: Fleet, chance: random.Random, jobs: int, over: Over) -> None:
    """Kill at moments that are spread over the run, each victim with enough calls open; another worker takes its place."""
    moments = [jobs * (place + chance.random()) / (_KILLS + 1) * 0.8 for place in range(_KILLS)]
    starting: list[asyncio.Task[object]] = []
    calls, counted_at = 0, time.monotonic()
    while len(starting) < _KILLS and time.monotonic() - counted_at < _QUIET_S and not over():
        before, calls = calls, await _called(fleet)
        if calls > before:
            counted_at = time.monotonic()
        if calls >= moments[len(starting)] and await _kill_one(fleet, chance):
            starting.append(asyncio.create_task(fleet.start([""])))
        await asyncio.sleep(_POLL_S)  # the simulator tells nobody of its calls
    await asyncio.gather(*starting)


async def _kill_every_20_s(fleet: Fleet, chance: random.Random, jobs: int, over: Over) -> None:
    """Kill one at random every 20 s, and start it again at once, for as long as there is work that keeps them busy."""
    del jobs
    starting: list[asyncio.Task[object]] = []
    calls = 0
    while not over():
        due, before = time.monotonic() + _EVERY_S, calls
        if await _kill_before(due, fleet, chance):
            starting.append(asyncio.create_task(fleet.start([""])))
            await asyncio.sleep(due - time.monotonic())  # the pace of the faults
        calls = await _called(fleet)
        if calls == before:
            break
    await asyncio.gather(*starting)


async def _kill_before(due: float, fleet: Fleet, chance: random.Random) -> bool:
    """Kill the first that has enough calls open; False where none had."""
    while time.monotonic() < due:
        if await _kill_one(fleet, chance):
            return True
        await asyncio.sleep(_POLL_S)  # the simulator tells nobody of its calls
    return False


async def _called(fleet: Fleet) -> int:
    calls: int = (await asyncio.to_thread(read_stats, fleet.services))["calls"]
    return calls - fleet.services.first_call


async def _kill_one(fleet: Fleet, chance: random.Random) -> Kill | None:
    counts = await fleet.open_calls()
    busy = [member for member in fleet.members if counts.get(member.incarnation, 0) > OPEN_CALLS]
    return await fleet.kill(chance.choice(busy), OPEN_CALLS) if busy else None


def _missed(kills: Sequence[Mapping[str, Any]]) -> str:
    missed = FAILPOINTS.keys() - {kill["how"].partition(":")[0] for kill in kills}
    return f"not hit: {', '.join(sorted(missed))}" if missed else ""


def _idle(kills: Sequence[Mapping[str, Any]]) -> str:
    return "" if kills else f"no victim had {OPEN_CALLS} calls open"


R1_TERMS = Terms(
    jobs=R1_RECORDS,
    arrival_s=300,
    more=0,
    disturbed_s=1_500,
    ends_s=900,
    behaviour=latency(2_000, 4_000, **{"500": 0.01}),
)
SCENARIOS = (
    Scenario("failpoints", _at_failpoints, _replace_fallen, _missed),
    Scenario("kill", plain(2), _kill_at_random, _idle),
    Scenario("r1", plain(4), _kill_every_20_s, struck(R1_KILLS, OPEN_CALLS), R1_TERMS),
)
