"""Kills the broker and the database, and starts them again after a while: no call is repeated, and work resumes by itself (R4)."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pymongo

from tests.faults.fleet import Fault, Fleet
from tests.faults.reading import read_stats
from tests.faults.scenario import LEAST_OPEN, Over, Scenario, Terms, latency, plain, struck

R4_OUTAGES_S = (5.0, 40.0, 90.0)
R4_JOBS = 20_000
_SHORT_S = 5.0
_RESUMES_S = 120.0
_POLL_S = 0.2


def _outages(
    lengths: Sequence[float],
) -> Callable[[Fleet, random.Random, int, Over], Coroutine[Any, Any, None]]:
    async def disturb(fleet: Fleet, chance: random.Random, jobs: int, over: Over) -> None:
        del jobs
        planned = [(server, length) for length in lengths for server in ("kafka", "mongod")]
        chance.shuffle(planned)
        for server, length in planned:
            if await fleet.busy(2 * LEAST_OPEN, over):
                await _outage(fleet, server, length)

    return disturb


async def _outage(fleet: Fleet, name: str, length: float) -> None:
    """Kill a server with calls open, start it again later, and see how long work takes to resume."""
    server = getattr(fleet.stack, name)
    before = await asyncio.to_thread(_progress, fleet)
    at = time.time()
    server.child.kill()
    await server.child.ended(10)
    await asyncio.sleep(length)  # the outage itself
    await fleet.stack.restart(server)
    back = time.time()
    resumed = await _resumed(fleet, before)
    seen = {"away_s": round(back - at, 1), "resumed_after_s": round(resumed - back, 1)}
    fleet.faults.append(Fault(f"{name} killed", at, length, seen))


def _progress(fleet: Fleet) -> tuple[int, int]:
    """How many jobs have been read, and how many calls were made."""
    with pymongo.MongoClient[dict[str, Any]](fleet.services.mongo) as client:
        jobs = client[fleet.services.database]["jobs"].count_documents(
            {}
        )  # the estimate is wrong for good after a kill
    return jobs, read_stats(fleet.services)["calls"]


async def _resumed(fleet: Fleet, before: tuple[int, int]) -> float:
    """Wait until jobs are read and calls are made again, from what there was right after the restart."""
    there = await asyncio.to_thread(_progress, fleet)
    there = (max(there[0], before[0]), max(there[1], before[1]))
    give_up = time.monotonic() + _RESUMES_S
    while time.monotonic() < give_up:
        now = await asyncio.to_thread(_progress, fleet)
        if now[0] > there[0] and now[1] > there[1]:
            return time.time()
        await asyncio.sleep(_POLL_S)  # nothing tells a stranger of it
    raise RuntimeError(f"work did not resume within {_RESUMES_S:.0f} s of a restart")


SHORT = Terms(jobs=2_000, arrival_s=25, disturbed_s=120, behaviour=latency(1_000, 2_500))
R4 = Terms(
    lease_s=30,
    session_s=45,
    jobs=R4_JOBS,
    more=0,
    arrival_s=480,
    disturbed_s=1_200,
    ends_s=300,
    behaviour=latency(4_000, 8_000),
)
SCENARIOS = (
    Scenario("outage", plain(2), _outages([_SHORT_S]), struck(2, LEAST_OPEN), SHORT),
    Scenario("r4", plain(4), _outages(R4_OUTAGES_S), struck(2 * len(R4_OUTAGES_S), LEAST_OPEN), R4),
)
