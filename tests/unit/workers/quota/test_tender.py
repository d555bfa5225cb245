"""The background gives back what is not used, closes the dead by the ledger's figure, and releases who waits when there is room."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

import pytest

from broker.limits import Limit, Rulebook
from workers.quota import tender
from workers.quota.book import NOTHING, Amounts, Book
from workers.quota.closing import LOOK_AROUND_S, RECONCILE_S
from workers.quota.holds import Holds
from workers.quota.memory import MemoryBooks
from workers.quota.protocol import SOON_S, Denied, Hold, Key, Need
from workers.quota.tender import IDLE_S, IN_A_ROUND, PERIOD_S, Tender
from workers.stores.protocol import StoreUnknownError

KEY = Key("tenant:acme", "day", datetime(2026, 12, 1, tzinfo=UTC), datetime(2026, 12, 2, tzinfo=UTC))
CENT = Decimal("0.01")


class Worker:
    """A worker with its tender; time and waiting jobs are the test's."""

    def __init__(self, books: MemoryBooks, name: str, **fields: object) -> None:
        self.books, self.name = books, name
        self.seconds, self.now = 100.0, datetime(2026, 12, 1, 8, tzinfo=UTC)
        self.waiting: dict[str, int] = {}
        self.released: list[tuple[str, int]] = []
        known = {"scope": "tenant", "of": "acme", "per": "day", "requests": 10**6}
        limits = [Limit.model_validate({**known, **fields})]
        self.holds = Holds(Rulebook(limits, {}), books, name, clock=lambda: self.seconds, chance=Random(1))
        self.tender = Tender(self.holds, self.release, lambda: self.now)

    async def release(self, key: str, limit: int) -> int:
        """As many as there are."""
        count = min(limit, self.waiting.get(key, 0))
        if count:
            self.waiting[key] -= count
            self.released.append((key, count))
        return count

    async def hold(self, tokens: int = 1) -> Hold | Denied:
        """Hold, settle and have the row on the ledger."""
        return await self.holds.hold(Need("acme", "m", tokens, CENT), self.now)

    async def use(self, tokens: int = 1) -> bool:
        """Run one job; whether it had room."""
        hold = await self.hold(tokens)
        if isinstance(hold, Denied):
            self.waiting[hold.wait_key] = self.waiting.get(hold.wait_key, 0) + 1
            return False
        hold.settle(tokens, CENT)
        keys = [key for key in self.holds.accounts if key.id in hold.keys]
        self.books.rows.extend((key, self.name, Amounts(1, tokens, CENT)) for key in keys)
        return True

    async def tend(self, seconds: float = 0.0) -> None:
        """Let time pass and tend once."""
        self.seconds += seconds
        self.now += timedelta(seconds=seconds)
        await self.tender.tend()


class NoBooks(MemoryBooks):
    """Books that nobody may ask."""

    def __getattribute__(self, name: str) -> object:
        if name in {"read", "swap", "spent", "closable", "waiting", "named"}:
            raise AssertionError(name)
        return super().__getattribute__(name)


class SlowBooks(MemoryBooks):
    """Books of which the first that is written waits until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def swap(self, key: Key, book: Book) -> bool:
        """Write, when it may."""
        self.asked.set()
        await self.go_on.wait()
        return await super().swap(key, book)


class ReadBooks(MemoryBooks):
    """Books that remember which were read together."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[list[Key]] = []

    async def read(self, keys: Sequence[Key]) -> dict[Key, Book]:
        """Read, and remember."""
        self.reads.append(list(keys))
        return await super().read(keys)


async def entries(books: MemoryBooks) -> Amounts:
    return books.books[KEY].taken()


async def test_who_is_idle_gives_back_what_is_free_and_is_quiet_then() -> None:
    books = MemoryBooks()
    worker = Worker(books, "w1", requests=100)
    await worker.use()
    await worker.tend()
    assert (await entries(books)).requests > 1
    await worker.tend(IDLE_S)
    assert await entries(books) == Amounts(1, 1, CENT)
    revision = books.books[KEY].rev
    for _ in range(10):
        await worker.tend(LOOK_AROUND_S)
    assert books.books[KEY].rev == revision


