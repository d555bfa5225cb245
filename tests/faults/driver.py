"""One run: sends jobs, disturbs the workers, waits until everything has ended, and has the history judged."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pymongo
from aiokafka.admin import AIOKafkaAdminClient

from broker import topics
from broker.local.stack import Stack
from broker.settings import Settings
from tests.faults.checker import check
from tests.faults.fleet import Fleet
from tests.faults.history import History, Kill, Limit, kill_line
from tests.faults.money import is_error, open_at_a_kill
from tests.faults.producer import send
from tests.faults.reading import Services, read_history, read_stats
from tests.faults.scenarios import Scenario
from tests.faults.waiting import until_ended
from tests.faults.workload import SMALL_TENANT, Workload

ARRIVAL_S = 3.0
ENDS_WITHIN_S = 90.0
MORE_AFTER_S = 10.0
MORE = 200
LIMITS = (Limit(SMALL_TENANT, requests=40),)
"""As in settings.yaml; nobody that is killed at once can settle after its death, so nothing above the limit is allowed."""


@dataclass(frozen=True)
class Outcome:
    """What one run showed; `problems` by the invariant's number."""

    scenario: str
    seed: int
    jobs: int
    seconds: float
    kills: tuple[dict[str, Any], ...] = ()
    calls: int = 0
    repeated_calls: int = 0
    documents: int = 0
    dead_letters: int = 0
    problems: dict[str, list[str]] = field(default_factory=dict)
    incomplete: str = ""

    @property
    def held(self) -> bool:
        """Whether all invariants held, and the run was what it was meant to be."""
        return not any(self.problems.values()) and not self.incomplete


async def run(stack: Stack, scenario: Scenario, seed: int, jobs: int, *, logs: Path) -> Outcome:
    """One seed of one scenario, on topics and a database of its own; the kill log goes to the folder `logs`."""
    began = time.monotonic()
    services = await _services(stack, f"{scenario.name}{seed}")
    chance = random.Random(f"{scenario.name} {seed}")
    settings = Settings(kafka=services.kafka, prefix=services.prefix)
    fleet = Fleet(stack, services)
    try:
        await topics.ensure(settings)
        await fleet.start(scenario.beginners(chance))
        workload = Workload(seed)
        disturbing = asyncio.create_task(scenario.disturb(fleet, chance, jobs, _elapsed(ENDS_WITHIN_S)))
        accepted = await send(services, workload.sendings(jobs), ARRIVAL_S)
        while not (await asyncio.wait({disturbing}, timeout=MORE_AFTER_S))[0]:  # a fault still waits for work
            accepted += await send(services, workload.sendings(MORE), ARRIVAL_S)
        await disturbing
        ended = await until_ended(services, ENDS_WITHIN_S)
    finally:
        await fleet.stop()
    (logs / f"kills-{services.prefix}.jsonl").write_text("".join(map(kill_line, fleet.kills)))
    history = await read_history(services, accepted=accepted, kills=fleet.kills, limits=LIMITS)
    outcome = _outcome(scenario, history, seed=seed, seconds=time.monotonic() - began)
    if not ended and not any(outcome.problems.values()):
        raise RuntimeError("the run did not end, and the checker saw nothing of it")
    if outcome.held:
        await _forget(services, settings)
    return outcome


async def _services(stack: Stack, prefix: str) -> Services:
    simulator = stack.simulator.url if stack.simulator else ""
    services = Services(stack.kafka_url, stack.mongo_url, prefix, prefix, simulator)
    return replace(services, first_call=(await asyncio.to_thread(read_stats, services))["calls"])


def _elapsed(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def _outcome(scenario: Scenario, history: History, *, seed: int, seconds: float) -> Outcome:
    kills = tuple({"how": kill.how, "calls_open": _open_calls(history, kill)} for kill in history.kills)
    by_job: dict[str, list[Any]] = {}
    for call in history.calls:
        by_job.setdefault(str(call["request_id"]).rpartition("/")[0], []).append(call)
    repeated = sum(max(0, len(calls) - 1 - sum(map(is_error, calls))) for calls in by_job.values())
    return Outcome(
        scenario=scenario.name,
        seed=seed,
        jobs=len(history.records),
        seconds=round(seconds, 1),
        kills=kills,
        calls=len(history.calls),
        repeated_calls=repeated,
        documents=len(history.documents),
        dead_letters=len(history.dead),
        problems=check(history),
        incomplete=scenario.incomplete(kills),
    )


def _open_calls(history: History, kill: Kill) -> int:
    """How many calls of the victim were open at that moment, by the simulator's log."""
    return sum(
        1
        for call in history.calls
        if call["opened"] <= kill.at <= (call["closed"] or kill.at) and open_at_a_kill(call, [kill])
    )


async def _forget(services: Services, settings: Settings) -> None:
    """Give back what a good run took."""
    with pymongo.MongoClient[dict[str, Any]](services.mongo) as client:
        client.drop_database(services.database)
    admin = AIOKafkaAdminClient(bootstrap_servers=services.kafka)
    await admin.start()
    try:
        await admin.delete_topics([settings.topic(name) for name in topics.wanted(settings)])
    finally:
        await admin.close()
