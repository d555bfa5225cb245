"""The store in memory: the verbs of control, replies and counting."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from schemas.codes import Code
from workers.stores import memory_documents as documents
from workers.stores.control import NEVER, PARKED, Halt, HaltKind, Seal, Sealed
from workers.stores.memory_documents import TERMINAL, Job
from workers.stores.memory_incarnation import MemoryIncarnation
from workers.stores.protocol import Address, Backlog, State

_OF_A_GENERATION = (
    *("result", "row", "cancel", "called", "expire_at", "finished_at", "wait_key", "token", "rerun", "last_failure"),
    "deadline",
)


class MemoryControl(MemoryIncarnation):
    """What is asked of jobs and batches after they were sent."""

    # -- jobs -----------------------------------------------------------------------------------------------------------------
    def _stub(self, id_: str) -> Job:
        stub: Job = {
            "state": State.ANNOUNCED,
            "owner": None,
            "fence": 0,
            "generation": 1,
            "replies": [],
            "replies_n": 0,
        }
        return self.database.jobs.setdefault(id_, stub)

    async def add_reply(self, id: str, address: Address, token: str) -> bool:  # noqa: A002 the document's own word
        """Add an address to a job or a stub; True: its result has to be published."""
        end = self._begin("add_reply")
        job = self._stub(id)
        documents.add_address(job, address)
        terminal = job["state"] in TERMINAL
        if terminal:
            job["outbox"] = token
            job.pop("expire_at", None)
        end()
        return terminal

    async def cancel(self, job: str, seq: int, reason: str) -> Code | None:
        """Mark a job or a stub as cancelled, unless a later control record was there or it has ended."""
        end = self._begin("cancel")
        found, refused = self._stub(job), None
        if found.get("control_seq", -1) < seq:
            found["control_seq"] = seq
            found.pop("rerun", None)
            if found["state"] in TERMINAL:
                refused = Code.ALREADY_ENDED
            else:
                found.update(cancel=reason, due_at=self.database.clock())
        end()
        return refused

    async def cancelled(self) -> list[tuple[str, str]]:
        """(id, reason) of jobs claimed by us that carry a cancel."""
        self._begin("cancelled")()
        return [(id_, job["cancel"]) for id_, job in self._ours() if "cancel" in job]

    async def cancelled_waiting(self, limit: int) -> list[str]:
        """Ids of waiting jobs that carry a cancel."""
        self._begin("cancelled_waiting")()
        return [id_ for id_, job in self._waiting() if "cancel" in job][:limit]

    async def overdue(self, now: datetime, limit: int) -> list[str]:
        """Ids of waiting jobs whose deadline has passed, made due now if they were not."""
        end = self._begin("overdue")
        found = [(id_, job) for id_, job in self._waiting() if job.get("deadline", NEVER) <= now][:limit]
        for _, job in found:
            job["due_at"] = min(job["due_at"], now)
        end()
        return [id_ for id_, _ in found]

    async def rerun(self, job: str, seq: int) -> Code | None:
        """Start the next generation of a job that has ended without success, or keep the wish until its result is out."""
        end = self._begin("rerun")
        found, refused = self.database.jobs.get(job, {"state": State.ANNOUNCED}), None
        if found["state"] == State.ANNOUNCED:
            refused = Code.UNKNOWN_JOB
        elif found.get("control_seq", -1) < seq:
            if found["state"] not in TERMINAL:
                refused = Code.NOT_ENDED
            elif "payload" not in found:
                refused = Code.ALREADY_SUCCEEDED
            else:
                found.update(control_seq=seq, rerun=True)
                self._rerun_published()
        end()
        return refused

    async def rerun_published(self) -> int:
        """Start the next generation of jobs that were to be run again as soon as their results are out."""
        end = self._begin("rerun_published")
        count = self._rerun_published()
        end()
        return count

    def _rerun_published(self) -> int:
        again = [job for job in self.database.jobs.values() if job.get("rerun") and "outbox" not in job]
        for job in again:
            for name in _OF_A_GENERATION:
                job.pop(name, None)
            now = self.database.clock()
            job.update(state=State.WAITING, owner=None, why_waiting="rerun", due_at=now, arrived_at=now)
            job.update(takeovers=0, attempts=0, generation=job["generation"] + 1)
        return len(again)

    async def waiting(self, priority: str, limit: int) -> Backlog:
        """What waits in this priority, looked at up to `limit` documents."""
        self._begin("waiting")()
        found = self._waiting(priority=priority)[:limit]
        sizes = sum(len(job["payload"]) for _, job in found)
        return Backlog(len(found), found[0][1]["due_at"], sizes) if found else Backlog()

    # -- halts ----------------------------------------------------------------------------------------------------------------
    async def halt(self, scope: str, kind: HaltKind | None, seq: int, *, reason: str = "") -> None:
        """Halt a scope, or let it go on, unless a later control record was there."""
        end = self._begin("halt")
        if self.database.halts.get(scope, {"seq": -1})["seq"] < seq:
            self.database.halts[scope] = {"kind": kind, "seq": seq, "reason": reason, "at": self.database.clock()}
        end()

    async def halts(self) -> list[Halt]:
        """Every scope that is halted now."""
        self._begin("halts")()
        halted = [Halt(scope, **halt) for scope, halt in self.database.halts.items() if halt["kind"] is not None]
        return halted + [batch["limited"] for batch in self.database.batches.values() if batch.get("limited")]

    async def apply(self, halt: Halt) -> None:
        """Let a batch's documents know of a halt."""
        end = self._begin("apply")
        for job in self._of_batch(halt.scope):
            if "cancel" not in job and halt.meets(job["generation"], job["arrived_at"]):
                self._tell(job, halt)
        self._applied(halt)
        end()

    def _tell(self, job: Job, halt: Halt) -> None:
        now, waits = self.database.clock(), job["state"] == State.WAITING
        if halt.kind is HaltKind.CANCELLED and (waits or job["state"] == State.CLAIMED):
            job.update(cancel=halt.reason, due_at=now)
        elif halt.kind is HaltKind.LIMITED and waits and job["due_at"] > halt.at:
            job.update(due_at=halt.at)
            job.pop("wait_key", None)
        elif halt.kind is HaltKind.PAUSED and waits and job["due_at"] <= halt.at:
            _park(job, halt.scope)

    def _applied(self, halt: Halt) -> None:
        kept = self.database.batches if halt.kind is HaltKind.LIMITED else self.database.halts
        found = kept[halt.scope]
        if found["seq"] == halt.seq and halt.kind is HaltKind.LIMITED:
            found["limited"] = replace(halt, applied=True)
        elif found["seq"] == halt.seq:
            found["applied"] = True

    async def park(self, ids: Sequence[str], batch: str) -> int:
        """Have those of these waiting jobs that are of a paused batch wait for it."""
        end = self._begin("park")
        parked = [self.database.jobs[id_] for id_ in ids if self._parkable(self.database.jobs.get(id_, {}), batch)]
        for job in parked:
            _park(job, batch)
        end()
        return len(parked)

    def _parkable(self, job: Job, batch: str) -> bool:
        return job.get("state") == State.WAITING and _batch(job) == batch and "cancel" not in job

    async def parked(self) -> list[str]:
        """The batches that jobs wait for."""
        self._begin("parked")()
        keys = {job.get("wait_key") or "" for _, job in self._waiting()}
        return sorted(key.removeprefix(PARKED) for key in keys if key.startswith(PARKED))

    async def unpark(self, batch: str, limit: int) -> int:
        """Make jobs that wait for a batch due again, as of their arrival."""
        end = self._begin("unpark")
        found = self._waiting(wait_key=PARKED + batch)[:limit]
        for _, job in found:
            job.update(due_at=job["arrived_at"], why_waiting="queued")
            del job["wait_key"]
        end()
        return len(found)

    # -- batches --------------------------------------------------------------------------------------------------------------
    def _of_batch(self, batch: str) -> list[Job]:
        return [job for job in self.database.jobs.values() if _batch(job) == batch]

    async def seal(self, seal: Seal) -> Code | None:
        """Keep that a batch is complete, and have it looked at."""
        end = self._begin("seal")
        refused = None
        if self.database.batches.get(seal.id, {"seq": -1})["seq"] < seal.seq:
            if len(self._of_batch(seal.id)) > seal.total:
                refused = Code.TOTAL_TOO_SMALL
            else:
                self.database.batches[seal.id] = {"seal": seal, "seq": seal.seq, "watch_at": self.database.clock()}
        end()
        return refused

    async def look(self, now: datetime, again_at: datetime) -> Sealed | None:
        """A sealed batch that is to be looked at by `now`."""
        end = self._begin("look")
        due = [batch for batch in self.database.batches.values() if batch.get("watch_at", NEVER) <= now]
        found = min(due, key=lambda batch: batch["watch_at"], default=None)
        if found is not None:
            found["watch_at"] = again_at
        end()
        return _sealed(found) if found is not None else None

    async def counts(self, batch: str) -> dict[str, int]:
        """How many jobs of a batch are in which state."""
        self._begin("counts")()
        states = [job["state"] for job in self._of_batch(batch)]
        return {state: states.count(state) for state in set(states)}

    async def any_unpublished(self, batch: str) -> bool:
        """Whether the result of any finished job of a batch is still on its way."""
        self._begin("any_unpublished")()
        return any("outbox" in job for job in self._of_batch(batch))

    async def billed(self, tenant: str, batch_id: str) -> Decimal:
        """What a batch has cost its tenant, in dollars."""
        self._begin("billed")()
        wanted = {"tenant": tenant, "batch_id": batch_id, "billed": True}
        rows = [row for row in self.database.usage.values() if wanted.items() <= row.items()]
        return sum((row["cost_usd"].to_decimal() for row in rows), Decimal(0))

    async def limit(self, seal: Seal, sentence: str) -> None:
        """Keep that a batch has passed a limit of this seal."""
        end = self._begin("limit")
        if (batch := self._under(seal)) is not None and "limited" not in batch:
            batch["limited"] = Halt(seal.id, HaltKind.LIMITED, seal.seq, sentence, self.database.clock())
        end()

    async def complete(self, seal: Seal, event: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Freeze the completion event, or give the one that is kept."""
        end = self._begin("complete")
        batch = self._under(seal)
        kept: Mapping[str, Any] | None = batch.setdefault("event", dict(event)) if batch is not None else None
        end()
        return kept

    async def watch(self, sealed: Sealed, at: datetime) -> None:
        """Have a batch looked at again at `at`."""
        end = self._begin("watch")
        if (batch := self._under(sealed.seal)) is not None:
            batch.update(watch_at=at, ended=sealed.ended, pause_s=sealed.pause_s)
        end()

    async def unwatch(self, seal: Seal) -> None:
        """Nothing is left to be done for this seal."""
        end = self._begin("unwatch")
        if (batch := self._under(seal)) is not None:
            batch.pop("watch_at", None)
        end()

    def _under(self, seal: Seal) -> dict[str, Any] | None:
        """The batch, if this is its last seal."""
        batch = self.database.batches.get(seal.id)
        return batch if batch is not None and batch["seq"] == seal.seq else None


def _park(job: Job, batch: str) -> None:
    job.update(due_at=NEVER, why_waiting=HaltKind.PAUSED, wait_key=PARKED + batch)


def _batch(job: Job) -> str | None:
    return f"{job['tenant']}/{job['batch_id']}" if job.get("batch_id") is not None else None


def _sealed(batch: Mapping[str, Any]) -> Sealed:
    limited = batch["limited"].reason if "limited" in batch else None
    seen = {
        field.name: batch[field.name]
        for field in fields(Sealed)
        if field.name in {"ended", "pause_s", "event"} & batch.keys()
    }
    return Sealed(batch["seal"], limited, **seen)
