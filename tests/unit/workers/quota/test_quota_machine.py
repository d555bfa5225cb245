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

REQUESTS, TOKENS = 12, 100
PRICE = Decimal("0.0000015")
START = datetime(2026, 12, 1, 23, 50, tzinfo=UTC)


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
            for _ in range(6):
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

    @rule(pick=st.randoms(), tokens=st.integers(1, 40), saved=st.integers(0, 10))
    def hold(self, pick: Random, tokens: int, saved: int) -> None:
        worker = pick.choice(self.workers)

        async def ask() -> None:
            held = await worker.holds.hold("acme", tokens, PRICE * tokens, self.now)
            if isinstance(held, Denied):
                self.denied += 1
            else:
                worker.jobs.append(Job(held, max(tokens - saved, 0)))

        self.spawn(worker, ask())

    @rule(pick=st.randoms(), lost=st.sampled_from(["no", "no", "no", "executed", "never", "later"]))
    def answer(self, pick: Random, lost: str) -> None:
        asked = [(worker, index) for worker in self.workers for index in range(len(worker.wire.asked))]
        if asked:
            worker, index = pick.choice(asked)
            self.answer_one(*worker.wire.asked.pop(index), lost)

    def answer_one(self, verb: Callable[[], Coroutine[Any, Any, Any]], future: asyncio.Future[Any], lost: str) -> None:
        async def reply() -> None:
            value = await verb() if lost in {"no", "executed"} else None
            if future.cancelled():
                return
            if lost == "no":
                future.set_result(value)
            else:
                future.set_exception(StoreUnknownError("planted"))

        if lost == "later":
            self.late.append(verb)
        self.run(reply())

    @precondition(lambda self: self.late)
    @rule(pick=st.randoms())
    def execute_late(self, pick: Random) -> None:
        self.run(self.late.pop(pick.randrange(len(self.late)))())

    @rule(pick=st.randoms(), succeeds=st.booleans())
    def end(self, pick: Random, succeeds: bool) -> None:  # noqa: FBT001 Hypothesis passes it
        worker = pick.choice(self.workers)
        if worker.jobs:
            job = worker.jobs.pop(pick.randrange(len(worker.jobs)))
            if succeeds:
                used = Amounts(1, job.tokens, PRICE * job.tokens)
                job.hold.settle(used.tokens, used.usd)
                worker.outbox.append((Key("acme", job.hold.day), worker.name, used))
            job.hold.release()

    @rule(pick=st.randoms())
    def publish(self, pick: Random) -> None:
        worker = pick.choice(self.workers + self.crashed)
        if worker.outbox:
            self.books.rows.append(worker.outbox.pop())
        self.judge(worker)

    @rule(pick=st.randoms())
    def tend(self, pick: Random) -> None:
        self.begin_tending(pick.choice(self.workers))

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

    @precondition(lambda self: self.workers)
    @rule(pick=st.randoms(), late=st.booleans())
    def crash(self, pick: Random, late: bool) -> None:  # noqa: FBT001 Hypothesis passes it
        worker = self.workers.pop(pick.randrange(len(self.workers)))
        self.crashed.append(worker)
        if late:
            self.late.extend(verb for verb, _ in worker.wire.asked)
        for task in worker.tasks:
            task.cancel()
        self.run()
        self.books.busy.add(worker.name)
        if not self.workers:
            self.start()

    @precondition(lambda self: self.crashed)
    @rule(pick=st.randoms())
    def declare_and_sweep(self, pick: Random) -> None:
        worker = pick.choice(self.crashed)
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
            self.execute_late(Random(0))
        for _ in range(60):
            for worker in self.workers:
                while worker.wire.asked:
                    self.answer_one(*worker.wire.asked.pop(0), "no")
            for worker in self.workers:
                for job in worker.jobs:
                    job.hold.release()
                worker.jobs.clear()
                self.begin_tending(worker)
            for worker in self.workers + self.crashed:
                self.books.rows += worker.outbox
                worker.outbox.clear()
            for worker in self.crashed:
                self.declare_and_sweep(Random(0))
                self.books.dead.add(worker.name)
                worker.jobs.clear()
                self.judge(worker)
            self.seconds += 7
        for worker in self.workers:
            while worker.wire.asked:
                self.answer_one(*worker.wire.asked.pop(0), "no")

    def nobody_is_refused_while_there_is_room(self) -> None:
        day = self.now.date().isoformat()
        billed, worker = self.billed(day), self.workers[0]
        room = TOKENS - billed.tokens
        if billed.requests < REQUESTS and room:
            self.spawn(worker, self.must_hold(worker, room))
            for _ in range(20):
                while worker.wire.asked:
                    self.answer_one(*worker.wire.asked.pop(0), "no")
            assert worker.jobs, "refused while there is room"

    async def must_hold(self, worker: Worker, tokens: int) -> None:
        held = await worker.holds.hold("acme", tokens, PRICE * tokens, self.now)
        assert not isinstance(held, Denied)
        worker.jobs.append(Job(held, tokens))


TestQuotaMachine = QuotaMachine.TestCase
TestQuotaMachine.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
