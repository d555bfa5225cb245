"""Holds come from a chunk of this worker's own; the book is asked rarely, by one at a time, and nothing is counted twice."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pytest

from broker.limits import Limit, Rulebook, Tenancy
from workers.quota.account import LASTS_S, MOST_GROWTH
from workers.quota.book import Amounts, Book
from workers.quota.holds import Holds
from workers.quota.hunger import CALL_IN_S
from workers.quota.memory import MemoryBooks
from workers.quota.protocol import Denied, Hold, Key, Need
from workers.stores.protocol import StoreUnknownError

NOW = datetime(2026, 12, 1, 8, tzinfo=UTC)
KEY = Key("tenant:acme", "day", datetime(2026, 12, 1, tzinfo=UTC), datetime(2026, 12, 2, tzinfo=UTC))
CENT = Decimal("0.01")


class CountingBooks(MemoryBooks):
    """Books that count what is asked of them, and may be away, or lose the answer to the next swap."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.away = False
        self.lose_swaps = 0

    async def read(self, keys: Sequence[Key]) -> dict[Key, Book]:
        """Count, and yield to others as a database does."""
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnknownError("away")
        return await super().read(keys)

    async def swap(self, key: Key, book: Book) -> bool:
        """Count, and lose the answer where that is planted."""
        self.asked += 1
        await asyncio.sleep(0)
        written = await super().swap(key, book)
        if self.lose_swaps:
            self.lose_swaps -= 1
            raise StoreUnknownError("lost")
        return written


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        """Now."""
        return self.seconds


def limit(**fields: object) -> Limit:
    return Limit.model_validate({"scope": "tenant", "of": "acme", "per": "day", **fields})


def worker(books: MemoryBooks, *limits: Limit, name: str = "w1", clock: Callable[[], float] | None = None) -> Holds:
    return Holds(Rulebook(limits, {}), books, name, clock=clock or Clock(), chance=Random(1))


def need(tokens: int = 10, usd: Decimal = CENT, tenant: str = "acme") -> Need:
    return Need(tenant, "m", tokens, usd)


async def held(holds: Holds, tokens: int = 10, usd: Decimal = CENT, now: datetime = NOW) -> Hold:
    hold = holds.try_hold(need(tokens, usd), now) or await holds.hold(need(tokens, usd), now)
    assert not isinstance(hold, Denied), hold.message
    return hold


async def denied(holds: Holds, tokens: int = 10, usd: Decimal = CENT, now: datetime = NOW) -> Denied:
    hold = holds.try_hold(need(tokens, usd), now) or await holds.hold(need(tokens, usd), now)
    assert isinstance(hold, Denied)
    return hold


async def test_a_tenant_without_a_limit_never_touches_the_database() -> None:
    books = CountingBooks()
    hold = worker(books, limit(of="other", requests=1)).try_hold(need(10**9, Decimal(10**9)), NOW)
    assert hold is not None
    assert hold.keys == []
    assert books.asked == 0


@pytest.mark.parametrize(("per", "seconds"), [("day", LASTS_S), ("minute", 15)])
async def test_a_chunk_lasts_minutes_at_the_pace_of_the_holds_and_a_quarter_of_a_short_window(
    per: str, seconds: float
) -> None:
    books, clock = CountingBooks(), Clock()
    holds = worker(books, limit(per=per, requests=10**6), clock=clock)
    for number in range(6_000):
        await held(holds)
        clock.seconds += 0.1
        if number == 3_000:
            asked = books.asked
    assert books.asked - asked == pytest.approx(300 / seconds, abs=2)


async def test_a_burst_is_no_pace() -> None:
    books, clock = CountingBooks(), Clock()
    holds = worker(books, limit(requests=10**6), clock=clock)
    for _ in range(17):
        await held(holds)
    assert next(iter(books.books.values())).grants["w1"].requests == 16 + 16 * MOST_GROWTH


async def test_who_is_alone_in_a_book_writes_it_without_reading_it_again() -> None:
    books = CountingBooks()
    holds = worker(books, limit(requests=10**6))
    for _ in range(1_000):
        await held(holds)
    assert books.asked == 1 + books.books[KEY].rev > 3


