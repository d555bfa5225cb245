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
from tests.faults.behaviour import behave
from tests.faults.checker import check
from tests.faults.fleet import Fleet
from tests.faults.history import History, Kill, Limit, Place, kill_line
from tests.faults.money import is_error, open_at_a_kill
from tests.faults.producer import send
from tests.faults.proxy import Lines
from tests.faults.reading import Services, read_history, read_stats
from tests.faults.scenario import Scenario
from tests.faults.told import reassigned, told_between, unacknowledged
from tests.faults.waiting import until_ended
from tests.faults.workload import SMALL_TENANT, Workload

MORE_AFTER_S = 10.0
MORE_OVER_S = 3.0
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
    faults: tuple[dict[str, Any], ...] = ()
    calls: int = 0
    repeated_calls: int = 0
    cut_calls: int = 0
    """Calls that were open, or answered less than a second before, when their worker was killed or cut off."""
    documents: int = 0
    dead_letters: int = 0
    problems: dict[str, list[str]] = field(default_factory=dict)
    incomplete: str = ""
    """Why the run was not what it was meant to be."""
    failed: str = ""
    """What kept it from ending."""

    @property
    def broken(self) -> bool:
        """Whether an invariant broke, or the run did not end."""
        return any(self.problems.values()) or bool(self.failed)

    @property
    def held(self) -> bool:
        """Whether all invariants held, and the run was what it was meant to be."""
        return not self.broken and not self.incomplete


async def run(stack: Stack, lines: Lines, scenario: Scenario, seed: int, *, jobs: int, logs: Path) -> Outcome:
    """One seed of one scenario, on topics and a database of its own; the kill log goes to the folder `logs`."""
    began, began_at, terms = time.monotonic(), time.time(), scenario.terms
    services = await _services(stack, f"{scenario.name}{seed}")
    chance = random.Random(f"{scenario.name} {seed}")
    settings = Settings(kafka=services.kafka, prefix=services.prefix)
    fleet = Fleet(stack, services, lines, terms)
    lines.provider.broken.clear()
    await behave(services.simulator, terms.behaviour)
    try:
        await topics.ensure(settings)
        await fleet.start(scenario.beginners(chance))
        sent_from = time.time()
        accepted = await _disturbed(fleet, scenario, chance, seed=seed, jobs=jobs)
        ended = await until_ended(services, terms.ends_s)
        ended_at = time.time()
    finally:
        await fleet.stop()
    (logs / f"kills-{services.prefix}.jsonl").write_text("".join(map(kill_line, fleet.kills)))
    gone = [*fleet.kills, *fleet.broken_calls()]
    history = await read_history(services, accepted=accepted, kills=gone, limits=LIMITS)
    told = told_between(began_at, ended_at, fleet.logs)
    again = {"reassigned": reassigned(told, sent_from), "unacknowledged": unacknowledged(told, services.topic(""))}
    history = replace(history, **again)
    outcome = await asyncio.to_thread(_outcome, scenario, history, fleet, seed=seed, seconds=time.monotonic() - began)
    if not ended and not any(outcome.problems.values()):
        raise RuntimeError("the run did not end, and the checker saw nothing of it")
    if outcome.held:
        await _forget(services, settings)
    return outcome


async def _disturbed(fleet: Fleet, scenario: Scenario, chance: random.Random, *, seed: int, jobs: int) -> list[Place]:
    """Send jobs while the scenario disturbs; returns the places of those that were accepted."""
    terms, workload = scenario.terms, Workload(seed)
    disturbing = asyncio.create_task(scenario.disturb(fleet, chance, jobs, _elapsed(terms.disturbed_s)))
    accepted = await send(fleet.services, workload.sendings(jobs), terms.arrival_s)
    while not (await asyncio.wait({disturbing}, timeout=MORE_AFTER_S))[0]:  # a fault still waits for work
        if terms.more:
            accepted += await send(fleet.services, workload.sendings(terms.more), MORE_OVER_S)
    await disturbing
    return accepted


async def _services(stack: Stack, prefix: str) -> Services:
    simulator = stack.simulator.url if stack.simulator else ""
    services = Services(stack.kafka_url, stack.mongo_url, prefix, prefix, simulator)
    return replace(services, first_call=(await asyncio.to_thread(read_stats, services))["calls"])


def _elapsed(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def _outcome(scenario: Scenario, history: History, fleet: Fleet, *, seed: int, seconds: float) -> Outcome:
    kills = tuple({"how": kill.how, "calls_open": _open_calls(history, kill)} for kill in fleet.kills)
    faults = tuple(
        {"how": fault.how, "seconds": fault.seconds, "calls_open": _open_at(history, fault.at), **fault.seen}
        for fault in fleet.faults
    )
    by_job: dict[str, list[Any]] = {}
    for call in history.calls:
        by_job.setdefault(str(call["request_id"]).rpartition("/")[0], []).append(call)
    return Outcome(
        scenario=scenario.name,
        seed=seed,
        jobs=len(history.records),
        seconds=round(seconds, 1),
        kills=kills,
        faults=faults,
        calls=len(history.calls),
        repeated_calls=sum(max(0, len(calls) - 1 - sum(map(is_error, calls))) for calls in by_job.values()),
        cut_calls=sum(open_at_a_kill(call, history.kills) for call in history.calls),
        documents=len(history.documents),
        dead_letters=len(history.dead),
        problems=check(history),
        incomplete=scenario.incomplete([*kills, *faults]),
    )


def _open_calls(history: History, kill: Kill) -> int:
    """How many calls of the victim were open at that moment, by the simulator's log."""
    return sum(
        1
        for call in history.calls
        if call["opened"] <= kill.at <= (call["closed"] or kill.at) and open_at_a_kill(call, [kill])
    )


def _open_at(history: History, at: float) -> int:
    """How many calls were open at that moment."""
    return sum(1 for call in history.calls if call["opened"] <= at <= (call["closed"] or at))


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
