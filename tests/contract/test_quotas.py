"""What every home of quota books promises: in memory, and on a real MongoDB by both drivers; and two workers on it that are killed."""

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, Protocol

import pymongo
import pytest
from bson.decimal128 import Decimal128

from broker.limit_versions import LimitVersion, stored
from broker.limits import Limit, Rulebook, parts
from broker.mongo import close, connect, prepare
from broker.thresholds import Threshold
from workers.quota.book import NOTHING, Alert, Amounts, Book, Told
from workers.quota.book import Limit as Figures
from workers.quota.holds import Holds
from workers.quota.memory import MemoryBooks
from workers.quota.mongo import MongoBooks
from workers.quota.protocol import Books, Denied, Key, Need
from workers.quota.tender import Tender
from workers.stores.protocol import StoreUnknownError

DAY = datetime(2026, 12, 1, tzinfo=UTC)
NOW = datetime(2026, 12, 1, 8, tzinfo=UTC)


def key_of(owner: str, day: datetime = DAY) -> Key:
    return Key(f"tenant:{owner}", "day", day, day + timedelta(days=1))


KEY = key_of("acme")
CENT = Decimal("0.01")
NEED = Need("acme", "m", 10, CENT)
SOME = Amounts(3, 1_000_000_000_000, Decimal("0.000207600001"))


def alert_at(threshold: Threshold, *, told: bool = False) -> Alert:
    return Alert(threshold, NOW, "usd", SOME, Figures(None, 10, CENT), "hard", 3, told)


class World(Protocol):
    """A home of books, and what happens around it."""

    books: Books

    async def row(self, key: Key, incarnation: str, used: Amounts, *, billed: bool = True) -> None:
        """A row is on the ledger."""

    async def lease(self, incarnation: str, *, fenced: bool = False) -> None:
        """A worker has a lease."""

    async def leave(self, incarnation: str, what: Literal["claimed", "outbox", "nothing"]) -> None:
        """A worker leaves a document behind."""

    async def set_limits(self, said: LimitVersion) -> None:
        """Somebody sets limits."""


class MemoryWorld:
    """Books in memory."""

    def __init__(self) -> None:
        self.books = MemoryBooks()

    async def row(self, key: Key, incarnation: str, used: Amounts, *, billed: bool = True) -> None:
        """A row is on the ledger; only billed ones matter."""
        if billed:
            self.books.rows.append((key, incarnation, used))

    async def lease(self, incarnation: str, *, fenced: bool = False) -> None:
        """A worker lives, or is declared dead."""
        if fenced:
            self.books.dead.add(incarnation)

    async def leave(self, incarnation: str, what: Literal["claimed", "outbox", "nothing"]) -> None:
        """A worker without a lease is dead."""
        self.books.dead.add(incarnation)
        if what == "nothing":
            self.books.busy.discard(incarnation)
        else:
            self.books.busy.add(incarnation)

    async def set_limits(self, said: LimitVersion) -> None:
        """Only the last ones matter."""
        self.books.version = said