async def test_what_another_has_written_meanwhile_is_read_before_anything_is_granted_or_refused() -> None:
    books, clock = MemoryBooks(), Clock()
    books.rows.append((KEY, "of one that is closed", Amounts(6, 60, CENT)))
    ours = worker(books, limit(requests=10), clock=clock)
    others = worker(books, limit(requests=10), name="w2")
    for _ in range(4):
        await held(ours)
    await denied(ours)
    book = books.books[KEY]
    assert await books.swap(KEY, book.closing([], Amounts(3, 30, CENT)))  # the ledger says less than was thought
    clock.seconds += 60
    await held(ours)
    await held(others)
    await held(ours)
    await denied(ours)
    await denied(others)
    assert books.books[KEY].taken().requests == 10


async def test_thousands_of_holds_ask_the_book_a_few_times() -> None:
    books = CountingBooks()
    holds = worker(books, limit(requests=10**6, tokens=10**9, usd="100000"))
    for _ in range(10_000):
        (await held(holds)).settle(9, CENT)
    assert books.asked <= 40
    assert books.books[KEY].grants["w1"].requests >= 10_000


async def test_all_that_wait_for_a_chunk_share_one_grant() -> None:
    books = CountingBooks()
    holds = worker(books, limit(requests=10_000))
    await asyncio.gather(*(held(holds) for _ in range(1_000)))
    assert books.asked <= 6


@pytest.mark.parametrize("field", [{"requests": 5}, {"tokens": 50}, {"usd": "0.05"}])
async def test_no_more_is_held_than_the_limit(field: dict[str, Any]) -> None:
    holds = worker(MemoryBooks(), limit(**field))
    for _ in range(5):
        await held(holds)
    refusal = await denied(holds)
    assert refusal.policy == "wait"
    assert refusal.wait_key == "quota:tenant:acme:day"
    assert timedelta() <= refusal.until - datetime(2026, 12, 2, tzinfo=UTC) <= timedelta(minutes=10)
    assert "acme" in refusal.message


async def test_a_hold_takes_all_dimensions_or_none() -> None:
    holds = worker(MemoryBooks(), limit(requests=10, tokens=100))
    await denied_after_taking(holds)
    for _ in range(9):
        await held(holds, tokens=1)


async def denied_after_taking(holds: Holds) -> None:
    await held(holds, tokens=90)
    await denied(holds, tokens=11)


async def test_two_workers_together_hold_no_more_than_the_limit() -> None:
    books = MemoryBooks()
    workers = [worker(books, limit(requests=100), name=name) for name in ("w1", "w2")]
    taken = 0
    for number in range(300):
        hold = await workers[number % 2].hold(need(1), NOW)
        taken += not isinstance(hold, Denied)
    assert taken == 100


async def test_what_is_settled_for_less_is_free_again() -> None:
    holds = worker(MemoryBooks(), limit(tokens=100))
    hold = await held(holds, tokens=100)
    hold.settle(30, CENT)
    await held(holds, tokens=70)
    await denied(holds, tokens=1)


async def test_what_is_settled_for_more_is_counted_at_the_next_grant() -> None:
    books = MemoryBooks()
    holds = worker(books, limit(tokens=100))
    (await held(holds, tokens=60)).settle(95, CENT)
    await denied(holds, tokens=10)
    assert books.books[KEY].grants["w1"].tokens == 95


async def test_a_released_hold_leaves_nothing() -> None:
    holds = worker(MemoryBooks(), limit(requests=1))
    with await held(holds):
        pass
    (await held(holds)).release()
    await held(holds)


async def test_settling_and_releasing_again_changes_nothing() -> None:
    holds = worker(MemoryBooks(), limit(requests=3, tokens=30))
    with await held(holds) as hold:
        hold.settle(4, CENT)
        hold.settle(9, CENT)
        hold.release()
    released = await held(holds)
    released.release()
    released.release()
    released.settle(9, CENT)
    assert holds.accounts[KEY].used == Amounts(1, 4, CENT)


async def test_a_revoked_hold_gives_back_what_was_settled() -> None:
    holds = worker(MemoryBooks(), limit(requests=1))
    hold = await held(holds)
    hold.settle(10, CENT)
    hold.revoke()
    hold.revoke()
    await held(holds)


