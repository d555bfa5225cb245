"""The store in memory: its lost answers, and the verbs of leases."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from workers.stores.memory_documents import Job, MemoryDatabase
from workers.stores.protocol import Lease, Standing, State, StoreUnknownError


class MemoryIncarnation:
    """One incarnation's store on a shared database."""

    def __init__(self, database: MemoryDatabase, owner: str) -> None:
        self.database = database
        self.owner = owner
        self._lost: dict[str, bool] = {}

    def lose_next(self, verb: str, *, executed: bool = True) -> None:
        """Let the next call of `verb` raise `StoreUnknownError`, after it was executed or instead."""
        self._lost[verb] = executed

    def _begin(self, verb: str) -> Callable[[], None]:
        """Raise when this call's answer is lost without execution; call what it returns when the write is done."""
        executed = self._lost.pop(verb, None)
        if executed is False:
            raise StoreUnknownError(f"{verb}: lost, not executed")

        def end() -> None:
            if executed:
                raise StoreUnknownError(f"{verb}: executed, its answer lost")

        return end

    # -- lease ------------------------------------------------------------------------------------------------------------
    async def start(self, lease_s: float, facts: dict[str, Any]) -> None:
        """Insert our lease."""
        end = self._begin("start")
        self.database.workers.setdefault(self.owner, dict(facts))
        if self._prolong(lease_s) is Standing.FENCED:
            raise StoreUnknownError(f"the lease of {self.owner} was fenced before it began")
        end()

    async def renew(self, lease_s: float, told: Mapping[str, Any] | None = None) -> Standing:
        """Prolong our lease and say how we stand; FENCED: nothing was written."""
        end = self._begin("renew")
        standing = self._prolong(lease_s)
        if told is not None and standing is not Standing.FENCED:
            self.database.workers[self.owner]["told"] = {**told, "at": self.database.clock()}
        end()
        return standing

    def _prolong(self, lease_s: float) -> Standing:
        if self.database.dead(self.owner):
            return Standing.FENCED
        row = self.database.workers[self.owner]
        row["until"] = self.database.clock() + timedelta(seconds=lease_s)
        return Standing.DRAINING if "drain" in row else Standing.LIVING

    async def expired_leases(self) -> list[Lease]:
        """Leases of others, not fenced, that have run out."""
        self._begin("expired_leases")()
        now = self.database.clock()
        return [
            Lease(owner, lease["until"])
            for owner, lease in self.database.workers.items()
            if owner != self.owner and "fenced" not in lease and "until" in lease and lease["until"] < now
        ]

    async def fence(self, lease: Lease) -> bool:
        """Declare one dead, by equality on the `until` that was read."""
        end = self._begin("fence")
        theirs = self.database.workers.get(lease.incarnation, {"fenced": True})
        done = "fenced" not in theirs and theirs.get("until") == lease.until
        if done:
            theirs.update(fenced=True, fenced_at=self.database.clock())
        end()
        return done

    async def sweep(self) -> int:
        """Put back what is claimed by the dead."""
        end = self._begin("sweep")
        swept = [
            job
            for job in self.database.jobs.values()
            if job["state"] == State.CLAIMED and self.database.dead(job["owner"])
        ]
        for job in swept:
            job.update(state=State.WAITING, owner=None, why_waiting="taken_over", due_at=self.database.clock())
            job["takeovers"] += 1
        end()
        return len(swept)

    async def stop(self) -> None:
        """Remove our lease."""
        end = self._begin("stop")
        self.database.workers.pop(self.owner, None)
        end()

    def _ours(self) -> list[tuple[str, Job]]:
        claimed = (State.CLAIMED, self.owner)
        return [(id_, job) for id_, job in self.database.jobs.items() if (job["state"], job.get("owner")) == claimed]

    def _waiting(self, **fields: str) -> list[tuple[str, Job]]:
        """What waits and has these fields, oldest first."""
        found = [
            (id_, job)
            for id_, job in self.database.jobs.items()
            if job["state"] == State.WAITING and all(job.get(name) == value for name, value in fields.items())
        ]
        return sorted(found, key=lambda one: one[1]["due_at"])
