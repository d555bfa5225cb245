"""Gives ready jobs to the pipeline, a task each, as many as there are slots, and their outcomes to the finisher.

Some slots are kept for the first priority, because calls cannot be pre-empted. A job's task never raises: one that would gets `internal`.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime

from broker.events import Events
from broker.settings import Worker
from broker.telemetry import Telemetry
from schemas.codes import Code
from schemas.result import Status
from workers.call import FencedJobError
from workers.engine.finisher import Finisher
from workers.engine.halts import Rest, rest, stop
from workers.engine.hands import Hands
from workers.engine.ready import Ready
from workers.outcome import SHUTDOWN, Ended, Running, Shutdown
from workers.settle import ended, units_of
from workers.stores.control import Halt, HaltKind
from workers.stores.protocol import Finish, Waiting

LOOK_S = 1.0
"""How often a dispatcher looks that was told nothing (while the lease is in doubt, say)."""

UNWRITTEN = 512
"""So many outcomes may wait to be written before no more jobs start, or as many as there are slots: they wait for each other for a while, and few
slots must not wait with them."""
OVERDUE_S = 0.5
"""How often jobs are looked for that end before their turn: cancelled ones, and those whose deadline has passed."""

Process = Callable[[Ready, dict[str, Running]], Awaitable[Finish | Waiting]]


class Dispatcher:
    """Runs jobs.

    Args:
        process: The pipeline.
        worker: How many jobs run at once, and the share of these slots that only the first priority may use.
    """

    def __init__(
        self,
        process: Process,
        worker: Worker,
        *,
        hands: Hands,
        finisher: Finisher,
        telemetry: Telemetry,
    ) -> None:
        self._process = process
        self._slots = worker.slots
        self._unwritten = max(worker.slots, UNWRITTEN)
        self._shared_slots = worker.slots - int(worker.slots * worker.reserved_share)
        self._ready, self._registry, self._leases = hands.ready, hands.registry, hands.leases
        self._halts = hands.halts
        self._finisher = finisher
        self._telemetry = telemetry
        self._started: Counter[tuple[str, str]] = Counter()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._under_way: dict[str, Running] = {}
        self._stopping = False
        self._events = Events("worker.dispatcher")
        self.ticked_at = time.monotonic()
        self._overdue_at = -OVERDUE_S  # by the loop's clock

    def __len__(self) -> int:
        return len(self._tasks)

    def has_work(self) -> bool:
        """Whether jobs run here or wait for a slot."""
        return bool(self._tasks) or len(self._ready) > 0

    def started(self) -> Counter[tuple[str, str]]:
        """How many jobs of each priority and tenant have started since this was asked last."""
        started, self._started = self._started, Counter()
        return started

    async def run(self) -> None:
        """Start what may start until `stop`, then wait for what runs."""
        async with asyncio.TaskGroup() as group:
            while not self._stopping:
                self.ticked_at = time.monotonic()
                self._ready.changed.clear()
                self._start(group)
                await self._something_changed()

    def stop(self) -> None:
        """Start nothing more."""
        self._stopping = True
        self._ready.changed.set()

    def stop_job(self, job: str, reason: str) -> None:
        """Tell one job to stop: it ends as cancelled."""
        self._ready.mark(job, reason)
        self._stop_running(job, reason)

    def _stop_running(self, job: str, reason: str | Shutdown) -> None:
        running, task = self._under_way.get(job), self._tasks.get(job)
        if running is not None and task is not None and running.stopped is None:
            running.stopped = reason
            if running.stoppable:
                task.cancel()

    def stop_jobs(self) -> None:
        """Tell every running job that this process ends: it waits again, or ends where it may be called once only."""
        for job in list(self._under_way):
            self._stop_running(job, SHUTDOWN)

    def heed_halts(self) -> None:
        """Lay down what is ready and shall not start, and stop running jobs of cancelled batches; other calls go on."""
        # Asked once: where a deadline passes in between, a second answer would leave the job with nobody.
        halts: dict[str, Halt] = {}

        def halted(ready: Ready) -> bool:
            if (halt := self._halt(ready)) is not None:
                halts[ready.claim.id] = halt
            return halt is not None

        for ready in self._ready.withdraw(halted):
            self._put(ready, _halted(ready, halts[ready.claim.id]))
        for job, running in list(self._under_way.items()):
            halt = self._halts.of(running.ready.claim)
            if halt is not None and halt.kind is HaltKind.CANCELLED:
                self.stop_job(job, halt.reason)

    def _halt(self, ready: Ready) -> Halt | None:
        """What keeps a job from starting; one that was cancelled, or has its deadline behind it, is to end whatever is paused."""
        if ready.claim.cancel is not None or ready.deadline <= time.time():
            return None
        return self._halts.of(ready.claim)

    def _start(self, group: asyncio.TaskGroup) -> None:
        self._end_unstarted(group)
        while len(self._tasks) < self._slots and len(self._finisher) < self._unwritten and self._leases.healthy():
            ready = self._ready.pop(only_first=len(self._tasks) >= self._shared_slots)
            if ready is None:
                return
            halt = self._halt(ready)
            if halt is not None:
                self._leave(ready, _halted(ready, halt))
                continue
            self._started[ready.claim.priority, ready.claim.tenant] += 1
            self._tasks[ready.claim.id] = group.create_task(self._run(ready))

    def _end_unstarted(self, group: asyncio.TaskGroup) -> None:
        """Have jobs told so that were cancelled, or whose deadline passed, before their turn: they take no slot, because they end without a call."""
        clock_s = asyncio.get_running_loop().time()
        if clock_s - self._overdue_at < OVERDUE_S:
            return
        self._overdue_at = clock_s
        for ready in (*self._ready.overdue(time.time()), *self._ready.cancelled()):
            self._tasks[ready.claim.id] = group.create_task(self._run(ready))

    async def _something_changed(self) -> None:
        try:
            async with asyncio.timeout(OVERDUE_S if self._ready.any_cancelled else LOOK_S):
                await self._ready.changed.wait()
        except TimeoutError:
            return

    async def _run(self, ready: Ready) -> None:
        claim = ready.claim
        span = self._telemetry.span(claim.trace, claim.id, claim.priority)
        claim.trace = span.trace
        outcome: Finish | Waiting | None
        try:
            outcome = await self._process(ready, self._under_way)
        except FencedJobError:
            outcome = None
        except Exception as error:  # noqa: BLE001 the edge: whatever a stage did, its job ends and its siblings go on
            self._events.error("job.internal_error", error, job=claim.id)
            outcome = ended(ready, None, Ended(Status.FAILED, Code.INTERNAL))
        finally:
            self._tasks.pop(claim.id, None)
            self._ready.changed.set()
        self._leave(ready, outcome)
        status, code = _name(outcome)
        span.end(status, code)
        self._telemetry.outcome(claim.priority, status)

    def _leave(self, ready: Ready, outcome: Finish | Waiting | None) -> None:
        self._ready.leave(ready)
        if outcome is None:
            self._registry.discard([ready.claim.id])
            return
        self._put(ready, outcome)
        used = units_of(outcome.result) if isinstance(outcome, Finish) else 0.0
        self._ready.settle(ready, ready.spent + used)

    def _put(self, ready: Ready, outcome: Finish | Waiting) -> None:
        claim = ready.claim
        if isinstance(outcome, Finish):
            self._finisher.finish(claim, outcome, ready.revoke)
        else:
            if outcome.priority is not None:  # there it has another time
                deadline = self._ready.deadline(outcome.priority, ready.parsed.job, claim.arrived_at)
                outcome = replace(outcome, deadline=deadline)
            cancelled = ended(ready, None, Ended(Status.CANCELLED, Code.CANCELLED))
            self._finisher.wait(outcome, lambda: self._finisher.finish(claim, cancelled))
        claim.payload = b""  # its room is given back, and its outcome may wait for the database

    def hand_back(self) -> int:
        """Put what is ready and not started back to wait; return how many."""
        waiting = self._ready.drain()
        for ready in waiting:
            self._leave(ready, _back(ready, Rest(datetime.now(UTC), "handed_back", None)))
        return len(waiting)


def _back(ready: Ready, rest: Rest) -> Waiting:
    """How a job waits that has not begun here; what a worker before us may have called stays called."""
    claim, deadline = ready.claim, datetime.fromtimestamp(ready.deadline, UTC)
    return Waiting(
        *(claim.id, claim.fence, rest.due_at, rest.why, claim.attempts, rest.wait_key),
        nothing_sent=not claim.called,
        deadline=deadline,
    )


def _halted(ready: Ready, halt: Halt) -> Finish | Waiting:
    """How a job leaves that a halt keeps from starting."""
    if halt.kind is HaltKind.PAUSED:
        return _back(ready, rest(halt, datetime.now(UTC)))
    return ended(ready, None, stop(halt))


def _name(outcome: Finish | Waiting | None) -> tuple[str, str | None]:
    match outcome:
        case Finish():
            return outcome.state, outcome.result.get("code")
        case Waiting():
            return "waiting", None
        case None:
            return "fenced", None