async def test_what_is_given_back_cannot_be_held_any_more() -> None:
    books = MemoryBooks()
    one, other = Worker(books, "w1", requests=10), Worker(books, "w2", requests=10)
    await one.use()
    await one.tend()
    await one.tend(IDLE_S)
    taken = [await other.hold() for _ in range(12)]
    assert sum(not isinstance(hold, Denied) for hold in taken) == 9
    assert isinstance(await one.hold(), Denied)


async def test_who_runs_gives_back_what_is_free_when_others_wait() -> None:
    books = MemoryBooks()
    busy, other = Worker(books, "w1", requests=4), Worker(books, "w2", requests=4)
    await busy.use()  # has two of four
    for _ in range(3):
        await other.use()
    assert other.waiting == {KEY.wait_key: 1}
    await busy.tend()
    await other.tend(1.0)
    assert other.released == [(KEY.wait_key, 1)]
    assert await other.use()


async def test_an_overrun_is_in_the_book_soon() -> None:
    books = MemoryBooks()
    worker = Worker(books, "w1", tokens=1_000)
    hold = await worker.hold(100)
    assert not isinstance(hold, Denied)
    hold.settle(900, CENT)
    await worker.tend()
    assert (await entries(books)).tokens == 900


async def test_a_dead_workers_entry_is_replaced_by_what_the_ledger_says() -> None:
    books = MemoryBooks()
    dead, alive = Worker(books, "w1", requests=10), Worker(books, "w2", requests=10)
    for _ in range(3):
        await dead.use()
    books.dead.add("w1")
    for _ in range(8):
        await alive.use()
    await alive.tend(1.0)
    assert "w1" not in books.books[KEY].grants
    assert books.books[KEY].closed.requests == 3
    assert (
        sum([await alive.use() for _ in range(10)]) == 10 - len(books.rows) + sum(1 for _ in range(0))
        or len(books.rows) == 10
    )


async def test_an_entry_stays_while_its_owner_has_documents_left() -> None:
    books = MemoryBooks()
    dead, alive = Worker(books, "w1", requests=10), Worker(books, "w2", requests=10)
    await dead.use()
    books.dead.add("w1")
    books.busy.add("w1")
    await alive.tend(LOOK_AROUND_S)
    assert "w1" in books.books[KEY].grants
    books.busy.clear()
    await alive.tend(LOOK_AROUND_S)
    assert books.books[KEY].grants.keys() == set()
    assert books.books[KEY].closed.requests == 1


async def test_the_living_are_never_closed() -> None:
    books = MemoryBooks()
    one, other = Worker(books, "w1", requests=10), Worker(books, "w2", requests=10)
    await one.use()
    await other.tend(LOOK_AROUND_S)
    assert "w1" in books.books[KEY].grants


async def test_what_a_zombie_settles_late_is_counted_in_the_end() -> None:
    books = MemoryBooks()
    zombie, alive = Worker(books, "w1", requests=10), Worker(books, "w2", requests=10)
    await zombie.use()
    books.dead.add("w1")
    await alive.tend(LOOK_AROUND_S)
    await zombie.use()
    assert (await entries(books)).requests == 1
    await alive.tend(RECONCILE_S)
    assert (await entries(books)).requests == 2


async def test_a_new_worker_finds_those_who_wait_since_before_it_was_there() -> None:
    books = MemoryBooks()
    old, new = Worker(books, "w1", requests=10), Worker(books, "w2", requests=10)
    for _ in range(4):
        await old.use()
    books.books[KEY] = Book(rev=9, grants={"w1": Amounts(10, 4, CENT)}, waiting=True)
    new.waiting = {KEY.wait_key: 900}
    await new.tend()
    assert new.released == []
    books.dead.add("w1")
    await new.tend(2.0)
    await new.tend(2.0)
    assert new.released[0] == (KEY.wait_key, 6)


async def test_no_more_are_released_than_there_is_room_for() -> None:
    books = MemoryBooks()
    worker = Worker(books, "w1", tokens=100)
    hold = await worker.hold(90)
    assert not isinstance(hold, Denied)
    for _ in range(50):
        await worker.use(20)
    await worker.tend(1.0)
    assert worker.released == []
    hold.release()
    await worker.tend(1.0)
    assert worker.released == [(KEY.wait_key, 5)]


