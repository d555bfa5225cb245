"""The jobs that may start now in this process: the fair queue, what it costs to hold them, and who waits for one."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.codec import Parsed, Refusal, parse
from broker.outputs import ASSUMED_OUTPUT, Outputs, estimated_output
from broker.settings import Settings
from schemas.codes import MEANING, Code
from schemas.job import MAX_RECORD_BYTES, Job
from workers.engine.fair import FairQueue
from workers.stores.protocol import Claim

OUTPUT_WEIGHT = 4
"""A cost unit is an input token; an output token counts as four (most price tables ask three to five times as much)."""
BYTES_PER_TOKEN = 4


TYPICAL = 50
"""The percentile of the lengths of answers that is taken for a job's: of a share, too much is as wrong as too little."""
ASSUMED_BYTES = 500_000
"""How large a payload is taken to be while none was seen: half of the largest."""
SEEN = 1 / 16
"""How much the last payload says about the next ones."""


@dataclass(slots=True)
class Ready:
    """A job that may start: the claim, what its payload says, its estimated cost in cost units, its deadline, and its payload's size."""

    claim: Claim
    parsed: Parsed
    cost: float
    deadline: float  # in Unix time
    bytes: int = 0
    spent: float = 0.0  # cost units of attempts without an answer, as far as they have cost or may have cost
    revoke: Callable[[], None] = lambda: None  # gives back the hold of a job whose finish is fenced


