"""Holds come from a chunk of this worker's own; the book is asked rarely, by one at a time, and nothing is counted twice."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pytest

from broker.settings import Quota as Limit
from workers.quota.book import Amounts, Book
from workers.quota.holds import Holds
from workers.quota.hunger import CALL_IN_S
from workers.quota.memory import MemoryBooks
from workers.quota.protocol import Denied, Hold, Key
from workers.stores.protocol import StoreUnknownError

NOW = datetime(2026, 12, 1, 8, tzinfo=UTC)
KEY = Key("acme", "2026-12-01")
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
    return Limit.model_validate({"tenant": "acme", **fields})


def worker(books: MemoryBooks, *limits: Limit, name: str = "w1", clock: Callable[[], float] | None = None) -> Holds:
    return Holds(limits, books, name, clock=clock or Clock(), chance=Random(1))


async def held(holds: Holds, tokens: int = 10, usd: Decimal = CENT, now: datetime = NOW) -> Hold:
    hold = holds.try_hold("acme", tokens, usd, now) or await holds.hold("acme", tokens, usd, now)
    assert not isinstance(hold, Denied), hold.message
    return hold


async def denied(holds: Holds, tokens: int = 10, usd: Decimal = CENT, now: datetime = NOW) -> Denied:
    hold = holds.try_hold("acme", tokens, usd, now) or await holds.hold("acme", tokens, usd, now)
    assert isinstance(hold, Denied)
    return hold


async def test_a_tenant_without_a_limit_never_touches_the_database() -> None:
    books = CountingBooks()
    hold = worker(books, limit(tenant="other", requests=1)).try_hold("acme", 10**9, Decimal(10**9), NOW)
    assert hold is not None
    assert hold.day == "2026-12-01"
    assert books.asked == 0


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
    assert refusal.wait_key == "quota:acme:2026-12-01"
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
        hold = await workers[number % 2].hold("acme", 1, CENT, NOW)
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
    assert holds.tenancies[KEY].account.used == Amounts(1, 4, CENT)


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
    holds = worker(MemoryBooks(), limit(requests=1, policy="reject"))
    await held(holds)
    assert (await denied(holds)).policy == "reject"


async def test_a_rejection_waits_until_the_others_had_time_to_give_back() -> None:
    books, clock = MemoryBooks(), Clock()
    await held(worker(books, limit(requests=10, policy="reject"), name="w2"))
    holds = worker(books, limit(requests=1, policy="reject"), clock=clock)
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
    holds = worker(books, limit(requests=10, policy="reject"), clock=clock)
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
    assert (before.day, after.day) == ("2026-12-01", "2026-12-02")
    before.release()
    assert holds.tenancies[KEY].account.used.requests == 0


async def test_an_incarnation_whose_entry_was_closed_gets_no_other() -> None:
    books, clock = MemoryBooks(), Clock()
    holds = worker(books, limit(requests=100), clock=clock)
    await held(holds)
    book = books.books[KEY]
    await books.swap(KEY, book.closing(["w1"], Amounts(1, 10, CENT)))
    while holds.try_hold("acme", 1, CENT, NOW):
        pass
    refusal = await denied(holds)
    assert (refusal.policy, "w1" in books.books[KEY].grants) == ("wait", False)


async def test_a_tenants_own_limit_comes_before_everybodys_and_everybody_has_it_for_himself() -> None:
    holds = worker(MemoryBooks(), limit(tenant="*", requests=1), limit(requests=2))
    await held(holds)
    await held(holds)
    await denied(holds)
    assert not isinstance(await holds.hold("b", 1, CENT, NOW), Denied)
    assert isinstance(await holds.hold("b", 1, CENT, NOW), Denied)
    assert not isinstance(await holds.hold("c", 1, CENT, NOW), Denied)