async def test_a_job_that_no_day_has_room_for_is_rejected_at_once() -> None:
    refusal = await denied(worker(MemoryBooks(), limit(tokens=100)), tokens=101)
    assert refusal.policy == "reject"
    assert "101 tokens" in refusal.message


async def test_a_tenant_that_wants_no_waiting_is_rejected_when_nobody_can_give_back() -> None:
    holds = worker(MemoryBooks(), limit(requests=1, at_limit="reject"))
    await held(holds)
    assert (await denied(holds)).policy == "reject"


async def test_a_rejection_waits_until_the_others_had_time_to_give_back() -> None:
    books, clock = MemoryBooks(), Clock()
    await held(worker(books, limit(requests=10, at_limit="reject"), name="w2"))
    holds = worker(books, limit(requests=1, at_limit="reject"), clock=clock)
    first = await denied(holds)
    assert (first.policy, first.doubtful) == ("wait", False)
    assert first.until - NOW < timedelta(seconds=10)
    clock.seconds += CALL_IN_S
    assert (await denied(holds)).policy == "reject"


async def test_a_refusal_is_remembered_for_a_moment_and_for_smaller_holds_not_at_all() -> None:
    books, clock = CountingBooks(), Clock()
    holds = worker(books, limit(tokens=100), clock=clock)
    await held(holds, tokens=90)
    await denied(holds, tokens=20)
    asked = books.asked
    await denied(holds, tokens=20)
    assert books.asked == asked
    await held(holds, tokens=10)
    clock.seconds += 1
    await denied(holds, tokens=20)
    assert books.asked > asked


async def test_a_refusal_is_noted_in_the_book_for_the_others() -> None:
    books = MemoryBooks()
    holds = worker(books, limit(requests=1))
    await held(holds)
    assert not books.books[KEY].waiting
    await denied(holds)
    assert books.books[KEY].waiting


async def test_who_cannot_reach_the_database_has_the_job_wait_a_moment() -> None:
    books, clock = CountingBooks(), Clock()
    books.away = True
    holds = worker(books, limit(requests=10, at_limit="reject"), clock=clock)
    refusal = await denied(holds)
    assert (refusal.policy, refusal.doubtful) == ("wait", True)
    assert refusal.until - NOW < timedelta(seconds=10)
    books.away = False
    clock.seconds += 1
    await held(holds)


async def test_a_lost_answer_to_a_grant_is_no_grant_and_no_loss() -> None:
    books, clock = CountingBooks(), Clock()
    books.lose_swaps = 1
    holds = worker(books, limit(requests=4), clock=clock)
    await denied(holds)
    clock.seconds += 1
    for _ in range(4):
        await held(holds)
    await denied(holds)
    assert books.books[KEY].grants["w1"].requests == 4


async def test_a_day_begins_with_what_the_ledger_already_says() -> None:
    books = MemoryBooks()
    books.rows.append((KEY, "of a worker without an entry", Amounts(3, 30, CENT)))
    holds = worker(books, limit(requests=4))
    await held(holds)
    await denied(holds)


async def test_a_hold_belongs_to_the_day_in_which_it_was_taken() -> None:
    books = MemoryBooks()
    holds = worker(books, limit(requests=1))
    before = await held(holds, now=datetime(2026, 12, 1, 23, 59, 59, tzinfo=UTC))
    after = await held(holds, now=datetime(2026, 12, 2, 0, 0, 1, tzinfo=UTC))
    assert (before.keys, after.keys) == ([KEY.id], ["tenant:acme/day/2026-12-02T00:00Z"])
    before.release()
    assert holds.accounts[KEY].used.requests == 0


async def test_an_incarnation_whose_entry_was_closed_gets_no_other() -> None:
    books, clock = MemoryBooks(), Clock()
    holds = worker(books, limit(requests=100), clock=clock)
    await held(holds)
    book = books.books[KEY]
    await books.swap(KEY, book.closing(["w1"], Amounts(1, 10, CENT)))
    while holds.try_hold(need(1), NOW):
        pass
    refusal = await denied(holds)
    assert (refusal.policy, "w1" in books.books[KEY].grants) == ("wait", False)