async def test_a_new_day_releases_at_the_rate_of_its_own_limit() -> None:
    books = MemoryBooks()
    worker = Worker(books, "w1", requests=3)
    for _ in range(10):
        await worker.use()
    await worker.tend(1.0)
    assert worker.released == []
    await worker.tend(16 * 3_600)
    assert worker.released == [(KEY.wait_key, 3)]


async def test_a_key_on_which_nobody_waits_any_more_is_left_alone() -> None:
    books = MemoryBooks()
    worker = Worker(books, "w1", requests=1)
    hold = await worker.hold()
    assert not isinstance(hold, Denied)
    await worker.hold()
    hold.release()
    await worker.tend(1.0)
    assert books.books[KEY].waiting  # the job that was refused may be on its way
    await worker.tend(20.0)
    assert not books.books[KEY].waiting
    revision = books.books[KEY].rev
    await worker.tend(20.0)
    assert books.books[KEY].rev == revision


async def test_days_that_are_over_are_forgotten() -> None:
    worker = Worker(MemoryBooks(), "w1", requests=10)
    await worker.use()
    await worker.tend(24 * 3_600)
    await worker.tend(IDLE_S)
    assert worker.holds.accounts == {}


async def test_a_window_that_is_over_and_forgotten_goes_on_from_its_book_when_the_clock_is_set_back() -> None:
    books = MemoryBooks()
    worker = Worker(books, "w1", per="minute", requests=4)
    for _ in range(3):
        assert await worker.use(5)
    for seconds in (61, IDLE_S, IDLE_S):
        await worker.tend(seconds)
    assert worker.holds.accounts == {}
    worker.now -= timedelta(seconds=70)
    assert [await worker.use(5) for _ in range(2)] == [True, False]
    await worker.tend(IDLE_S)
    [book] = books.books.values()
    assert (book.taken().requests, book.spent) == (4, Amounts(4, 20, 4 * CENT))


async def test_without_limits_nothing_is_asked() -> None:
    worker = Worker(NoBooks(), "w1")
    worker.holds = Holds(Rulebook([], {}), worker.books, "w1")
    await Tender(worker.holds, worker.release).tend()


async def test_stopping_gives_back_what_is_free() -> None:
    books = MemoryBooks()
    worker = Worker(books, "w1", requests=100)
    await worker.use()
    await worker.tender.stop()
    assert books.books[KEY].grants == {"w1": Amounts(1, 1, CENT)}
    assert books.books[KEY].closed == NOTHING


async def test_what_has_become_free_at_one_moment_releases_who_waits_for_it() -> None:
    worker = Worker(MemoryBooks(), "w1", per="concurrent", requests=1)
    hold = await worker.hold()
    assert not isinstance(hold, Denied)
    assert not await worker.use()
    await worker.tend()
    assert worker.released == []
    hold.settle(1, CENT)
    await worker.tend()
    assert worker.released == [("quota:tenant:acme:concurrent", 1)]


async def test_the_dead_hold_nothing_of_what_is_limited_at_one_moment() -> None:
    books = MemoryBooks()
    dead, alive = (Worker(books, name, per="concurrent", requests=2) for name in ("w1", "w2"))
    assert not isinstance(await dead.hold(), Denied)
    assert not isinstance(await dead.hold(), Denied)
    books.dead.add("w1")
    assert isinstance(await alive.hold(), Denied)
    await alive.tend(1.0)
    assert not isinstance(await alive.hold(), Denied)
    assert not isinstance(await alive.hold(), Denied)


async def test_a_minutes_end_releases_as_many_as_the_next_minute_has_room_for() -> None:
    worker = Worker(MemoryBooks(), "w1", per="minute", requests=5)
    for _ in range(5_000):
        await worker.use()
    for minute in range(1, 4):
        await worker.tend(60.0)
        assert worker.released == [("quota:tenant:acme:minute", 5)] * minute
        for _ in range(5):
            assert await worker.use()


