"""The store in dictionaries, with MongoDB's semantics: for unit tests of what stands on it, and for the contract that both keep.

Several `MemoryStore`s share one `MemoryDatabase`, as workers share MongoDB. `lose_next` loses an answer, before or after the write was executed.
"""

import copy
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from workers.stores import memory_documents as documents
from workers.stores.control import ControlStore
from workers.stores.memory_control import MemoryControl
from workers.stores.memory_documents import Job, MemoryDatabase
from workers.stores.protocol import (
    Claim,
    Fate,
    Finish,
    Insertion,
    Known,
    NewJob,
    Published,
    State,
    Unpublished,
    Waiting,
)

__all__ = ["MemoryDatabase", "MemoryStore"]


class MemoryStore(MemoryControl):
    """One incarnation's store: `MemoryStore(MemoryDatabase(), owner)`."""

    async def insert(self, jobs: Sequence[NewJob]) -> list[Insertion]:
        """Insert, unordered; one outcome a job, in order."""
        end = self._begin("insert")
        outcomes = [self._insert(job) for job in jobs]
        end()
        return outcomes

    def _insert(self, job: NewJob) -> Insertion:
        if not documents.storable(
            [job.payload, job.id, job.tenant, job.job_id, job.trace, job.batch_id, job.why_waiting]
        ):
            return Insertion.REFUSED
        if job.id in self.database.jobs:
            return Insertion.DUPLICATE
        self.database.jobs[job.id] = {
            **self._fields_of(job),
            "fence": 0 if job.due_at else 1,
            "generation": 1,
            "replies": [job.reply],
            "replies_n": 1,
        }
        return Insertion.INSERTED

    def _fields_of(self, job: NewJob) -> Job:
        fields = {name: getattr(job, name) for name in ("uid", "tenant", "job_id", "priority", "payload", "digest")}
        fields |= {name: getattr(job, name) for name in ("arrived_at", "batch_id", "trace")}
        fields |= {"state": State.CLAIMED, "owner": self.owner, "takeovers": 0, "attempts": 0}
        fields |= {"deadline": job.deadline} if job.deadline is not None else {}
        if job.due_at is not None:
            fields |= {"state": State.WAITING, "owner": None, "due_at": job.due_at, "why_waiting": job.why_waiting}
            fields |= {"wait_key": job.wait_key} if job.wait_key is not None else {}
        return fields

    async def read(self, ids: Sequence[str]) -> dict[str, Known]:
        """Majority read; an absent id is not in the answer."""
        self._begin("read")()
        return {id_: documents.known(self.database.jobs[id_]) for id_ in ids if id_ in self.database.jobs}

    async def merge(self, job: NewJob) -> Claim | None:
        """Make a stub a job; one with `due_at` waits instead."""
        end = self._begin("merge")
        stub = self.database.jobs.get(job.id, {"state": ""})
        merged = stub["state"] == State.ANNOUNCED
        if merged:
            stub.pop("expire_at", None)
            stub.pop("due_at", None)
            stub.update(self._fields_of(job))
            stub["fence"] += 1
            documents.add_address(stub, job.reply)
            if job.due_at is not None and "cancel" in stub:
                stub["due_at"] = self.database.clock()
        end()
        return documents.claim(job.id, stub) if merged and job.due_at is None else None

    async def adopt(self, id: str, fence: int) -> Claim | None:  # noqa: A002 the document's own word
        """Take up what is claimed by us under `fence`, by a CAS that raises the fence."""
        end = self._begin("adopt")
        job = self._held(id, fence)
        if job is not None:
            job["fence"] += 1
        end()
        return documents.claim(id, job) if job is not None else None

    def _held(self, id_: str, fence: int) -> Job | None:
        """The document, if it is claimed by us under `fence`."""
        job = self.database.jobs.get(id_)
        ours = job is not None and (job["state"], job["owner"], job["fence"]) == (State.CLAIMED, self.owner, fence)
        return job if ours else None

    async def unheld(self, limit: int) -> list[tuple[str, int]]:
        """(id, fence) of documents claimed by us."""
        self._begin("unheld")()
        return [(id_, job["fence"]) for id_, job in self._ours()][:limit]

    async def any_due(self, now: datetime) -> bool:
        """Whether any waiting job is due."""
        self._begin("any_due")()
        return any(job["due_at"] <= now for _, job in self._waiting())

    async def due_tenants(self, priority: str, now: datetime) -> list[str]:
        """Tenants with waiting jobs that are due."""
        self._begin("due_tenants")()
        return sorted({job["tenant"] for _, job in self._waiting(priority=priority) if job["due_at"] <= now})

    async def due(self, priority: str, tenant: str, now: datetime, limit: int) -> list[str]:
        """Ids of waiting jobs that are due, oldest first."""
        self._begin("due")()
        waiting = self._waiting(priority=priority, tenant=tenant)
        return [id_ for id_, job in waiting if job["due_at"] <= now][:limit]

    async def take(self, ids: Sequence[str], token: str, now: datetime) -> list[Claim]:
        """Claim those that still wait and are due."""
        end = self._begin("take")
        claims = []
        for id_, job in ((id_, self.database.jobs.get(id_)) for id_ in ids):
            if job is not None and job["state"] == State.WAITING and job["due_at"] <= now:
                job.update(state=State.CLAIMED, owner=self.owner, token=token)
                job["fence"] += 1
                job.pop("why_waiting", None)
                job.pop("wait_key", None)
                claims.append(documents.claim(id_, job))
        end()
        return claims

    async def mark_called(self, id: str, fence: int) -> Fate:  # noqa: A002 the document's own word
        """Note that a call may have started."""
        end = self._begin("mark_called")
        job = self._held(id, fence)
        if job is not None:
            job["called"] = True
        end()
        return Fate.DONE if job is not None else Fate.FENCED

    async def wait(self, jobs: Sequence[Waiting]) -> list[Fate]:
        """Put claimed jobs back."""
        end = self._begin("wait")
        fates = [self._wait(job) for job in jobs]
        end()
        return fates

    def _wait(self, wanted: Waiting) -> Fate:
        if not documents.storable([wanted.why_waiting, wanted.wait_key, wanted.attempts]):
            return Fate.REFUSED
        job = self._held(wanted.id, wanted.fence)
        if job is None:
            stored = self.database.jobs.get(wanted.id, {})
            waits = (State.WAITING, None, wanted.fence, wanted.why_waiting)
            executed = tuple(map(stored.get, ("state", "owner", "fence", "why_waiting"))) == waits
            return Fate.DONE if executed else Fate.FENCED
        if "cancel" in job:
            return Fate.MARKED
        job.update(state=State.WAITING, owner=None, due_at=wanted.due_at, why_waiting=wanted.why_waiting)
        job["attempts"] = wanted.attempts
        job.pop("token", None)
        said = {name: getattr(wanted, name) for name in ("wait_key", "last_failure", "priority", "deadline")}
        job.update({name: value for name, value in said.items() if value is not None})
        if wanted.nothing_sent:
            job.pop("called", None)
        return Fate.DONE

    async def release(self, wait_key: str, limit: int) -> int:
        """Make what waits on this key due now, oldest first."""
        end = self._begin("release")
        released = self._waiting(wait_key=wait_key)[:limit]
        for _, job in released:
            job["due_at"] = self.database.clock()
            del job["wait_key"]
        end()
        return len(released)

    async def finish(self, jobs: Sequence[Finish], token: str) -> list[Fate]:
        """Finish claimed jobs by CAS on (owner, fence)."""
        end = self._begin("finish")
        fates = [self._finish(job, token) for job in jobs]
        end()
        return fates

    def _finish(self, wanted: Finish, token: str) -> Fate:
        if not documents.storable({"result": wanted.result, "row": wanted.row}):
            return Fate.REFUSED
        job = self._held(wanted.id, wanted.fence)
        if job is None:
            stored = self.database.jobs.get(wanted.id, {})
            ours = (stored.get("owner"), stored.get("fence")) == (self.owner, wanted.fence)
            return Fate.DONE if ours else Fate.FENCED
        job.update(state=wanted.state, result=copy.deepcopy(wanted.result), outbox=token)
        job["finished_at"] = self.database.clock()
        job.pop("token", None)
        if wanted.row is not None:
            job["row"] = copy.deepcopy(wanted.row)
        if not wanted.keep_payload:
            del job["payload"]
        return Fate.DONE

    async def ledger(self, rows: Sequence[dict[str, Any]]) -> list[Insertion]:
        """Insert rows by their `_id`."""
        end = self._begin("ledger")
        outcomes = [self._record(row) for row in rows]
        end()
        return outcomes

    def _record(self, row: dict[str, Any]) -> Insertion:
        if not documents.storable(row) or isinstance(row["cost_usd"], float):
            return Insertion.REFUSED
        if row["_id"] in self.database.usage:
            return Insertion.DUPLICATE
        self.database.usage[row["_id"]] = copy.deepcopy(row)
        return Insertion.INSERTED

    async def untold(self, limit: int, *, of_the_dead: bool) -> list[dict[str, Any]]:
        """Rows with the mark `untold`, without it: our own, or those of the dead."""
        self._begin("untold")()
        rows = [row for row in self.database.usage.values() if "untold" in row]
        wanted = [
            row
            for row in rows
            if (self.database.dead(row["incarnation"]) if of_the_dead else row["incarnation"] == self.owner)
        ]
        return [{name: value for name, value in row.items() if name != "untold"} for row in wanted[:limit]]

    async def told(self, ids: Sequence[str]) -> None:
        """Take the mark of these rows away."""
        end = self._begin("told")
        for id_ in ids:
            self.database.usage.get(id_, {}).pop("untold", None)
        end()

    async def unpublished(self, limit: int, *, of_the_dead: bool) -> list[Unpublished]:
        """Finished documents with an outbox: our own, or those of the dead."""
        self._begin("unpublished")()
        return [
            documents.unpublished(id_, job)
            for id_, job in self.database.jobs.items()
            if "outbox" in job and (self.database.dead(job["owner"]) if of_the_dead else job["owner"] == self.owner)
        ][:limit]

    async def outboxes(self, ids: Sequence[str]) -> list[Unpublished]:
        """The same for these ids, whoever owns them."""
        self._begin("outboxes")()
        jobs = self.database.jobs
        return [documents.unpublished(id_, jobs[id_]) for id_ in ids if "outbox" in jobs.get(id_, {})]

    async def published(self, done: Sequence[Published], expire_at: datetime) -> list[str]:
        """Clear outboxes by token and `replies_n`; ids of those that have to be published again."""
        end = self._begin("published")
        again = []
        for one in done:
            job = self.database.jobs.get(one.id, {})
            if job.get("outbox") != one.token:
                continue
            if job["replies_n"] == one.replies_n:
                del job["outbox"]
                job["expire_at"] = expire_at
            else:
                again.append(one.id)
        end()
        return again

    async def aclose(self) -> None:
        """Nothing is held."""


_: type[ControlStore] = MemoryStore