class ReadyQueue:
    """Claimed jobs that wait for a slot here, and the room that they and those that run take up."""

    def __init__(self, settings: Settings) -> None:
        weights = {priority.name: priority.weight for priority in settings.priorities}
        self._fair: FairQueue[Ready] = FairQueue(weights, settings.tenant_weight)
        self._deadline_s = {priority.name: priority.deadline_s for priority in settings.priorities}
        self._limit = settings.worker.ready
        self._bytes_limit = settings.worker.payload_mb * 1_000_000
        share = int(self._bytes_limit * settings.worker.reserved_share)
        self._kept_bytes = min(share, self._bytes_limit - MAX_RECORD_BYTES)  # the largest of any other has room, too
        self._bytes = 0
        self._usual_bytes = float(min(ASSUMED_BYTES, self._bytes_limit))
        self._kept = timedelta(seconds=settings.expire_s)
        self._tag = settings.estimates.tag
        self.outputs = Outputs()
        self.priorities = [priority.name for priority in settings.priorities]
        self.first = self.priorities[0]
        self._by_id: dict[str, Ready] = {}
        self.changed = asyncio.Event()  # a job came, or a slot is free: the dispatcher looks
        self.any_cancelled = False  # maybe: jobs among these were cancelled, and are to end before their turn
        self._behind: dict[str, set[str]] = {name: set() for name in self.priorities}

    def __len__(self) -> int:
        return len(self._fair)

    def size(self, priority: str) -> int:
        """How many of a priority are here."""
        return self._fair.size(self._known(priority))

    def room(self, priority: str) -> int:
        """How many more of a priority fit, as far as the sizes of the last ones tell."""
        return max(min(self._limit - len(self._fair), int(self.room_bytes(priority) / self._usual_bytes)), 0)

    def room_bytes(self, priority: str) -> int:
        """How many bytes of payloads of a priority may still come in; as of the slots, a share is kept for the first one."""
        kept = 0 if priority == self.first else self._kept_bytes
        return self._bytes_limit - kept - self._bytes

    def room_for(self, priority: str, tenant: str) -> int:
        """How many more of a tenant's jobs may come in, so that there is room for those of others, too."""
        return self._fair.room(self._known(priority), tenant, self._limit)

    def hungry(self, priority: str) -> list[str]:
        """Tenants with due jobs in the store and few here, by their right to be served next."""
        behind = [tenant for tenant in self._behind[priority] if self._few(priority, tenant)]
        return self._fair.order(priority, behind) if len(behind) > 1 else behind

    def _few(self, priority: str, tenant: str) -> bool:
        """Whether a tenant has no more here than may still come: each take costs as much as sixteen jobs do."""
        return self._fair.held(priority, tenant) <= self.room_for(priority, tenant) > 0

    def is_behind(self, priority: str, tenant: str) -> bool:
        """Whether a tenant has due jobs in the store, as far as is known here: what comes now is behind them."""
        return tenant in self._behind[self._known(priority)]

    def any_behind(self) -> bool:
        """Whether anybody is."""
        return any(self._behind.values())

    def fell_behind(self, priority: str, tenant: str) -> None:
        """Note that a tenant has due jobs in the store."""
        self._behind[self._known(priority)].add(tenant)

    def caught_up(self, priority: str, tenant: str) -> None:
        """Note that all due jobs of a tenant were taken."""
        self._behind[priority].discard(tenant)

    def behind(self, priority: str, tenants: list[str]) -> None:
        """Note who has due jobs in the store, and that others have none."""
        self._behind[priority] = set(tenants)

    def accept(self, claim: Claim, parsed: Parsed | None = None) -> None:
        """Add a job that is claimed by us and registered."""
        said = parsed if parsed is not None else parse(claim.payload, claim.arrived_at)
        deadline = self.deadline(claim.priority, said.job, claim.arrived_at)
        if said.job is not None and not self.keeps(said.job, claim.arrived_at):
            message = f"not_before: jobs are kept for {self._kept}; {MEANING[Code.SCHEDULED_TOO_LATE]}"
            said = said._replace(job=None, refusal=Refusal(Code.SCHEDULED_TOO_LATE, message))
        size = len(claim.payload)
        ready = Ready(claim, said, self._cost(claim, said), deadline.timestamp(), size)
        self._bytes += size
        self._usual_bytes = max(self._usual_bytes + SEEN * (size - self._usual_bytes), 1.0)
        priority = self._known(claim.priority)
        self._by_id[claim.id] = ready
        self._fair.push(ready, priority, claim.tenant, cost=ready.cost, deadline=ready.deadline)
        if claim.cancel is not None:
            self.any_cancelled = True
        self.changed.set()

    def pop(self, *, only_first: bool = False) -> Ready | None:
        """The next job, None if there is none."""
        ready = self._fair.pop(self.first if only_first else None)
        if ready is not None:
            self._by_id.pop(ready.claim.id, None)
        return ready

    def overdue(self, now: float) -> list[Ready]:
        """Take out what has its deadline behind it, `now` in Unix time: it ends without a call, and whoever awaits it is told at once."""
        found = self._fair.overdue(now)
        for ready in found:
            self._by_id.pop(ready.claim.id, None)
        return found

    def mark(self, job: str, reason: str) -> None:
        """Note that a job which waits here was cancelled: it will end without a call."""
        ready = self._by_id.get(job)
        if ready is not None:
            ready.claim.cancel = reason
            self.any_cancelled = True
            self.changed.set()

    def cancelled(self) -> list[Ready]:
        """Take out what was cancelled: it ends without a call, as what is overdue does."""
        if not self.any_cancelled:
            return []
        self.any_cancelled = False
        return self.withdraw(lambda ready: ready.claim.cancel is not None)

    def withdraw(self, unwanted: Callable[[Ready], bool]) -> list[Ready]:
        """Take jobs out that shall not start here."""
        found = self._fair.withdraw(unwanted)
        for ready in found:
            self._by_id.pop(ready.claim.id, None)
            self.leave(ready)
            ready.cost = 0.0  # it was not charged, so nothing is given back where it is settled
        return found

    def leave(self, ready: Ready) -> None:
        """Give back the room of a job that is done with here, or was taken out."""
        self._bytes -= ready.bytes
        ready.bytes = 0

    def settle(self, ready: Ready, used: float) -> None:
        """Correct the estimate of a job that was served, in cost units."""
        self._fair.correct(self._known(ready.claim.priority), ready.claim.tenant, used - ready.cost)

    def _cost(self, claim: Claim, parsed: Parsed) -> float:
        """What a job will probably cost, in cost units: its bytes, and an output as long as those of late."""
        input_units = len(claim.payload) / BYTES_PER_TOKEN
        job = parsed.job
        if job is None:
            return input_units + OUTPUT_WEIGHT * ASSUMED_OUTPUT
        tag = job.tags.get(self._tag, "") if self._tag is not None else ""
        learned = self.outputs.estimate(claim.tenant, job.model, tag, TYPICAL)
        return input_units + OUTPUT_WEIGHT * estimated_output(parsed.operation, job.body, learned)

    def oldest_s(self, priority: str, now: datetime) -> float:
        """How long the job of a priority that is next has waited since it arrived, in seconds."""
        ready = self._fair.peek(self._known(priority))
        return (now - ready.claim.arrived_at).total_seconds() if ready is not None else 0.0

    def drain(self) -> list[Ready]:
        """Take everything out."""
        self._by_id.clear()
        return self._fair.drain()

    def _known(self, priority: str) -> str:
        """A priority that was taken out of the settings counts as the last one."""
        return priority if priority in self._deadline_s else self.priorities[-1]

    def deadline(self, priority: str, job: Job | None, arrived_at: datetime) -> datetime:
        """After which no call of a job starts: what it says, else the time of its priority, from when it may begin."""
        if job is not None and job.deadline is not None:
            return job.deadline
        begins = job.not_before if job is not None and self.keeps(job, arrived_at) else None
        return max(begins or arrived_at, arrived_at) + timedelta(seconds=self._deadline_s[self._known(priority)])

    def keeps(self, job: Job, arrived_at: datetime) -> bool:
        """Whether a job is scheduled within the time for which jobs are kept."""
        return job.not_before is None or job.not_before - arrived_at <= self._kept