class MongoWorld:
    """Books in a database of its own."""

    def __init__(self, url: str, driver: Literal["pymongo", "motor"]) -> None:
        self.client = connect(url, driver)
        self.database = self.client[f"quotas_{uuid.uuid4().hex[:8]}"]
        self.books = MongoBooks(self.database)
        self._numbers = itertools.count()

    async def row(self, key: Key, incarnation: str, used: Amounts, *, billed: bool = True) -> None:
        """As `workers/settle.py` writes them."""
        at = min(key.start, NOW) + timedelta(hours=9)
        row: dict[str, Any] = {
            "_id": f"uid/1/1.{next(self._numbers)}",
            **dict.fromkeys(("job_id", "priority", "operation", "provider"), "x"),
            "at": at,
            "recorded_at": at,
            "generation": 1,
            "estimated": False,
            "billed": billed,
            "tenant": parts(key.subject)[1] or "acme",
            "quota_keys": ["tenant:acme/month/2026-12-01T00:00Z", key.id],
            "incarnation": incarnation,
            "input_tokens": used.tokens - 1,
            "output_tokens": 1,
            "cost_usd": Decimal128(used.usd),
        }
        for _ in range(used.requests):
            await self.database["usage"].insert_one(row)
            zero = {"input_tokens": 0, "output_tokens": 0, "cost_usd": Decimal128("0")}
            row = {**row, **zero, "_id": f"uid/1/1.{next(self._numbers)}"}

    async def lease(self, incarnation: str, *, fenced: bool = False) -> None:
        """A lease as the store writes it."""
        document = {"until": NOW, **({"fenced": True} if fenced else {})}
        await self.database["workers"].replace_one({"_id": incarnation}, document, upsert=True)

    async def leave(self, incarnation: str, what: Literal["claimed", "outbox", "nothing"]) -> None:
        """A document in the name of this worker."""
        document = {
            "claimed": {"state": "claimed"},
            "outbox": {"state": "succeeded", "outbox": "t"},
            "nothing": {"state": "waiting"},
        }
        await self.database["jobs"].replace_one(
            {"_id": incarnation}, {"owner": incarnation, **document[what]}, upsert=True
        )

    async def set_limits(self, said: LimitVersion) -> None:
        """As the command does."""
        await self.database["limits"].insert_one({"_id": said.version, **stored(said)})

    async def aclose(self) -> None:
        """Drop the database and give back connections."""
        await self.client.drop_database(self.database.name)
        await close(self.client)


@pytest.fixture(params=["memory", "pymongo", "motor"])
def kind(request: pytest.FixtureRequest) -> tuple[Any, str]:
    """The adapter, and the MongoDB that it needs."""
    return request.param, "" if request.param == "memory" else request.getfixturevalue("mongo_url")


@pytest.fixture
async def world(kind: tuple[Any, str]) -> AsyncIterator[World]:
    driver, url = kind
    if driver == "memory":
        yield MemoryWorld()
        return
    mongo = MongoWorld(url, driver)
    await prepare(mongo.database)
    yield mongo
    await mongo.aclose()


async def written(world: World, book: Book, key: Key = KEY) -> Book:
    assert await world.books.swap(key, book)
    return (await world.books.read([key]))[key]


async def test_a_book_is_read_as_it_was_written(world: World) -> None:
    owner = str(uuid.uuid4())
    book = Book(
        closed=SOME,
        grants={owner: SOME},
        shut=(str(uuid.uuid4()),),
        waiting=True,
        told={owner: Told(SOME, 7)},
        alerts={str(alert.threshold): alert for alert in (alert_at(50, told=True), alert_at("forecast"))},
    )
    stored = await written(world, book)
    assert stored == replace(book, rev=1)


async def test_books_with_an_alert_that_is_not_told_are_found_until_it_is(world: World) -> None:
    other = key_of("other", DAY - timedelta(days=30))
    await written(world, Book().alerting([alert_at(50, told=True)]))
    book = await written(world, Book().alerting([alert_at(50), alert_at(80, told=True)]), other)
    assert await world.books.untold() == [other]
    await written(world, book.alerting([alert_at(50, told=True)]), other)
    assert await world.books.untold() == []


async def test_a_book_that_is_not_there_is_not_read(world: World) -> None:
    await written(world, Book())
    assert (await world.books.read([KEY, key_of("other")])).keys() == {KEY}
    assert await world.books.read([]) == {}


async def test_a_revision_is_written_once(world: World) -> None:
    first = await written(world, Book())
    assert await world.books.swap(KEY, first.noting(waiting=True))
    assert not await world.books.swap(KEY, first.granting("w", SOME))
    assert not await world.books.swap(KEY, Book())
    (book,) = (await world.books.read([KEY])).values()
    assert (book.rev, book.waiting, book.grants) == (2, True, {})


