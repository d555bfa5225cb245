"""Limits that change, windows, workers, crashes, clock steps, lost and late answers: no limit is passed, nothing stays held, alerts are told."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.limit_versions import LimitVersion
from broker.limits import Limit, Rulebook, Tenancy, units
from workers.quota.alerting import Alerting
from workers.quota.alerts import alert_id, event, reached
from workers.quota.book import Alert, Amounts, Book, added
from workers.quota.holds import Holds
from workers.quota.memory import MemoryBooks
from workers.quota.protocol import Denied, Hold, Key, Need, looked_at_until
from workers.quota.ruling import Ruling
from workers.quota.tender import Tender
from workers.stores.protocol import StoreUnknownError

pytestmark = pytest.mark.timeout(120)  # what every test has; who says so begins before short ones

REQUESTS, TOKENS = 10, 80
PRICE = Decimal("0.0000015")
NUMBERS = st.integers(0, 60)
TEAMS = st.sampled_from([None, "red", "blue"])
FATES = ["answered"] * 6 + ["executed", "never", "later"]
LIMITS = (
    Limit(scope="tenant", per="day", requests=REQUESTS, tokens=TOKENS, usd=PRICE * TOKENS),
    Limit(scope="organisation", per="minute", tokens=50),
    Limit(scope="model", per="concurrent", requests=4),
    Limit(scope="tag", of="team=*", per="hour", time_zone="Asia/Kolkata", requests=7),
    Limit(scope="tenant", of="acme", per="month", tokens=40, mode="shadow"),
)
DAY, MINUTE, CONCURRENT, TEAM, SHADOW = LIMITS
OTHERS = (
    (DAY.model_copy(update={"requests": 14, "tokens": 60}), MINUTE, TEAM, SHADOW),
    (
        DAY,
        MINUTE.model_copy(update={"tokens": 30, "requests": 4}),
        CONCURRENT,
        SHADOW.model_copy(update={"tokens": 20}),
    ),
    (DAY.model_copy(update={"alerts": (10, 90)}), CONCURRENT, TEAM.model_copy(update={"mode": "soft"})),
)
"""What the limits may be changed to: other amounts and units, more and fewer of them, and one that lets pass."""
ALWAYS_HARD = ("tenant:", "organisation:", "model:")
"""Whose limits never let pass, in any version."""


def rules(said: LimitVersion | None = None) -> Rulebook:
    limits, version = (LIMITS, 0) if said is None else (said.limits or (), said.version)
    return Rulebook(limits, {"acme": Tenancy("us", "Europe/Berlin")}, version)


START = datetime(2026, 12, 1, 23, 50, tzinfo=UTC)


def need(tokens: int, team: str | None) -> Need:
    return Need("acme", "m", tokens, PRICE * tokens, tags={} if team is None else {"team": team})


def chosen(things: list[Any], at: int) -> Any:  # noqa: ANN401 one of them
    return things[at % len(things)]


class Wire:
    """Books whose every verb waits until the test says what becomes of it."""

    def __init__(self, books: MemoryBooks) -> None:
        self._books = books
        self.asked: list[tuple[Callable[[], Coroutine[Any, Any, Any]], asyncio.Future[Any]]] = []

    def __getattr__(self, verb: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def ask(*arguments: object) -> Any:  # noqa: ANN401 whatever the verb answers
            answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self.asked.append((lambda: getattr(self._books, verb)(*arguments), answer))
            return await answer

        return ask


class Job:
    """A job under way: its hold, and what it will have used."""

    def __init__(self, hold: Hold, tokens: int, worker: "Worker") -> None:
        self.hold, self.tokens = hold, tokens
        self.keys = [account.key for account in hold._accounts]  # type: ignore[attr-defined] # those of one moment, too
        assert all(key.id in hold.keys for key in self.keys if key.on_ledger), worker.name


class Worker:
    """One life of a worker process."""

    def __init__(self, name: str, machine: "QuotaMachine") -> None:
        self.name = name
        self._machine = machine
        self.wire = Wire(machine.books)
        self.step_s = 0.0
        self.unanswered = False  # some verb was, so that it may have let pass without an entry
        wire, begun = self.wire, rules(machine.books.version)
        self.holds = Holds(begun, wire, name, clock=lambda: machine.seconds, chance=Random(1), now=self.now)  # type: ignore[arg-type] # it answers to all verbs
        self.tender = Tender(self.holds, machine.release, self.now)
        self.ruling = Ruling(self.holds, rules, machine.release)
        self.alerting = Alerting(self.holds.entries, machine.announce)
        self.tasks: set[asyncio.Task[None]] = set()
        self.at_it: set[str] = set()  # what it does in its background now
        self.jobs: list[Job] = []
        self.outbox: list[tuple[Key, str, Amounts]] = []

    def now(self) -> datetime:
        """What this worker's clock says."""
        return self._machine.now + timedelta(seconds=self.step_s)

    def hard(self) -> dict[Key, Limit]:
        """The limits that this worker has met, by their keys, that nothing may pass."""
        return {
            key: account.said for key, account in self.holds.accounts.items() if not (account.passing or account.gone)
        }