async def test_a_tenants_own_limit_comes_before_everybodys_and_everybody_has_it_for_himself() -> None:
    holds = worker(MemoryBooks(), limit(of="*", requests=1), limit(requests=2))
    await held(holds)
    await held(holds)
    await denied(holds)
    assert not isinstance(await holds.hold(need(1, tenant="b"), NOW), Denied)
    assert isinstance(await holds.hold(need(1, tenant="b"), NOW), Denied)
    assert not isinstance(await holds.hold(need(1, tenant="c"), NOW), Denied)


async def test_a_hold_is_taken_in_all_scopes_or_in_none() -> None:
    limits = (
        limit(scope="organisation", of="*", requests=10),
        limit(requests=10),
        limit(scope="model", of="m", tokens=15),
    )
    holds = Holds(Rulebook(limits, {"acme": Tenancy("us")}), MemoryBooks(), "w1", clock=Clock(), chance=Random(1))
    hold = await held(holds)
    assert hold.keys == [f"{owner}/day/2026-12-01T00:00Z" for owner in ("organisation:us", "tenant:acme", "model:m")]
    refusal = await denied(holds)
    assert refusal.wait_key == "quota:model:m:day"
    assert [account.used.requests for account in holds.accounts.values()] == [1, 1, 1]


async def test_two_tenants_of_an_organisation_share_its_limit() -> None:
    limits, tenants = [limit(scope="organisation", of="us", requests=3)], {"*": Tenancy("us")}
    holds = Holds(Rulebook(limits, tenants), MemoryBooks(), "w1", clock=Clock(), chance=Random(1))
    given = [await holds.hold(need(1, tenant=tenant), NOW) for tenant in ("a", "b", "c", "d")]
    assert [isinstance(hold, Denied) for hold in given] == [False, False, False, True]


async def test_what_runs_at_one_moment_is_limited_and_free_again_when_it_is_settled() -> None:
    freed: list[None] = []
    holds = worker(MemoryBooks(), limit(per="concurrent", requests=2))
    holds.freed = lambda: freed.append(None)
    first, second = await held(holds), await held(holds)
    assert first.keys == []  # the ledger knows nothing of it
    refusal = await denied(holds)
    assert timedelta() < refusal.until - NOW <= timedelta(seconds=60)
    first.settle(9, CENT)
    second.release()
    assert len(freed) == 2
    first.revoke()
    (await held(holds)), (await held(holds))
    await denied(holds)


async def test_two_workers_together_run_no_more_at_one_moment_than_the_limit() -> None:
    books = MemoryBooks()
    workers = [worker(books, limit(per="concurrent", requests=5), name=name) for name in ("w1", "w2")]
    given = [await workers[number % 2].hold(need(1), NOW) for number in range(20)]
    assert sum(not isinstance(hold, Denied) for hold in given) == 5


@pytest.mark.parametrize("mode", ["soft", "shadow"])
async def test_a_soft_limit_and_a_shadow_let_everything_pass_and_count_it(mode: str) -> None:
    books = CountingBooks()
    holds = worker(books, limit(requests=1, mode=mode))
    (await held(holds)).settle(10, CENT)
    for_its_entry = books.asked
    for _ in range(4):
        (await held(holds)).settle(10, CENT)
    assert books.asked == for_its_entry == 2  # read and written, once a window
    [account] = holds.accounts.values()
    assert account.used.requests == 5


@pytest.mark.parametrize(
    ("per", "zone", "end"),
    [
        ("minute", "UTC", datetime(2026, 12, 1, 8, 1, tzinfo=UTC)),
        ("hour", "Asia/Kolkata", datetime(2026, 12, 1, 8, 30, tzinfo=UTC)),
        ("day", "Europe/Berlin", datetime(2026, 12, 1, 23, tzinfo=UTC)),
        ("month", "Europe/Berlin", datetime(2026, 12, 31, 23, tzinfo=UTC)),
    ],
)
async def test_a_job_waits_for_the_end_of_the_window_in_its_zone(per: str, zone: str, end: datetime) -> None:
    holds = worker(MemoryBooks(), limit(requests=1, per=per, time_zone=zone))
    await held(holds)
    assert timedelta() <= (await denied(holds)).until - end <= timedelta(minutes=10)
    await held(holds, now=end)