async def test_of_many_writers_one_wins(world: World) -> None:
    first = await written(world, Book())
    swaps = [world.books.swap(KEY, first.granting(f"w{number}", SOME)) for number in range(20)]
    assert sum(await asyncio.gather(*swaps)) == 1


async def test_the_ledger_is_summed_for_one_tenant_and_day_without_some_incarnations(world: World) -> None:
    await world.row(KEY, "w1", SOME)
    await world.row(KEY, "w2", Amounts(1, 5, CENT))
    await world.row(KEY, "w3", Amounts(1, 7, CENT))
    await world.row(KEY, "w2", Amounts(1, 99, CENT), billed=False)
    await world.row(key_of("other"), "w2", Amounts(1, 99, CENT))
    await world.row(key_of("acme", DAY + timedelta(days=1)), "w2", Amounts(1, 99, CENT))
    assert await world.books.spent(KEY, ()) == Amounts(5, 12 + SOME.tokens, SOME.usd + 2 * CENT)
    assert await world.books.spent(KEY, {"w1", "w3"}) == Amounts(1, 5, CENT)
    assert await world.books.spent(KEY, {"w1", "w2", "w3"}) == NOTHING


async def test_only_the_dead_without_documents_can_be_closed(world: World) -> None:
    await world.lease("living")
    await world.lease("fenced", fenced=True)
    await world.leave("gone", "nothing")
    await world.leave("claiming", "claimed")
    await world.leave("unpublished", "outbox")
    everybody = {"living", "fenced", "gone", "claiming", "unpublished"}
    assert await world.books.closable(everybody) == {"fenced", "gone"}
    await world.leave("claiming", "nothing")
    assert await world.books.closable(everybody) == {"fenced", "gone", "claiming"}
    assert await world.books.closable(()) == set()


async def test_books_are_found_by_who_waits_and_who_has_entries(world: World) -> None:
    yesterday, long_ago = key_of("acme", DAY - timedelta(days=1)), key_of("acme", DAY - timedelta(days=30))
    await written(world, Book(waiting=True, grants={"w1": SOME, "w2": SOME}))
    await written(world, Book(grants={"w1": SOME}), yesterday)
    await written(world, Book(waiting=True, grants={"w3": SOME}), long_ago)
    assert await world.books.waiting(NOW) == [KEY]
    named = await world.books.named(NOW)
    assert {owner: set(keys) for owner, keys in named.items()} == {"w1": {KEY, yesterday}, "w2": {KEY}}
    assert set(await world.books.current(NOW)) == {KEY, yesterday}


async def test_the_last_limits_that_were_set_are_read_once_they_are_later(world: World) -> None:
    whole = Limit(scope="tag", of="team=*", tenant="acme", per="month", usd=CENT, mode="soft", alerts=(90, "forecast"))
    assert await world.books.limits(0) is None
    first = LimitVersion(version=1, limits=(whole,), at=NOW, by="ann", reason="a trial")
    last = LimitVersion(version=2, limits=None, at=NOW, by="bob")
    await world.set_limits(first)
    assert await world.books.limits(0) == first
    assert await world.books.limits(1) is None
    await world.set_limits(last)
    assert await world.books.limits(0) == await world.books.limits(1) == last


async def test_limits_that_a_newer_release_has_set_are_unknown_and_never_half_read(mongo: MongoWorld) -> None:
    said = {"scope": "galaxy", "per": "day", "requests": 1}
    await mongo.database["limits"].insert_one({"_id": 3, "limits": [said], "at": NOW, "by": "ann"})
    with pytest.raises(StoreUnknownError, match="version 3"):
        await mongo.books.limits(0)


async def nobody_released(_: str, __: int) -> int:
    return 0