class QuotaMachine(RuleBasedStateMachine):
    """The model: what is billed, in which order ever things happen."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.runner.__enter__()
        self.books = MemoryBooks()
        self.seconds = 1_000.0
        self.workers: list[Worker] = []
        self.crashed: list[Worker] = []
        self.rules = [rules()]  # of every version
        self.excess: Counter[Key] = Counter()  # tokens that jobs use above what was held for them
        self.late: list[Callable[[], Coroutine[Any, Any, Any]]] = []
        self.started = 0
        self.denied = 0
        self.told: dict[str, str] = {}
        self.start()

    @property
    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds - 1_000)

    def run(self, work: Coroutine[Any, Any, Any] | None = None) -> None:
        async def settle() -> None:
            if work is not None:
                await work
            waiting = sum(len(worker.tasks) for worker in self.workers)  # each in its turn gets the lock
            for _ in range(6 + 3 * waiting):
                await asyncio.sleep(0)

        self.runner.run(settle())

    def spawn(self, worker: Worker, work: Coroutine[Any, Any, None]) -> None:
        async def begin() -> None:
            task = asyncio.get_running_loop().create_task(work)
            worker.tasks.add(task)
            task.add_done_callback(worker.tasks.discard)

        self.run(begin())

    async def release(self, _: str, limit: int) -> int:
        return min(limit, 100)

    async def announce(self, alerts: Sequence[tuple[Key, Alert]]) -> Collection[int]:
        """The topic: what comes twice under an id is the same."""
        for key, alert in alerts:
            content = event(key, alert).model_dump_json()
            assert self.told.setdefault(alert_id(key, alert), content) == content
        return ()

    # -- rules ---------------------------------------------------------------------------------------------------------
    @precondition(lambda self: len(self.workers) < 3)
    @rule()
    def start(self) -> None:
        self.started += 1
        self.workers.append(Worker(f"w{self.started}", self))

    @rule(at=NUMBERS, tokens=st.integers(1, 20), saved=st.integers(-6, 10), times=st.integers(1, 4), team=TEAMS)
    def hold(self, at: int, tokens: int, saved: int, times: int, team: str | None) -> None:  # noqa: PLR0917 what is drawn
        worker = chosen(self.workers, at)

        async def ask() -> None:
            held = await worker.holds.hold(need(tokens, team), self.now + timedelta(seconds=worker.step_s))
            if isinstance(held, Denied):
                self.denied += 1
            else:
                worker.jobs.append(job := Job(held, max(tokens - saved, 0), worker))
                self.excess.update(dict.fromkeys(job.keys, max(-saved, 0)))

        for _ in range(times):
            self.spawn(worker, ask())

    @rule(at=NUMBERS, tokens=st.integers(1, 20), times=st.integers(1, 4), team=TEAMS)
    def work(self, at: int, tokens: int, times: int, team: str | None) -> None:
        """Jobs run through without a disturbance: by the other rules alone few would get so far."""
        worker = chosen(self.workers, at)
        self.hold(at, tokens, 0, times, team)
        self.answer_all()
        while worker.jobs:
            self.end(at, succeeds=True)
        self.publish(self.workers.index(worker))

    @rule(at=NUMBERS, fates=st.lists(st.sampled_from(FATES), min_size=1, max_size=12))
    def answer(self, at: int, fates: list[str]) -> None:
        for lost in fates:
            asked = [(worker, index) for worker in self.workers for index in range(len(worker.wire.asked))]
            if asked:
                worker, index = chosen(asked, at)
                worker.unanswered = worker.unanswered or lost != "answered"
                self.answer_one(*worker.wire.asked.pop(index), lost)

    def answer_one(self, verb: Callable[[], Coroutine[Any, Any, Any]], future: asyncio.Future[Any], lost: str) -> None:
        async def reply() -> None:
            value = await verb() if lost in {"answered", "executed"} else None
            if future.cancelled():
                return
            if lost == "answered":
                future.set_result(value)
            else:
                future.set_exception(StoreUnknownError("planted"))

        if lost == "later":
            self.late.append(verb)
        self.run(reply())

    @precondition(lambda self: self.late)
    @rule(at=NUMBERS)
    def execute_late(self, at: int) -> None:
        self.run(self.late.pop(at % len(self.late))())

    @rule(at=NUMBERS, succeeds=st.booleans())
    def end(self, at: int, succeeds: bool) -> None:
        worker = chosen(self.workers, at)
        for job in [worker.jobs.pop(at % len(worker.jobs)) for _ in range(len(worker.jobs) // 2 + 1) if worker.jobs]:
            if succeeds:
                used = Amounts(1, job.tokens, PRICE * job.tokens)
                job.hold.settle(used.tokens, used.usd)
                worker.outbox.extend((key, worker.name, used) for key in job.keys if key.on_ledger)
            job.hold.release()

    @rule(at=NUMBERS)
    def publish(self, at: int) -> None:
        worker = chosen(self.workers + self.crashed, at)
        self.books.rows += worker.outbox
        worker.outbox.clear()
        self.judge(worker)

    @rule(at=NUMBERS)
    def tend(self, at: int) -> None:
        worker = chosen(self.workers, at)
        self.begin(worker, "tend", worker.tender.tend)

    @rule(at=NUMBERS)
    def tell(self, at: int) -> None:
        worker = chosen(self.workers, at)
        self.begin(worker, "tell", worker.alerting.tell)

    @rule(at=NUMBERS)
    def learn(self, at: int) -> None:
        worker = chosen(self.workers, at)
        self.begin(worker, "learn", worker.ruling.look)

    def begin(self, worker: Worker, what: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def do() -> None:
            try:
                await work()
            except StoreUnknownError:
                pass
            finally:
                worker.at_it.discard(what)

        if what not in worker.at_it:
            worker.at_it.add(what)
            self.spawn(worker, do())

    @rule(limits=st.sampled_from([LIMITS, *OTHERS]))
    def change_limits(self, limits: tuple[Limit, ...]) -> None:
        version = self.books.version.version + 1 if self.books.version is not None else 1
        self.books.version = LimitVersion(version=version, limits=limits, at=self.now, by="ann")
        self.rules.append(rules(self.books.version))

    @rule(at=NUMBERS, late=st.booleans(), declared=st.booleans())
    def crash(self, at: int, late: bool, declared: bool) -> None:
        worker = self.workers.pop(at % len(self.workers))
        self.crashed.append(worker)
        if late:
            self.late.extend(verb for verb, _ in worker.wire.asked)
        for task in worker.tasks:
            task.cancel()
        self.run()
        self.books.busy.add(worker.name)
        if declared:
            self.declare_and_sweep(worker)
        if not self.workers:
            self.start()

    @precondition(lambda self: self.crashed)
    @rule(at=NUMBERS)
    def declare_one(self, at: int) -> None:
        self.declare_and_sweep(chosen(self.crashed, at))

    def declare_and_sweep(self, worker: Worker) -> None:
        self.books.dead.add(worker.name)
        worker.jobs.clear()
        self.judge(worker)

    def judge(self, worker: Worker) -> None:
        """An incarnation with jobs claimed or an outbox left is busy."""
        if worker.jobs or worker.outbox:
            self.books.busy.add(worker.name)
        else:
            self.books.busy.discard(worker.name)

    @rule(at=NUMBERS, seconds=st.sampled_from([-90, -45, -1, 0, 2, 70]))
    def step_a_clock(self, at: int, seconds: float) -> None:
        chosen(self.workers, at).step_s = seconds

    @rule(seconds=st.sampled_from([0.3, 1, 3, 6, 31, 61, 700]))
    def wait(self, seconds: float) -> None:
        self.seconds += seconds

    # -- what must hold ------------------------------------------------------------------------------------------------
    def billed(self, key: Key) -> Amounts:
        rows = [*self.books.rows, *(row for worker in self.workers + self.crashed for row in worker.outbox)]
        return added(amounts for of, _, amounts in rows if of == key)

    @invariant()
    def billed_spend_and_what_is_under_way_are_within_every_limit(self) -> None:
        everybody = self.workers + self.crashed
        for key in {key for worker in everybody for key in worker.holds.accounts}:
            jobs = [job for worker in everybody for job in worker.jobs if key in job.keys]
            tokens = sum(job.tokens for job in jobs)
            used = added((self.billed(key), Amounts(len(jobs), tokens, PRICE * tokens)))
            above = Amounts(0, self.excess[key], PRICE * self.excess[key])
            for unit, most in self.most(key).items():
                assert getattr(used, unit) <= most + getattr(above, unit), (key, unit)

    def most(self, key: Key) -> dict[str, int | Decimal]:
        """The highest of each unit that any version says, where each is hard and says one: under another version more may have been used."""
        said = [
            applied.limit if applied else None for applied in (known.of(key.subject, key.per) for known in self.rules)
        ]
        limits = [dict(units(limit)) if limit is not None and limit.mode == "hard" else {} for limit in said]
        return {unit: max(each[unit] for each in limits) for unit in limits[0] if all(unit in each for each in limits)}

    def teardown(self) -> None:
        try:
            self.bring_to_rest()
            for key, book in self.books.books.items():
                if self.all_had_entries(key, book) and looked_at_until(key) > self.now + timedelta(
                    minutes=2
                ):  # nobody can use the others' rest
                    assert book.taken() == self.billed(key), key
                    self.every_threshold_is_told(key, book)
            self.nobody_is_refused_while_there_is_room()
        finally:
            self.runner.__exit__(None, None, None)

    def all_had_entries(self, key: Key, book: Book) -> bool:
        """Who dies and was not answered may have let pass without one."""
        may_lack = [worker.name for worker in self.crashed if worker.unanswered]
        return key.subject.startswith(ALWAYS_HARD) or {*book.grants, *book.shut}.issuperset(may_lack)

    def every_threshold_is_told(self, key: Key, book: Book) -> None:
        assert not book.untold, key
        applied = rules(self.books.version).of(key.subject, key.per)
        for threshold in reached(key, applied.limit, self.billed(key), self.now) if applied is not None else ():
            assert f"{key.id}/{threshold}" in self.told, (key, threshold)

    def bring_to_rest(self) -> None:
        while self.late:
            self.execute_late(0)
        for _ in range(60):
            self.answer_all()
            for worker in self.workers:
                for job in worker.jobs:
                    job.hold.release()
                worker.jobs.clear()
                worker.step_s = 0.0
                self.begin(worker, "learn", worker.ruling.look)
                self.begin(worker, "tend", worker.tender.tend)
                self.begin(worker, "tell", worker.alerting.tell)
            for at in range(len(self.workers + self.crashed)):
                self.publish(at)
            for worker in self.crashed:
                self.declare_and_sweep(worker)
            self.seconds += 7
        self.answer_all()

    def answer_all(self) -> None:
        for worker in self.workers:
            while worker.wire.asked:
                self.answer_one(*worker.wire.asked.pop(0), "answered")

    def nobody_is_refused_while_there_is_room(self) -> None:
        worker = self.workers[0]
        worker.step_s = 0.0
        worker.holds.try_hold(need(10**6, None), self.now)  # makes the accounts of now
        room, requests = TOKENS, REQUESTS
        for key, limit in worker.hard().items():
            if key.start <= self.now < key.end:
                billed = self.billed(key)
                room = room if limit.tokens is None else min(room, limit.tokens - billed.tokens)
                requests = requests if limit.requests is None else min(requests, limit.requests - billed.requests)
        if requests > 0 and room > 0:
            self.spawn(worker, self.must_hold(worker, room))
            for _ in range(20):
                self.answer_all()
            assert worker.jobs, "refused while there is room"

    async def must_hold(self, worker: Worker, tokens: int) -> None:
        held = await worker.holds.hold(need(tokens, None), self.now)
        assert not isinstance(held, Denied)
        worker.jobs.append(Job(held, tokens, worker))


TestQuotaMachine = QuotaMachine.TestCase
TestQuotaMachine.settings = settings(max_examples=20, stateful_step_count=50, suppress_health_check=list(HealthCheck))
