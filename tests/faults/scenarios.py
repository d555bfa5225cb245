"""How the workers of a run are killed: at every failpoint, or at random moments in the middle of their calls."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.faults.fleet import LEASE_S, Fleet
from tests.faults.history import Kill
from tests.faults.reading import read_stats

FAILPOINTS = {
    "after_insert": 3,
    "before_call": 150,
    "after_call": 150,
    "after_finish": 10,
    "after_publish": 10,
    "before_commit": 2,
}
"""Each failpoint, and at which pass at most a worker dies there."""
OPEN_CALLS = 50
"""A kill at random counts only with so many calls of its victim open."""
_KILLS = 3
_LIVING = 2
_FRESH = 3
_POLL_S = 0.05
_QUIET_S = 2 * LEASE_S
"""So long without a call, and there is nothing left to disturb."""


@dataclass(frozen=True)
class Scenario:
    """One way to disturb a run: the workers that begin, and what happens while jobs arrive."""

    name: str
    beginners: Callable[[random.Random], list[str]]
    disturb: Callable[[Fleet, random.Random, int, Callable[[], bool]], Coroutine[Any, Any, None]]
    incomplete: Callable[[Sequence[Mapping[str, Any]]], str]
    """Why kills (how, calls open) are not what the scenario is for; "" if they are."""


def _at_failpoints(chance: random.Random) -> list[str]:
    return [f"{name}:{chance.randint(1, most)}" for name, most in FAILPOINTS.items()]


async def _replace_fallen(fleet: Fleet, chance: random.Random, jobs: int, over: Callable[[], bool]) -> None:
    """Put fresh workers in the place of those that have killed themselves, until each has."""
    del chance, jobs
    starting: list[asyncio.Task[object]] = []
    while len(fleet.kills) < len(FAILPOINTS) and not over():
        for _ in await fleet.fallen():
            if len(starting) < _FRESH:
                starting.append(asyncio.create_task(fleet.start([""])))
        await asyncio.sleep(_POLL_S)  # nothing tells of a process's end
    await asyncio.gather(*starting)


async def _kill_at_random(fleet: Fleet, chance: random.Random, jobs: int, over: Callable[[], bool]) -> None:
    """Kill at moments that are spread over the run, each victim with enough calls open; another worker takes its place."""
    moments = [jobs * (place + chance.random()) / (_KILLS + 1) * 0.8 for place in range(_KILLS)]
    starting: list[asyncio.Task[object]] = []
    calls, counted_at = 0, time.monotonic()
    while len(starting) < _KILLS and time.monotonic() - counted_at < _QUIET_S and not over():
        before, calls = calls, (await asyncio.to_thread(read_stats, fleet.services))["calls"]
        if calls > before:
            counted_at = time.monotonic()
        if calls - fleet.services.first_call >= moments[len(starting)] and await _kill_one(fleet, chance):
            starting.append(asyncio.create_task(fleet.start([""])))
        await asyncio.sleep(_POLL_S)  # the simulator tells nobody of its calls
    await asyncio.gather(*starting)


async def _kill_one(fleet: Fleet, chance: random.Random) -> Kill | None:
    counts = await fleet.open_calls()
    busy = [member for member in fleet.members if counts.get(member.incarnation, 0) > OPEN_CALLS]
    return await fleet.kill(chance.choice(busy)) if busy else None


def _missed(kills: Sequence[Mapping[str, Any]]) -> str:
    missed = FAILPOINTS.keys() - {kill["how"].partition(":")[0] for kill in kills}
    return f"not hit: {', '.join(sorted(missed))}" if missed else ""


def _idle(kills: Sequence[Mapping[str, Any]]) -> str:
    busy = any(kill["calls_open"] >= OPEN_CALLS for kill in kills)
    return "" if busy else f"no victim had {OPEN_CALLS} calls open"


SCENARIOS = {
    "failpoints": Scenario("failpoints", _at_failpoints, _replace_fallen, _missed),
    "kill": Scenario("kill", lambda _: [""] * _LIVING, _kill_at_random, _idle),
}