async def test_a_soft_limits_spend_of_all_workers_is_known_to_each() -> None:
    books = MemoryBooks()
    workers = [Worker(books, name, mode="soft", requests=10) for name in ("w1", "w2")]
    for worker in workers:
        for _ in range(6):
            await worker.use()
    for worker in (*workers, *workers):
        await worker.tend(1.0)
    assert books.books[KEY].taken().requests == 12


async def test_what_a_worker_spent_under_a_soft_limit_is_counted_though_it_died_before_it_told() -> None:
    books = MemoryBooks()
    dying, living = (Worker(books, name, mode="soft", requests=2) for name in ("w1", "w2"))
    for _ in range(3):
        await dying.use()
    books.dead.add("w1")
    await living.tend()  # nobody of this one's jobs is counted here
    await living.use()
    await living.tend(LOOK_AROUND_S)
    book = books.books[KEY]
    assert (book.closed.requests, book.shut) == (3, ("w1",))


async def test_what_a_limit_lets_pass_though_it_is_used_up_is_counted_also_by_who_comes_late() -> None:
    books = MemoryBooks()
    first, late = (Worker(books, name, mode="soft", requests=10) for name in ("w1", "w2"))
    for worker, times, passed in ((first, 10, 0), (late, 4, 4), (first, 3, 3), (late, 0, 4)):
        for _ in range(times):
            await worker.use()
        await worker.tend(1.0)
        await worker.tend(IDLE_S)
        assert books.books[KEY].told[worker.name].passed_over == passed


async def test_a_window_is_not_forgotten_while_a_hold_of_it_still_asks_another_limits_book() -> None:
    books = SlowBooks()
    worker = Worker(books, "w1", requests=100)
    minute = Limit(scope="model", per="minute", requests=100)
    worker.holds = Holds(Rulebook([*worker.holds.rules.limits, minute], {}), books, "w1", clock=lambda: worker.seconds)
    holding = asyncio.create_task(worker.hold())
    await books.asked.wait()
    [_, account] = worker.holds.accounts.values()
    assert not account.settled
    books.go_on.set()
    hold = await holding
    assert not isinstance(hold, Denied)
    assert account.holds == 1


async def test_windows_that_are_over_are_forgotten_while_jobs_wait() -> None:
    worker = Worker(MemoryBooks(), "w1", per="minute", requests=1)
    for _ in range(30):
        await worker.use()
        await worker.use()
        await worker.tend(60.0)
    assert len(worker.holds.accounts) <= 3


async def test_of_many_limits_some_books_are_read_in_a_round_and_all_in_their_turn() -> None:
    books, rounds = ReadBooks(), 5
    us = Worker(books, "us", of="*")
    tenants = [f"t{number}" for number in range(rounds * IN_A_ROUND)]
    seen: set[Key] = set()
    for _ in range(rounds):
        for tenant in tenants:  # all are busy
            assert not isinstance(await us.holds.hold(Need(tenant, "m", 1, CENT), us.now), Denied)
        books.reads.clear()
        await us.tend(PERIOD_S)
        assert len(books.reads[0]) == IN_A_ROUND
        seen.update(books.reads[0])
    assert len(seen) == len(tenants)


async def test_of_many_limits_those_for_which_jobs_wait_elsewhere_give_back_in_the_next_round() -> None:
    books = MemoryBooks()
    us = Worker(books, "us", of="*")
    tenants = [f"t{number}" for number in range(5 * IN_A_ROUND)]
    for tenant in tenants:
        assert not isinstance(await us.holds.hold(Need(tenant, "m", 1, CENT), us.now), Denied)
    last = list(us.holds.accounts)[-1]
    free = us.holds.accounts[last].free
    books.books[last] = replace(books.books[last].noting(waiting=True), rev=books.books[last].rev + 1)
    await us.tend(PERIOD_S)
    assert free != NOTHING
    assert us.holds.accounts[last].free == NOTHING
    assert us.holds.accounts[list(us.holds.accounts)[-2]].free != NOTHING


