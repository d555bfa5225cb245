"""Storms: a provider that refuses, fails, stalls and drips; workers that come and go; workers stopped for longer than their lease."""

import asyncio
import random
import time
from collections.abc import Sequence

from tests.faults.behaviour import behave
from tests.faults.fleet import Fault, Fleet
from tests.faults.scenario import LEAST_OPEN, Over, Scenario, Terms, latency, plain, struck

STORMS: Sequence[dict[str, float]] = (
    {"429": 0.9},
    {"500": 0.4, "502": 0.2, "503": 0.2, "529": 0.1},
    {"stall": 0.3, "cut_before": 0.3, "cut_middle": 0.2},
    {"drip": 0.2, "malformed": 0.2, "garbage": 0.2, "wrong_shape": 0.1, "length_over": 0.1},
)
"""What the provider does instead of answering, as shares of its calls."""
_STORM_S = 4.0
_COMINGS = 5
_FEWEST_COMINGS = 3
_PAUSES = 2
_PAUSE_S = 15.0


async def _storms(fleet: Fleet, chance: random.Random, jobs: int, over: Over) -> None:
    del jobs
    for storm in chance.sample(STORMS, len(STORMS)):
        if await fleet.busy(2 * LEAST_OPEN, over):
            at = time.time()
            await behave(fleet.services.simulator, latency(500, 1_500, **storm))
            await asyncio.sleep(_STORM_S)  # the fault itself
            await behave(fleet.services.simulator, fleet.terms.behaviour)
            fleet.faults.append(Fault(f"provider {', '.join(storm)}", at, _STORM_S))


async def _come_and_go(fleet: Fleet, chance: random.Random, jobs: int, over: Over) -> None:
    """Workers start and stop as an operator has them, so that the groups hardly ever rest."""
    del jobs
    for _ in range(_COMINGS):
        if busy := await fleet.busy(2 * LEAST_OPEN, over):
            at, member = time.time(), chance.choice(busy)
            await asyncio.gather(fleet.start([""]), fleet.leave(member))
            fleet.faults.append(Fault("one came, one went", at, round(time.time() - at, 1)))


async def _stop_and_go_on(fleet: Fleet, chance: random.Random, jobs: int, over: Over) -> None:
    """Workers that are stopped for longer than lease and session come back as zombies."""
    del jobs
    for _ in range(_PAUSES):
        await fleet.start([""])
        while busy := await fleet.busy(2 * LEAST_OPEN, over):
            if await fleet.pause(chance.choice(busy), LEAST_OPEN, _PAUSE_S):
                break


_CALM = latency(500, 1_500)
SCENARIOS = (
    Scenario(
        "provider",
        plain(2),
        _storms,
        struck(len(STORMS), LEAST_OPEN),
        Terms(jobs=4_000, arrival_s=20, call_s=5, ends_s=150, behaviour=_CALM),
    ),
    Scenario(
        "joins",
        plain(2),
        _come_and_go,
        struck(_FEWEST_COMINGS, LEAST_OPEN),
        Terms(jobs=4_000, arrival_s=20, behaviour=_CALM),
    ),
    Scenario(
        "zombie",
        plain(2),
        _stop_and_go_on,
        struck(_PAUSES, LEAST_OPEN),
        Terms(jobs=5_500, arrival_s=45, behaviour=_CALM),  # what is left after the first pause is enough for another
    ),
)
