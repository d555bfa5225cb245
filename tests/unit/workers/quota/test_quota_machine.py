"""Several workers, crashes, lost and late answers, in any order: nobody spends over the limit, and in the end the books say what the ledger says."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.settings import Quota as Limit
from workers.quota.book import Amounts, added
from workers.quota.holds import Holds
from workers.quota.memory import MemoryBooks
from workers.quota.protocol import Denied, Hold, Key
from workers.quota.tender import Tender
from workers.stores.protocol import StoreUnknownError

REQUESTS, TOKENS = 10, 80
PRICE = Decimal("0.0000015")
NUMBERS = st.integers(0, 60)
FATES = ["answered"] * 6 + ["executed", "never", "later"]
START = datetime(2026, 12, 1, 23, 50, tzinfo=UTC)


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

    def __init__(self, hold: Hold, tokens: int) -> None:
        self.hold, self.tokens = hold, tokens


class Worker:
    """One life of a worker process."""

    def __init__(self, name: str, machine: "QuotaMachine") -> None:
        self.name = name
        self.wire = Wire(machine.books)
        limit = Limit(tenant="*", requests=REQUESTS, tokens=TOKENS, usd=str(PRICE * TOKENS))
        self.holds = Holds([limit], self.wire, name, clock=lambda: machine.seconds, chance=Random(1))  # type: ignore[arg-type] # it answers to all verbs
        self.tender = Tender(self.holds, machine.release, lambda: machine.now)
        self.tasks: set[asyncio.Task[None]] = set()
        self.tending = False
        self.jobs: list[Job] = []
        self.outbox: list[tuple[Key, str, Amounts]] = []


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
        self.late: list[Callable[[], Coroutine[Any, Any, Any]]] = []
        self.started = 0
        self.denied = 0
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
        return limit

    # -- rules ---------------------------------------------------------------------------------------------------------
    @precondition(lambda self: len(self.workers) < 3)
    @rule()
    def start(self) -> None:
        self.started += 1
        self.workers.append(Worker(f"w{self.started}", self))

    @rule(at=NUMBERS, tokens=st.integers(1, 20), saved=st.integers(0, 10), times=st.integers(1, 4))
    def hold(self, at: int, tokens: int, saved: int, times: int) -> None:
        worker = chosen(self.workers, at)

        async def ask() -> None:
            held = await worker.holds.hold("acme", tokens, PRICE * tokens, self.now)
            if isinstance(held, Denied):
                self.denied += 1
            else:
                worker.jobs.append(Job(held, max(tokens - saved, 0)))

        for _ in range(times):
            self.spawn(worker, ask())

    @rule(at=NUMBERS, fates=st.lists(st.sampled_from(FATES), min_size=1, max_size=12))
    def answer(self, at: int, fates: list[str]) -> None:
        for lost in fates:
            asked = [(worker, index) for worker in self.workers for index in range(len(worker.wire.asked))]
            if asked:
                worker, index = chosen(asked, at)
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
                worker.outbox.append((Key("acme", job.hold.day), worker.name, used))
            job.hold.release()

    @rule(at=NUMBERS)
    def publish(self, at: int) -> None:
        worker = chosen(self.workers + self.crashed, at)
        self.books.rows += worker.outbox
        worker.outbox.clear()
        self.judge(worker)

    @rule(at=NUMBERS)
    def tend(self, at: int) -> None:
        self.begin_tending(chosen(self.workers, at))

    def begin_tending(self, worker: Worker) -> None:
        async def tend() -> None:
            try:
                await worker.tender.tend()
            except StoreUnknownError:
                pass
            finally:
                worker.tending = False

        if not worker.tending:
            worker.tending = True
            self.spawn(worker, tend())

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

    @rule(seconds=st.sampled_from([0.3, 1, 3, 6, 31, 61, 700]))
    def wait(self, seconds: float) -> None:
        self.seconds += seconds

    # -- what must hold ------------------------------------------------------------------------------------------------
    def billed(self, day: str) -> Amounts:
        rows = [*self.books.rows, *(row for worker in self.workers + self.crashed for row in worker.outbox)]
        return added(amounts for key, _, amounts in rows if key.day == day)

    @invariant()
    def billed_spend_is_within_the_limit(self) -> None:
        for day in ("2026-12-01", "2026-12-02"):
            billed = self.billed(day)
            under_way = [job for worker in self.workers for job in worker.jobs if job.hold.day == day]
            assert billed.requests + len(under_way) <= REQUESTS
            assert billed.tokens + sum(job.tokens for job in under_way) <= TOKENS
            assert billed.usd <= PRICE * TOKENS

    def teardown(self) -> None:
        try:
            self.bring_to_rest()
            for key, book in self.books.books.items():
                assert book.taken() == self.billed(key.day), key
            self.nobody_is_refused_while_there_is_room()
        finally:
            self.runner.__exit__(None, None, None)

    def bring_to_rest(self) -> None:
        while self.late:
            self.execute_late(0)
        for _ in range(60):
            self.answer_all()
            for worker in self.workers:
                for job in worker.jobs:
                    job.hold.release()
                worker.jobs.clear()
                self.begin_tending(worker)
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
        day = self.now.date().isoformat()
        billed, worker = self.billed(day), self.workers[0]
        room = TOKENS - billed.tokens
        if billed.requests < REQUESTS and room:
            self.spawn(worker, self.must_hold(worker, room))
            for _ in range(20):
                self.answer_all()
            assert worker.jobs, "refused while there is room"

    async def must_hold(self, worker: Worker, tokens: int) -> None:
        held = await worker.holds.hold("acme", tokens, PRICE * tokens, self.now)
        assert not isinstance(held, Denied)
        worker.jobs.append(Job(held, tokens))


TestQuotaMachine = QuotaMachine.TestCase
TestQuotaMachine.settings = settings(max_examples=30, stateful_step_count=50, suppress_health_check=list(HealthCheck))