class LongLedger(MemoryBooks):
    """Books whose ledger has too many rows to be summed in a few seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.summed, self.sums, self.looks = asyncio.Event(), 0, 0

    async def named(self, now: datetime) -> dict[str, list[Key]]:
        """Count who looks around."""
        self.looks += 1
        return await super().named(now)

    async def spent(self, key: Key, without: Collection[str], within_s: float = SOON_S) -> Amounts:
        """Unknown to who has little time; the others wait."""
        self.sums += 1
        if within_s <= SOON_S:
            raise StoreUnknownError("it takes longer")
        await self.summed.wait()
        return await super().spent(key, without)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have rounds go on at once while sums are made."""
    monkeypatch.setattr(tender, "CLOSING_S", 0.01)


def beside_the_dead(books: MemoryBooks) -> Worker:
    """A worker, and the entry of another one that is dead."""
    books.books[KEY] = Book(rev=1, grants={"gone": Amounts(3, 3, CENT)})
    books.dead.add("gone")
    return Worker(books, "w1", requests=10)


@pytest.mark.usefixtures("impatient")
async def test_a_sum_that_takes_minutes_keeps_nothing_else() -> None:
    books = LongLedger()
    worker = beside_the_dead(books)
    await worker.use()
    for _ in range(3):
        await worker.tend(PERIOD_S)
    assert "gone" in books.books[KEY].grants
    await worker.tend(IDLE_S)
    assert books.books[KEY].grants["w1"].requests == 1  # what was free is given back meanwhile
    assert (books.sums, books.looks) == (1, 1)
    books.summed.set()
    await asyncio.sleep(0)
    await worker.tend(PERIOD_S)
    assert "gone" not in books.books[KEY].grants
    await worker.tender.stop()


@pytest.mark.usefixtures("impatient")
async def test_a_book_that_a_job_has_no_time_to_begin_is_begun_beside() -> None:
    books = LongLedger()
    books.rows.append((KEY, "of before", Amounts(9, 9, CENT)))
    worker = Worker(books, "w1", requests=10)
    assert not await worker.use()
    await worker.tend(PERIOD_S)
    assert not await worker.use()
    books.summed.set()
    await asyncio.sleep(0)
    await worker.tend(PERIOD_S)
    assert books.books[KEY].closed.requests == 9
    assert worker.released
    assert await worker.use()
    assert not await worker.use()
    await worker.tender.stop()


async def test_a_sum_that_fails_is_tried_again_and_keeps_no_other(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(MemoryBooks):
        async def spent(self, key: Key, without: Collection[str], within_s: float = SOON_S) -> Amounts:
            if key == KEY:
                raise StoreUnknownError("away")
            return await super().spent(key, without, within_s)

    books, other = Failing(), KEY._replace(subject="tenant:other")
    for key in (KEY, other):
        books.books[key] = Book(rev=1, grants={"gone": Amounts(3, 3, CENT)})
    books.dead.add("gone")
    worker = Worker(books, "w1", requests=10)
    await worker.tend()
    assert ("gone" in books.books[KEY].grants, "gone" in books.books[other].grants) == (True, False)
    assert "quota.not_summed" in caplog.text


@pytest.mark.usefixtures("impatient")
async def test_a_sum_from_before_somebody_came_and_went_is_made_again() -> None:
    class Stale(LongLedger):
        async def spent(self, key: Key, without: Collection[str], within_s: float = SOON_S) -> Amounts:
            early = await MemoryBooks.spent(self, key, without, within_s)
            await self.summed.wait()
            return early

    books = Stale()
    worker = beside_the_dead(books)
    await worker.tend()
    books.rows.append((KEY, "passer-by", Amounts(5, 5, CENT)))
    passed = books.books[KEY].granting("passer-by", Amounts(5, 5, CENT)).closing(["passer-by"], Amounts(5, 5, CENT))
    assert await books.swap(KEY, passed)
    books.summed.set()
    await asyncio.sleep(0.02)
    assert books.books[KEY].closed.requests == 5
    await worker.tend(LOOK_AROUND_S)
    await worker.tend(LOOK_AROUND_S)
    assert (books.books[KEY].closed.requests, "gone" in books.books[KEY].grants) == (5, False)
    await worker.tender.stop()
