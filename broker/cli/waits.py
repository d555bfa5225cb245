"""How much waits and why, and when a waiting job will probably start: counts of an index, and rates that workers tell with their leases."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from broker import mongo
from broker.cli import database, queries

LOOKED_AT = 100_000
"""Of how many waiting jobs of a priority the reasons are looked at: these are read, not counted by the index alone."""
COUNTED = 1_000_000
"""Up to how many jobs that stand before another are counted."""

MEANING = {
    "queued": "there are more jobs than workers have room for",
    "scheduled": "its not_before is not reached",
    "retry": "it failed and is tried again later",
    "not_sent": "the provider could not be reached; it is tried again later",
    "rate_limited": "the provider's rate limit is used up",
    "quota": "a quota is used up; it goes on in the next window, or when the limit is raised",
    "lower_priority": "a limit is used up that sends it to the lowest priority; there it has its turn",
    "credential": "the provider refused the key, or its account has no credit left; renew it or top it up",
    "lease": "its worker is not sure that it is alive to the others; it or another one takes it again",
    "taken_over": "its worker died; another one takes it",
    "handed_back": "its worker was stopped; another one takes it",
    "rerun": "it runs again",
    "paused": "it is paused",
}
"""What each reason to wait means."""

_STATES = {
    "not_seen": "no worker has read them",
    "claimed": "workers run them, or have them ready for a slot",
}
_WAITS_ON_SOMETHING = frozenset({"quota", "credential", "paused"})
"""Reasons whose end is no matter of the jobs before."""


@dataclass(slots=True, frozen=True)
class Turn:
    """What stands between a waiting job and its start."""

    before: int  # other jobs of its priority and tenant that are due no later: what was read at once has its turn in any order
    ready: int  # jobs of its priority that wait for a slot in some worker
    tenant_per_s: float  # jobs of its priority and tenant that have started a second of late
    priority_per_s: float
    workers: int

    def starts_in_s(self) -> float | None:
        """Seconds until its turn at these rates; None where nothing like it has started of late."""
        if not self.workers or (self.before and not self.tenant_per_s) or (self.ready and not self.priority_per_s):
            return None
        in_workers_s = self.ready / self.priority_per_s if self.ready else 0.0
        return in_workers_s + (self.before / self.tenant_per_s if self.before else 0.0)

    def told(self, due_at: datetime, now: datetime) -> dict[str, Any]:
        """What the status of the job says of it: it does not start before it is due."""
        seconds = self.starts_in_s()
        start = None if seconds is None else max(due_at, now + timedelta(seconds=seconds))
        return {"jobs_before": self.before, "starts_per_s": round(self.tenant_per_s, 3), "estimated_start": start}


NO_TURN: Mapping[str, Any] = dict.fromkeys(("jobs_before", "starts_per_s", "estimated_start"))
"""The same keys for a job that waits for no turn."""


async def turn(opened: mongo.Database, document: Mapping[str, Any]) -> Turn | None:
    """What stands before a waiting job; None where it waits for something else than its turn."""
    if document["state"] != "waiting" or document.get("why_waiting") in _WAITS_ON_SOMETHING:
        return None
    priority, tenant = document["priority"], document["tenant"]
    before = {"state": "waiting", "priority": priority, "tenant": tenant, "due_at": {"$lte": document["due_at"]}}
    count = await opened["jobs"].count_documents(before, hint="waiting", limit=COUNTED)
    leases = await database.listed(opened, "workers", queries.live_workers())
    return turn_among(max(count - 1, 0), priority, tenant, leases)


def turn_among(before: int, priority: str, tenant: str, leases: Sequence[Mapping[str, Any]]) -> Turn:
    """The turn by what the workers that take jobs have told."""
    told = [lease.get("told") or {} for lease in leases if "drain" not in lease]
    starts = [one for each in told for one in each.get("starts", ()) if one["priority"] == priority]
    ready = [one["jobs"] for each in told for one in each.get("ready", ()) if one["priority"] == priority]
    return Turn(
        before=before,
        ready=sum(ready),
        tenant_per_s=sum(one["per_s"] for one in starts if one["tenant"] == tenant),
        priority_per_s=sum(one["per_s"] for one in starts),
        workers=len(told),
    )


def row(priority: str, state: str, jobs: int, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 what stands in a row
    """How many jobs of a priority are in a state, in stable keys; `at_least`: not all could be looked at."""
    meaning = _STATES.get(state) or MEANING.get(str(fields.get("why_waiting")))
    told = {"priority": priority, "state": state, "why_waiting": None, "jobs": jobs, "at_least": False}
    return told | {"first_due_at": None, "meaning": meaning} | fields


async def totals(opened: mongo.Database) -> AsyncIterator[dict[str, Any]]:
    """How many jobs are in the hands of workers, by priority, and how many wait, by priority and reason."""
    held = await database.listed(opened, "jobs", queries.claimed(LOOKED_AT))
    seen = sum(found["jobs"] for found in held)
    for found in held:
        yield row(found["_id"], "claimed", found["jobs"], at_least=seen >= LOOKED_AT)
    async for priority in _priorities(opened):
        waiting = {"state": "waiting", "priority": priority}
        count = await opened["jobs"].count_documents(waiting, hint="waiting", limit=COUNTED)
        for found in await database.listed(opened, "jobs", queries.waiting_reasons(priority, LOOKED_AT)):
            due = {"why_waiting": found["_id"], "first_due_at": found["first_due_at"]}
            yield row(priority, "waiting", found["jobs"], at_least=count > LOOKED_AT, **due)


async def _priorities(opened: mongo.Database) -> AsyncIterator[str]:
    """The priorities in which something waits, also those that no settings name any more, by hops over the index."""
    last = ""
    while True:
        later = {"state": "waiting", "priority": {"$gt": last}}
        found = await opened["jobs"].find_one(later, {"_id": 0, "priority": 1}, sort=[("priority", 1)], hint="waiting")
        if found is None:
            return
        last = found["priority"]
        yield last