async def test_who_waits_for_a_lifetime_looks_again_within_an_hour() -> None:
    holds = worker(MemoryBooks(), limit(requests=1, per="lifetime"))
    await held(holds)
    assert timedelta(minutes=20) < (await denied(holds)).until - NOW <= timedelta(hours=1)
    assert (await denied(holds, now=NOW + timedelta(days=4_000))).policy == "wait"


async def test_thousands_that_wait_become_due_over_as_many_windows_as_they_need() -> None:
    holds = worker(MemoryBooks(), limit(requests=10, per="minute"))
    for _ in range(10):
        await held(holds)
    dues = [(await denied(holds)).until - NOW for _ in range(1_000)]
    per_minute = [sum(n <= due / timedelta(minutes=1) < n + 1 for due in dues) for n in range(1, 102)]
    assert max(per_minute[20:]) <= 40
    assert max(dues) > timedelta(minutes=80)


async def test_at_the_limit_another_model_or_the_lowest_priority_is_named() -> None:
    cheaper = worker(MemoryBooks(), limit(requests=1, at_limit="cheaper_model", cheaper_model="small"))
    await held(cheaper)
    refusal = await denied(cheaper)
    assert (refusal.policy, refusal.model, refusal.hopeless) == ("cheaper_model", "small", False)
    assert (await denied(worker(MemoryBooks(), limit(tokens=5, at_limit="cheaper_model", cheaper_model="s")))).hopeless
    lower = worker(MemoryBooks(), limit(requests=1, at_limit="lower_priority"))
    await held(lower)
    assert (await denied(lower)).policy == "lower_priority"


async def test_what_another_limit_keeps_from_its_call_has_not_passed_a_shadow() -> None:
    books = CountingBooks()
    holds = worker(books, limit(requests=1, mode="shadow"), limit(scope="model", of="m", requests=3))
    await held(holds)
    [shadow] = [account for account in holds.accounts.values() if account.passing]
    await holds.entries.write(shadow, keeping=True)
    await held(holds), await held(holds)
    for _ in range(5):
        await denied(holds)
    await holds.entries.write(shadow, keeping=True)
    assert (shadow.taken, books.books[shadow.key].told["w1"].passed_over) == (3, 2)


@pytest.mark.parametrize("mode", ["soft", "shadow"])
async def test_a_soft_limit_and_a_shadow_let_pass_also_while_the_database_is_away_and_ask_it_once(mode: str) -> None:
    books = CountingBooks()
    books.away = True
    holds = worker(books, limit(requests=1, mode=mode))
    for _ in range(5):
        await held(holds)
    assert books.asked == 1


async def test_what_runs_in_the_lowest_priority_passes_a_limit_that_lowers_the_priority_and_is_counted() -> None:
    rules = Rulebook([limit(requests=1, at_limit="lower_priority")], {})
    holds = Holds(rules, MemoryBooks(), "w1", lowest="batch", clock=Clock(), chance=Random(1))
    await held(holds)
    for _ in range(3):
        assert holds.try_hold(need()._replace(priority="batch"), NOW) is not None
    assert holds.accounts[KEY].used.requests == 4


async def test_a_job_that_is_larger_than_one_job_may_be_is_rejected() -> None:
    holds = worker(
        MemoryBooks(), limit(scope="job", of="*", per="lifetime", at_limit="reject", tokens=100), limit(requests=9)
    )
    refusal = await denied(holds, tokens=101)
    assert (refusal.policy, refusal.message) == (
        "reject",
        "the job may use 101 tokens, more than the 100 of one job; make it smaller",
    )
    await held(holds, tokens=100)


async def test_a_clock_that_is_set_back_finds_the_window_before() -> None:
    holds = worker(MemoryBooks(), limit(requests=1, per="minute"))
    await held(holds)
    await held(holds, now=NOW + timedelta(minutes=1))
    await denied(holds, now=NOW + timedelta(seconds=59))
