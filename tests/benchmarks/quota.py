"""QUOTA: what limits cost on a job's path: microseconds of CPU a hold, from taking it to settling it, and operations of MongoDB a job.

The worker's own `Holds` and `Tender` on the real database, without the rest of a worker, so that nothing else is counted. Their clock goes as fast as
a worker serves jobs (`JOBS_A_SECOND`), whatever this machine can do, because how often a book is asked for another chunk depends on it. A thousand
holds are open at any moment. Each job is counted by four limits: its organisation's month, its tenant's day, its tag's day, its model's minute.
"""

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import cycle
from random import Random

from broker import mongo
from broker.local.stack import Stack
from broker.settings import load
from tests.benchmarks.ground import Entry, Figure, Options, counted, fresh
from workers.quota.holds import Holds
from workers.quota.mongo import MongoBooks
from workers.quota.protocol import Denied, Hold, Need
from workers.quota.tender import PERIOD_S, Tender

CPU_US = 30.0
OPERATIONS = 0.1
"""None of a job's own: one for ten jobs at most, and what a job costs must not grow with them."""
JOBS = 200_000
OPEN = 1_000
JOBS_A_SECOND = 700
SCOPES = 4
FEW, MANY = 4, 1_000
"""Tenants: as P1 has, and so many that each asks for chunks by itself."""
BEGIN = datetime(2026, 12, 1, tzinfo=UTC)
LIMITS = """
limits:
  - {scope: organisation, of: "*", per: month, requests: 100000000, tokens: 100000000000, usd: "1000000"}
  - {scope: tenant, of: "*", per: day, requests: 10000000, tokens: 10000000000, usd: "100000"}
  - {scope: tag, of: "team=*", per: day, usd: "100000"}
  - {scope: model, of: "*", per: minute, requests: 10000000, tokens: 10000000000}
tenants: {"*": {organisation: all}}
"""


@dataclass
class _Clock:
    """Seconds that pass with the jobs."""

    seconds: float = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.seconds)


@dataclass(frozen=True)
class _Cost:
    cpu_us: float
    operations: float
    writes: int  # of books


async def measure(stack: Stack, options: Options) -> Entry:
    """Hold and settle for few tenants, then for many."""
    jobs = options.sized(JOBS)
    few, many = [await _cost(stack, options, jobs, tenants) for tenants in (FEW, MANY)]
    return Entry(
        {
            f"us of CPU a job, {FEW} tenants": Figure(few.cpu_us, "<=", CPU_US),
            f"us of CPU a job, {MANY:,} tenants": Figure(many.cpu_us, "<=", CPU_US),
            f"operations a job, {FEW} tenants": Figure(few.operations, "<=", OPERATIONS),
            f"operations a job, {MANY:,} tenants": Figure(many.operations, "<=", OPERATIONS),
        },
        {
            "jobs": jobs,
            "open": OPEN,
            "jobs_a_second": JOBS_A_SECOND,
            "limits_a_job": SCOPES,
            "writes_of_books": {FEW: few.writes, MANY: many.writes},
            "cpu": "of this process alone, with the background; nothing else fills the caches as the rest of a worker does",
        },
    )


async def _cost(stack: Stack, options: Options, jobs: int, tenants: int) -> _Cost:
    async with fresh(stack, options, LIMITS) as deployment:
        client = mongo.connect(deployment.services.mongo)
        try:
            database = client[deployment.services.database]
            await mongo.prepare(database)
            clock = _Clock()
            rules = load(deployment.environment).rulebook()
            holds = Holds(rules, MongoBooks(database), "bench", clock=clock.monotonic, chance=Random(1))
            tender = Tender(holds, _nobody_waits, clock.now)
            lengths = _lengths(jobs)
            operations, began = sum(counted(deployment.mongo).values()), time.process_time()
            await _serve(holds, tender, clock, _needs(lengths, tenants))
            used_s = time.process_time() - began
            operations = sum(counted(deployment.mongo).values()) - operations
        finally:
            await mongo.close(client)
        written = deployment.documents({}, "quotas")
    held: Counter[str] = Counter()
    for book in written:
        held[book["subject"].partition(":")[0]] += book["grants"]["bench"]["requests"]
    assert sorted(held.values()) == [jobs] * SCOPES, f"the books do not say what was used: {held}"
    return _Cost(used_s / jobs * 1e6, operations / jobs, sum(book["rev"] for book in written))


def _lengths(jobs: int) -> list[int]:
    """The tokens of each job, drawn before the clock runs."""
    chance = Random(2)
    return [chance.randint(100, 1_000) for _ in range(jobs)]


def _needs(lengths: Sequence[int], tenants: int) -> Iterator[Need]:
    usd = Decimal("0.000123")
    teams = cycle(({"team": "red"}, {"team": "green"}, {"team": "blue"}))
    names = cycle([f"t{number}" for number in range(tenants)])
    for tokens, team, name in zip(lengths, teams, names, strict=False):
        yield Need(name, "gpt-4o-mini", tokens, usd, "normal", None, team)


async def _serve(holds: Holds, tender: Tender, clock: _Clock, needs: Iterator[Need]) -> None:
    """Take each hold, and settle the one that is a thousand older with other amounts; the background goes on as in a worker."""
    open_ones: deque[tuple[Hold, Need]] = deque()
    tended = 0.0
    for need in needs:
        clock.seconds += 1 / JOBS_A_SECOND
        now = clock.now()
        hold = holds.try_hold(need, now) or await holds.hold(need, now)
        assert not isinstance(hold, Denied), hold
        open_ones.append((hold, need))
        if len(open_ones) > OPEN:
            _settle(*open_ones.popleft())
        if clock.seconds - tended >= PERIOD_S:
            tended = clock.seconds
            await tender.tend()
    for hold, need in open_ones:
        _settle(hold, need)
    await tender.stop()


def _settle(hold: Hold, need: Need) -> None:
    with hold:
        hold.settle(need.tokens - 7, need.usd)


async def _nobody_waits(key: str, count: int) -> int:
    raise AssertionError((key, count))