class Process:
    """A worker on these books, which runs jobs and may be killed."""

    def __init__(self, world: World, limit: Limit) -> None:
        self.world, self.name, self.seconds = world, str(uuid.uuid4()), 0.0
        self.holds = Holds(Rulebook([limit], {}), world.books, self.name, clock=lambda: self.seconds)
        self.tender = Tender(self.holds, nobody_released, lambda: NOW)
        self.calls = 0

    async def run(self, jobs: int) -> None:
        """Run jobs, many at once; those that are denied wait."""
        await self.world.lease(self.name)
        await asyncio.gather(*(self._run_one() for _ in range(jobs)))

    async def _run_one(self) -> None:
        hold = self.holds.try_hold(NEED, NOW) or await self.holds.hold(NEED, NOW)
        if not isinstance(hold, Denied):
            self.calls += 1
            hold.settle(8, CENT)
            await self.world.row(KEY, self.name, Amounts(1, 8, CENT))

    async def tend(self, seconds: float) -> None:
        """Let time pass and tend once."""
        self.seconds += seconds
        await self.tender.tend()


async def test_two_workers_make_no_more_calls_than_the_limit_and_use_it_up(world: World) -> None:
    limit = Limit(scope="tenant", per="day", requests=100)
    workers = [Process(world, limit), Process(world, limit)]
    await asyncio.gather(*(worker.run(500) for worker in workers))
    for _ in range(4):
        for worker in workers:
            await worker.tend(3.0)
            await worker.run(50)
    assert sum(worker.calls for worker in workers) == 100
    for worker in workers:
        await worker.tend(30.0)
    (book,) = (await world.books.read([KEY])).values()
    assert book.taken() == await world.books.spent(KEY, ()) == Amounts(100, 800, 100 * CENT)


async def test_after_the_death_of_both_the_rest_of_the_limit_is_usable(world: World) -> None:
    limit = Limit(scope="tenant", per="day", requests=100)
    dead = [Process(world, limit), Process(world, limit)]
    for worker in dead:
        await worker.run(10)
    for worker in dead:
        await world.leave(worker.name, "nothing")
        await world.lease(worker.name, fenced=True)
    third = Process(world, limit)
    await third.run(100)
    for _ in range(3):
        await third.tend(3.0)
        await third.run(100)
    assert third.calls == 80
    (book,) = (await world.books.read([KEY])).values()
    assert book.grants.keys() == {third.name}
    assert set(book.shut) == {worker.name for worker in dead}


async def test_many_workers_at_once_never_pass_the_limit(world: World) -> None:
    limit = Limit(scope="tenant", per="day", requests=50, tokens=600, usd=Decimal(1))
    workers = [Process(world, limit) for _ in range(6)]
    await asyncio.gather(*(worker.run(40) for worker in workers))
    for _ in range(3):
        await asyncio.gather(*(worker.tend(3.0) for worker in workers))
        await asyncio.gather(*(worker.run(10) for worker in workers))
    spent = await world.books.spent(KEY, ())
    assert spent.requests == 50


@pytest.fixture(params=["pymongo", "motor"])
async def mongo(request: pytest.FixtureRequest, mongo_url: str) -> AsyncIterator[MongoWorld]:
    made = MongoWorld(mongo_url, request.param)
    await prepare(made.database)
    yield made
    await made.aclose()


@contextmanager
def failing(url: str, command: str) -> Iterator[None]:
    """Every command of this kind fails."""
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        data = {"failCommands": [command], "errorCode": 50, "appName": "aibroker"}
        client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=data)
        try:
            yield
        finally:
            client.admin.command("configureFailPoint", "failCommand", mode="off")


@pytest.mark.parametrize("command", ["find", "insert", "aggregate"])
async def test_a_database_that_does_not_answer_makes_the_job_wait(
    mongo: MongoWorld, mongo_url: str, command: str
) -> None:
    worker = Process(mongo, Limit(scope="tenant", per="day", requests=1, at_limit="reject"))
    with failing(mongo_url, command):
        refusal = await worker.holds.hold(NEED, NOW)
    assert isinstance(refusal, Denied)
    assert refusal.policy == "wait"
    assert refusal.until - NOW < timedelta(seconds=10)
    worker.seconds += 1
    assert not isinstance(await worker.holds.hold(NEED, NOW), Denied)
