"""Limits that are set while workers run hold for them a moment later, and what was there before follows them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from broker.limit_versions import LimitVersion
from broker.limits import Limit, Rulebook
from workers.quota.book import Amounts, Book
from workers.quota.closing import RECONCILE_S
from workers.quota.holds import Holds
from workers.quota.memory import MemoryBooks
from workers.quota.protocol import Denied, Hold, Key, Need
from workers.quota.ruling import AGAIN, Ruling
from workers.quota.tender import IDLE_S, Tender
from workers.stores.protocol import StoreUnknownError

CENT = Decimal("0.01")
NEED = Need("acme", "m", 1, CENT)


def limit(**fields: object) -> Limit:
    return Limit.model_validate({"scope": "tenant", "of": "acme", "per": "day", **fields})


class MayBeAway(MemoryBooks):
    """Books that may be away, or write without an answer."""

    away = silent = False

    async def read(self, keys: Sequence[Key]) -> dict[Key, Book]:
        if self.away:
            raise StoreUnknownError("away")
        return await super().read(keys)

    async def swap(self, key: Key, book: Book) -> bool:
        done = await super().swap(key, book)
        if self.silent:
            raise StoreUnknownError("no answer")
        return done


class World:
    """Books, jobs that wait, and who sets limits."""

    def __init__(self) -> None:
        self.books = MayBeAway()
        self.seconds, self.now = 100.0, datetime(2026, 12, 1, 8, tzinfo=UTC)
        self.waiting: dict[str, int] = {}
        self.version = 0

    def set(self, *limits: Limit) -> None:
        self.version += 1
        self.books.version = LimitVersion(version=self.version, limits=limits, at=self.now, by="ann")

    def wait(self, seconds: float) -> None:
        self.seconds += seconds
        self.now += timedelta(seconds=seconds)

    async def release(self, key: str, most: int) -> int:
        count = min(most, self.waiting.get(key, 0))
        self.waiting[key] = self.waiting.get(key, 0) - count
        return count


class Worker:
    """A worker that began with limits of its settings."""

    def __init__(self, world: World, *limits: Limit, name: str = "w1") -> None:
        self.world, self.name = world, name
        now = lambda: world.now  # noqa: E731 the world's clock
        self.holds = Holds(Rulebook(limits, {}), world.books, name, clock=lambda: world.seconds, now=now)
        self.tender = Tender(self.holds, world.release, now)
        self.ruling = Ruling(self.holds, lambda said: Rulebook(said.limits or (), {}, said.version), world.release)

    async def hold(self) -> Hold | Denied:
        return self.holds.try_hold(NEED, self.world.now) or await self.holds.hold(NEED, self.world.now)

    async def use(self, times: int) -> int:
        """Run jobs; how many had room."""
        done = 0
        for _ in range(times):
            hold = await self.hold()
            if isinstance(hold, Denied):
                self.world.waiting[hold.wait_key] = self.world.waiting.get(hold.wait_key, 0) + 1
                continue
            hold.settle(1, CENT)
            keys = [key for key in self.holds.accounts if key.id in hold.keys]
            self.world.books.rows.extend((key, self.name, Amounts(1, 1, CENT)) for key in keys)
            done += 1
        return done

    async def rest(self) -> None:
        for seconds in (1.0, IDLE_S, 1.0):
            self.world.wait(seconds)
            await self.ruling.look()
            await self.tender.tend()


def alerts(world: World) -> set[str]:
    return {threshold for book in world.books.books.values() for threshold in book.alerts}


async def test_a_raised_limit_has_room_at_once_for_those_that_wait() -> None:
    world = World()
    worker = Worker(world, limit(requests=10))
    assert await worker.use(15) == 10
    world.set(limit(requests=13))
    await worker.ruling.look()
    await worker.tender.tend()
    assert world.waiting == {"quota:tenant:acme:day": 2}
    assert await worker.use(5) == 3


async def test_a_lowered_limit_refuses_what_was_granted_before_and_not_used() -> None:
    world = World()
    worker = Worker(world, limit(requests=100))
    assert await worker.use(5) == 5
    assert worker.holds.accounts[next(iter(worker.holds.accounts))].free.requests > 5
    world.set(limit(requests=8))
    await worker.ruling.look()
    assert await worker.use(10) == 3


async def test_a_limit_that_is_new_in_another_unit_counts_what_was_used_before() -> None:
    world = World()
    workers = [Worker(world, limit(requests=100, alerts=[]), name=name) for name in ("w1", "w2")]
    for worker in workers:
        await worker.use(10)
    world.set(limit(requests=100, tokens=24, alerts=[]))
    for worker in workers:
        await worker.ruling.look()
    for worker in workers:
        await worker.tender.tend()
    assert sum([await worker.use(10) for worker in workers]) == 4


@pytest.mark.parametrize("away", [False, True])
async def test_what_a_soft_limit_let_pass_is_counted_once_when_it_becomes_a_hard_one(away: bool) -> None:
    world = World()
    world.books.away = away
    workers = [Worker(world, limit(requests=100, mode="soft", alerts=[]), name=name) for name in ("w1", "w2")]
    for worker in workers:
        assert await worker.use(10) == 10
        if not away:
            await worker.tender.tend()
    assert bool(world.books.books) is not away
    world.books.away = False
    world.set(limit(requests=30, alerts=[]))
    for worker in workers:
        await worker.ruling.look()
    used = sum([await worker.use(20) for worker in workers])
    for _ in range(3):
        world.wait(RECONCILE_S)
        for worker in workers:
            await worker.tender.tend()
    used += sum([await worker.use(20) for worker in workers])
    assert used == 10
    [book] = world.books.books.values()
    assert book.taken().requests == 30


async def test_what_passed_before_a_late_entry_is_counted_once_though_the_answer_to_the_entry_was_lost() -> None:
    world = World()
    world.books.away = True
    late, other = (Worker(world, limit(requests=100, mode="soft", alerts=[]), name=name) for name in ("w1", "w2"))
    assert await late.use(10) == 10
    world.books.away = False
    world.set(limit(requests=30, alerts=[]))
    await other.ruling.look()
    assert await other.use(5) == 5  # it begins the book, with what the ledger says of all others
    world.books.silent = True
    with pytest.raises(StoreUnknownError):
        await late.tender.tend()
    world.books.silent = False
    for _ in range(3):
        world.wait(RECONCILE_S)
        await late.rest()
        await other.rest()
    [book] = world.books.books.values()
    assert book.taken().requests == 15


async def test_nobody_waits_for_ever_for_a_limit_that_was_taken_away() -> None:
    world = World()
    worker = Worker(world, limit(requests=1, per="lifetime"))
    assert await worker.use(2_500) == 1
    world.set()
    await worker.ruling.look()
    assert world.waiting == {"quota:tenant:acme:lifetime": 0}
    world.waiting["quota:tenant:acme:lifetime"] = 1  # it was told to wait by a worker that did not know yet
    [key] = world.books.books
    world.books.books[key] = world.books.books[key].noting(waiting=True)
    world.wait(AGAIN.total_seconds())
    await worker.ruling.look()
    assert world.waiting == {"quota:tenant:acme:lifetime": 0}
    assert not world.books.books[key].waiting


async def test_a_limit_that_comes_back_still_knows_what_was_spent() -> None:
    world = World()
    worker = Worker(world, limit(requests=10))
    assert await worker.use(6) == 6
    world.set()
    await worker.rest()
    world.set(limit(requests=10))
    await worker.rest()
    assert await worker.use(10) == 4


async def test_a_hard_limit_that_becomes_soft_lets_everything_pass_and_the_other_way_nothing() -> None:
    world = World()
    worker = Worker(world, limit(requests=3))
    assert await worker.use(5) == 3
    world.set(limit(requests=3, mode="soft"))
    await worker.ruling.look()
    assert await worker.use(5) == 5
    world.set(limit(requests=3))
    await worker.ruling.look()
    assert await worker.use(5) == 0


async def test_what_a_lowered_limit_makes_due_is_noticed_though_nobody_works() -> None:
    world = World()
    worker = Worker(world, limit(requests=100))
    await worker.use(45)
    await worker.rest()
    assert "80" not in alerts(world)
    world.set(limit(requests=50))
    await worker.ruling.look()
    assert {"50", "80"} <= alerts(world)
    [book] = world.books.books.values()
    assert (book.alerts["80"].version, book.alerts["80"].limit.requests) == (1, 50)


async def test_a_limit_that_is_no_more_alerts_nobody() -> None:
    world = World()
    worker = Worker(world, limit(requests=100))
    await worker.use(55)  # the book knows of fewer than 50
    world.set()
    await worker.rest()
    assert alerts(world) == set()


async def test_the_limits_of_jobs_follow_too() -> None:
    world = World()
    worker = Worker(world)
    world.set(limit(scope="job", of="*", per="lifetime", at_limit="reject", tokens=0))
    await worker.ruling.look()
    assert isinstance(await worker.hold(), Denied)


async def test_the_same_version_is_learnt_once() -> None:
    world = World()
    worker = Worker(world)
    world.set(limit(requests=1))
    await worker.ruling.look()
    rules = worker.holds.rules
    await worker.ruling.look()
    assert worker.holds.rules is rules
