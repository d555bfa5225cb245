"""Death is declared in one place: never of the living while the database was away, and of the dead within a lease and a period."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.builders import nothing_to_adopt
from tests.virtual_time import BEGINNING, VirtualLoop, run
from workers.engine.leases import AUDIT_EVERY, TELL_EVERY, FencedError, Leases
from workers.stores.memory import MemoryDatabase, MemoryStore
from workers.stores.protocol import Address, Lease, NewJob, Standing, State, StoreUnknownError

pytestmark = pytest.mark.timeout(120)  # what every test has; who says so begins before short ones

LEASE_S = 30.0
PERIOD_S = 10.0
RENEWAL_TIMEOUT_S = 5.0
TIMEOUT_S = 10.0
SLOWEST_S = 1.0


class _Outages:
    """When the database is away, and how slow it is."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.away_until = 0.0
        self.slow_s = SLOWEST_S

    async def reach(self, timeout_s: float) -> None:
        """Get there within the time, or not at all."""
        loop = asyncio.get_running_loop()
        latency_s = self.chance.uniform(0, self.slow_s)
        arrives = max(loop.time(), self.away_until) + latency_s
        if arrives > loop.time() + timeout_s:
            await asyncio.sleep(timeout_s)
            raise StoreUnknownError("nobody answered")
        await asyncio.sleep(arrives - loop.time())


class _Store(MemoryStore):
    """A worker's own link to the database: it may be slow, away, or lose an answer after the write was executed."""

    def __init__(self, database: MemoryDatabase, owner: str, outages: _Outages) -> None:
        super().__init__(database, owner)
        self.outages = outages

    @contextlib.asynccontextmanager
    async def _link(self, timeout_s: float) -> AsyncIterator[None]:
        await self.outages.reach(timeout_s)
        yield
        await self.outages.reach(timeout_s)

    async def renew(self, lease_s: float, told: Mapping[str, Any] | None = None) -> Standing:
        try:
            async with asyncio.timeout(RENEWAL_TIMEOUT_S), self._link(RENEWAL_TIMEOUT_S):
                return await super().renew(lease_s, told)
        except TimeoutError:
            raise StoreUnknownError("nobody answered") from None

    async def expired_leases(self) -> list[Lease]:
        async with self._link(TIMEOUT_S):
            return await super().expired_leases()

    async def fence(self, lease: Lease) -> bool:
        async with self._link(TIMEOUT_S):
            return await super().fence(lease)

    async def sweep(self) -> int:
        async with self._link(TIMEOUT_S):
            return await super().sweep()


def leases(store: MemoryStore, loop: asyncio.AbstractEventLoop) -> Leases:
    return Leases(store, LEASE_S, nothing_to_adopt, clock=loop.time)


