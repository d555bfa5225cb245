"""What a worker tells of its work."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from random import Random

import pytest

from broker.events import Events
from broker.telemetry import Telemetry
from tests.builders import Bench, a_claim, an_answer, one_after_another, some_hands, some_settings
from workers.engine.activity import TOLD_AT_MOST, Activity
from workers.engine.dispatcher import Dispatcher
from workers.engine.failpoints import Failpoints
from workers.engine.finisher import Finisher
from workers.engine.ready import Ready
from workers.outcome import Running
from workers.stores.protocol import Waiting


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class _World:
    """A dispatcher with so many slots whose jobs run until they are let go, on a lease that is good."""

    def __init__(self, slots: int) -> None:
        self.bench = Bench(one_after_another(an_answer()), settings=some_settings(worker={"slots": slots}))
        store, settings = self.bench.store, self.bench.settings
        self.hands = some_hands(store, asyncio.get_running_loop().time, settings)
        failpoints = Failpoints("", Events("test"))
        finisher = Finisher(
            store, self.bench.publisher, self.hands.registry, ready=self.hands.ready, failpoints=failpoints
        )
        telemetry = Telemetry(settings.telemetry, "us", Random(1))
        self.dispatcher = Dispatcher(
            self._process, settings.worker, hands=self.hands, finisher=finisher, telemetry=telemetry
        )
        self.clock = _Clock()
        self.activity = Activity(self.hands.ready, self.dispatcher, self.clock)
        self.let_go = asyncio.Event()

    async def _process(self, ready: Ready, _: dict[str, Running]) -> Waiting:
        await self.let_go.wait()
        return Waiting(ready.claim.id, ready.claim.fence, datetime.now(UTC), "queued", 0)

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        await self.hands.leases.start({})
        async with asyncio.TaskGroup() as group:
            group.create_task(self.dispatcher.run())
            yield
            self.let_go.set()
            self.dispatcher.stop()

    async def add(self, count: int, tenant: str, priority: str = "normal") -> None:
        for number in range(count):
            self.hands.ready.accept(a_claim(id=f"{tenant}/{priority}/{number}", tenant=tenant, priority=priority))
        for _ in range(10):
            await asyncio.sleep(0)


async def test_rates_are_what_started_since_the_last_telling() -> None:
    world = _World(slots=100)
    async with world.working():
        await world.add(5, "acme")
        await world.add(1, "beta", "batch")
        world.clock.now += 2
        assert world.activity.told()["starts"] == [
            {"priority": "normal", "tenant": "acme", "per_s": 2.5},
            {"priority": "batch", "tenant": "beta", "per_s": 0.5},
        ]
        world.clock.now += 10
        await world.add(1, "gamma", "batch")
        assert world.activity.told()["starts"] == [
            {"priority": "batch", "tenant": "gamma", "per_s": pytest.approx(0.1)}
        ]


async def test_what_runs_and_what_is_ready_is_counted() -> None:
    world = _World(slots=2)
    async with world.working():
        await world.add(5, "acme")
        told = world.activity.told()
        assert told["running"] == 2
        assert told["ready"] == [
            {"priority": "interactive", "jobs": 0},
            {"priority": "normal", "jobs": 3},
            {"priority": "batch", "jobs": 0},
        ]


async def test_only_the_tenants_with_the_most_starts_are_told() -> None:
    world = _World(slots=1_000)
    async with world.working():
        for number in range(2 * TOLD_AT_MOST):
            await world.add(1 + (number == TOLD_AT_MOST), f"t{number}")
        world.clock.now += 1
        starts = world.activity.told()["starts"]
    assert len(starts) == TOLD_AT_MOST
    assert starts[0] == {"priority": "normal", "tenant": f"t{TOLD_AT_MOST}", "per_s": 2.0}


async def test_two_tellings_at_one_moment_forget_no_start() -> None:
    world = _World(slots=100)
    async with world.working():
        await world.add(1, "acme")
        assert world.activity.told()["starts"] == []
        world.clock.now += 1
        assert world.activity.told()["starts"] == [{"priority": "normal", "tenant": "acme", "per_s": 1.0}]
