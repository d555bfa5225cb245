"""Breaks the lines between workers and services: each in every way for a moment, and one worker's to its database for longer than its lease."""

import asyncio
import random
from dataclasses import replace

from tests.faults.fleet import Fleet
from tests.faults.proxy import BAD, Weather
from tests.faults.scenario import LEAST_OPEN, SERVICES, Over, Scenario, Terms, latency, plain, struck

_CUT_OFF_S = 15.0
_CUT_OFF: tuple[Weather, ...] = ("stall", "cut")


async def _each_line_in_every_way(fleet: Fleet, chance: random.Random, jobs: int, over: Over) -> None:
    """Shorter than 2/3 of a lease each, so that nobody has to stop calling."""
    del jobs
    ways = [(service, weather) for service in SERVICES for weather in BAD]
    chance.shuffle(ways)
    for service, weather in ways:
        if await fleet.busy(2 * LEAST_OPEN, over):
            await fleet.weather(service, weather, chance.uniform(0.5, 2.5))
            await asyncio.sleep(chance.uniform(0.2, 0.8))  # the pace of the faults


async def _cut_one_off(fleet: Fleet, chance: random.Random, jobs: int, over: Over) -> None:
    """One worker loses its database for longer than its lease, while the others have theirs."""
    del jobs
    [member] = await fleet.start([""], behind=("mongo",))
    while member not in (busy := await fleet.busy(2 * LEAST_OPEN, over)) and busy:
        pass
    if busy:
        await fleet.cut_off(member, chance.choice(_CUT_OFF), _CUT_OFF_S)


_SLOW = Terms(jobs=2_500, arrival_s=40, disturbed_s=120, behind=SERVICES, behaviour=latency(1_000, 2_500))
SCENARIOS = (
    Scenario("lines", plain(2), _each_line_in_every_way, struck(len(SERVICES) * len(BAD), LEAST_OPEN), _SLOW),
    Scenario("cutoff", plain(2), _cut_one_off, struck(1, LEAST_OPEN), replace(_SLOW, behind=(), arrival_s=15)),
)