class _World:
    """One database and one worker that is looked at."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        assert isinstance(self.loop, VirtualLoop)
        self.database = MemoryDatabase(self.loop.now)
        self.store = MemoryStore(self.database, "us")
        self.audits: list[float] = []
        self.told: list[float] = []
        self.leases = Leases(self.store, LEASE_S, self._audit, clock=self.loop.time)

    def _tell(self) -> dict[str, Any]:
        self.told.append(self.loop.time())
        return {"n": len(self.told)}

    async def _audit(self, _: Callable[[], bool]) -> None:
        self.audits.append(self.loop.time())

    @contextlib.asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        await self.leases.start({"host": "here"})
        task = self.loop.create_task(self.leases.run(self._tell))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def other(self, until_s: float) -> MemoryStore:
        """The lease of another worker, by seconds from the beginning."""
        self.database.workers["they"] = {"until": BEGINNING + timedelta(seconds=until_s)}
        return MemoryStore(self.database, "they")

    def fenced(self) -> bool:
        return "fenced" in self.database.workers["they"]


def a_job(name: str) -> NewJob:
    return NewJob(
        id=f"acme/{name}",
        uid=name,
        tenant="acme",
        job_id=name,
        priority="normal",
        payload=b"{}",
        digest=b"",
        reply=Address("results"),
        arrived_at=BEGINNING,
    )


def test_a_lease_is_renewed_every_third_of_it() -> None:
    async def life() -> None:
        world = _World()
        async with world.living():
            for _ in range(10):
                await asyncio.sleep(PERIOD_S)
                left = world.database.workers["us"]["until"] - world.loop.now()  # type: ignore[attr-defined]
                assert left >= timedelta(seconds=LEASE_S - PERIOD_S)
                assert world.leases.healthy()

    run(life())


def test_nothing_may_start_before_the_first_renewal() -> None:
    async def life() -> None:
        assert not _World().leases.healthy()

    run(life())


def test_nothing_may_start_from_two_thirds_of_a_lease_without_a_good_renewal() -> None:
    async def life() -> None:
        world = _World()
        await world.leases.start({})
        await asyncio.sleep(LEASE_S * 2 / 3 - 0.01)
        assert world.leases.healthy()
        await asyncio.sleep(0.02)
        assert not world.leases.healthy()

    run(life())


def test_a_renewal_counts_from_its_sending() -> None:
    async def life() -> None:
        world = _World()
        outages = _Outages(Random(1))
        store = _Store(world.database, "us", outages)
        slow = leases(store, world.loop)
        await slow.start({})
        await asyncio.sleep(PERIOD_S)
        outages.away_until = world.loop.time() + 4
        outages.slow_s = 0
        sent = world.loop.time()
        assert await slow._renew()
        assert (world.loop.time(), slow._last_good) == (sent + 4, sent)

    run(life())


def test_a_renewal_without_an_answer_is_sent_again_soon() -> None:
    async def life() -> None:
        world = _World()
        outages = _Outages(Random(1))
        outages.slow_s = 0
        store = _Store(world.database, "us", outages)
        away = leases(store, world.loop)
        await away.start({})
        task = world.loop.create_task(away.run())
        await asyncio.sleep(1)
        outages.away_until = PERIOD_S + RENEWAL_TIMEOUT_S + 0.5
        await asyncio.sleep(PERIOD_S + RENEWAL_TIMEOUT_S + 0.5)
        assert away._last_good == pytest.approx(PERIOD_S + RENEWAL_TIMEOUT_S + 1)
        task.cancel()
        await asyncio.wait([task])

    run(life())


def test_who_was_fenced_ends() -> None:
    async def life() -> None:
        world = _World()
        await world.leases.start({})
        world.database.workers["us"]["fenced"] = True
        with pytest.raises(ExceptionGroup) as ended:
            await world.leases.run()
        assert ended.group_contains(FencedError)

    run(life())


def test_who_has_no_lease_any_more_ends() -> None:
    async def life() -> None:
        world = _World()
        await world.leases.start({})
        del world.database.workers["us"]
        with pytest.raises(ExceptionGroup) as ended:
            await world.leases.run()
        assert ended.group_contains(FencedError)

    run(life())


def test_who_is_asked_to_drain_knows_it_with_the_next_renewal_and_keeps_its_lease() -> None:
    async def life() -> None:
        world = _World()
        async with world.living():
            await asyncio.sleep(1)
            world.database.workers["us"]["drain"] = BEGINNING
            assert not world.leases.drain_asked.is_set()
            await asyncio.sleep(PERIOD_S)
            assert world.leases.drain_asked.is_set()
            await asyncio.sleep(10 * LEASE_S)
            assert world.leases.healthy()

    run(life())


def test_every_third_renewal_tells_what_this_worker_does() -> None:
    async def life() -> None:
        world = _World()
        async with world.living():
            await asyncio.sleep(6 * TELL_EVERY * PERIOD_S + 1)
            assert world.told == pytest.approx([turn * TELL_EVERY * PERIOD_S for turn in range(7)])
            assert world.database.workers["us"]["told"]["n"] == 7

    run(life())


def test_a_new_worker_declares_nobody_dead_before_it_has_lived_for_a_lease() -> None:
    async def life() -> None:
        world = _World()
        world.other(until_s=-100)
        async with world.living():
            await asyncio.sleep(LEASE_S - 1)
            assert not world.fenced()
            await asyncio.sleep(PERIOD_S + 1)
            assert world.fenced()

    run(life())


def test_a_lease_that_has_not_run_out_is_left_alone() -> None:
    async def life() -> None:
        world = _World()
        world.other(until_s=1_000)
        async with world.living():
            await asyncio.sleep(900)
            assert not world.fenced()

    run(life())


def test_who_renewed_between_the_reading_and_the_fencing_lives() -> None:
    async def raced() -> None:
        world = _World()
        they = world.other(until_s=-1)
        (lease,) = await world.store.expired_leases()
        await they.renew(LEASE_S)
        assert not await world.store.fence(lease)

    run(raced())


def test_after_an_outage_nobody_is_declared_dead_for_a_whole_lease() -> None:
    async def life() -> None:
        world = _World()
        outages = _Outages(Random(1))
        world.leases = leases(_Store(world.database, "us", outages), world.loop)
        world.other(until_s=125)
        async with world.living():
            await asyncio.sleep(100)
            outages.away_until = 140
            await asyncio.sleep(40 + LEASE_S - 1)
            assert not world.fenced()
            await asyncio.sleep(PERIOD_S + 5)
            assert world.fenced()

    run(life())


def test_an_answer_that_came_after_a_gap_is_not_acted_upon() -> None:
    async def life() -> None:
        world = _World()
        outages = _Outages(Random(1))

        class Late(_Store):
            async def expired_leases(self) -> list[Lease]:
                read = await MemoryStore.expired_leases(self)
                if read:
                    outages.away_until = world.loop.time() + 19
                    await asyncio.sleep(19)
                return read

            async def fence(self, lease: Lease) -> bool:
                raise AssertionError(lease)

        world.leases = leases(Late(world.database, "us", outages), world.loop)
        world.other(until_s=95)
        async with world.living():
            await asyncio.sleep(120)
            assert outages.away_until > 100
            assert not world.fenced()

    run(life())


def test_jobs_of_the_dead_wait_again_and_count_the_takeover() -> None:
    async def life() -> None:
        world = _World()
        they = world.other(until_s=20)
        await they.insert([a_job("theirs")])
        await world.store.insert([a_job("ours")])
        async with world.living():
            await asyncio.sleep(LEASE_S + 2 * PERIOD_S)
        theirs, ours = world.database.jobs["acme/theirs"], world.database.jobs["acme/ours"]
        assert (theirs["state"], theirs["owner"], theirs["takeovers"]) == (State.WAITING, None, 1)
        assert (ours["state"], ours["owner"], ours["takeovers"]) == (State.CLAIMED, "us", 0)

    run(life())


def test_the_audit_runs_with_every_third_look() -> None:
    async def life() -> None:
        world = _World()
        async with world.living():
            await asyncio.sleep(PERIOD_S * AUDIT_EVERY * 4 + 1)
        assert world.audits == pytest.approx([PERIOD_S * AUDIT_EVERY * count for count in (1, 2, 3, 4)])

    run(life())


def test_looking_after_others_for_long_does_not_cost_our_own_lease() -> None:
    async def life() -> None:
        world = _World()
        outages = _Outages(Random(1))

        class Slow(_Store):
            async def sweep(self) -> int:
                await asyncio.sleep(50)
                return 0

        store = Slow(world.database, "us", outages)
        slow = leases(store, world.loop)
        await slow.start({})
        task = world.loop.create_task(slow.run())
        for _ in range(100):
            await asyncio.sleep(1)
            assert slow.healthy()
        task.cancel()
        await asyncio.wait([task])

    run(life())


class _LeaseMachine(RuleBasedStateMachine):
    """Workers start and are killed, and the database goes away for all of them."""

    @initialize(seed=st.integers(0, 1_000_000))
    def begin(self, seed: int) -> None:
        self.loop = VirtualLoop()
        self.database = MemoryDatabase(self.loop.now)
        self.outages = _Outages(Random(seed))
        self.healed_at = 0.0
        self.names = 0
        self.living: dict[str, asyncio.Task[None]] = {}
        self.born_at: dict[str, float] = {}
        self.dead_since: dict[str, float] = {}
        self.start_worker()
        self.start_worker()

    @precondition(lambda self: len(self.living) < 4 and self.loop.time() >= self.outages.away_until)
    @rule()
    def start_worker(self) -> None:
        name = f"w{self.names}"
        self.names += 1
        store = _Store(self.database, name, self.outages)
        lease = leases(store, self.loop)
        self.loop.run_until_complete(lease.start({}))
        self.loop.run_until_complete(store.insert([a_job(name)]))
        self.living[name] = self.loop.create_task(lease.run())
        self.born_at[name] = self.loop.time()

    @precondition(lambda self: self.living)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.living)))
        task = self.living.pop(name)
        task.cancel()
        self.loop.settle()
        self.dead_since[name] = self.loop.time()

    @rule(seconds=st.one_of(st.floats(0.1, 20), st.floats(20, 120)), between_s=st.floats(2 * SLOWEST_S + 1.5, 60))
    def outage(self, seconds: float, between_s: float) -> None:
        """After some time in which everybody could reach it, the database is away."""
        self.loop.pass_time(between_s)
        self.outages.away_until = self.healed_at = self.loop.time() + seconds
        self.loop.pass_time(seconds)

    @rule(seconds=st.floats(0.1, 60))
    def live(self, seconds: float) -> None:
        self.loop.pass_time(seconds)

    @rule()
    def live_for_long(self) -> None:
        self.loop.pass_time(LEASE_S + 2 * PERIOD_S)

    @invariant()
    def the_living_are_never_declared_dead(self) -> None:
        for name, task in getattr(self, "living", {}).items():
            assert "fenced" not in self.database.workers[name], f"{name} lives"
            assert not task.done()

    @invariant()
    def the_dead_are_declared_dead_in_time(self) -> None:
        if not getattr(self, "living", None):
            return
        since = max(self.healed_at, min(self.born_at[name] for name in self.living))
        for name, died_at in self.dead_since.items():
            waited_s = self.loop.time() - max(since, died_at)
            if waited_s > LEASE_S + PERIOD_S + 8 * SLOWEST_S:
                assert "fenced" in self.database.workers[name], f"{name} has been dead for {waited_s} s"
            if waited_s > LEASE_S + 2 * PERIOD_S + 8 * SLOWEST_S:
                assert self.database.jobs[f"acme/{name}"]["state"] == State.WAITING

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.end()


TestLeaseMachine = _LeaseMachine.TestCase
TestLeaseMachine.settings = settings(max_examples=50, stateful_step_count=25)
