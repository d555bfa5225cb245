"""Every question that the command asks MongoDB, as pure filters and pipelines."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broker.errors import UsageError
from schemas.result import Status
from schemas.usage import COUNTS

TERMINAL = tuple(status.value for status in Status)
"""The states of a job that has ended."""

Document = dict[str, Any]

_NO_USD = {"$toDecimal": 0}
_GROUPS: dict[str, Any] = {
    "tenant": "$tenant",
    "model": "$request_model",
    "provider": "$provider",
    "credential": "$credential",
    "priority": "$priority",
    "operation": "$operation",
    "batch": "$batch_id",
    "outcome": "$outcome",
    "day": {"$dateToString": {"date": "$at", "format": "%Y-%m-%d", "timezone": "UTC"}},
}
GROUPS = (*_GROUPS, "tag:<name>")
"""What usage can be summed by."""


@dataclass(slots=True, frozen=True)
class Period:
    """From an instant, inclusive, to another, exclusive; None is open."""

    since: datetime | None = None
    until: datetime | None = None


def usage(by: Sequence[str], period: Period, tenant: str | None = None) -> list[Document]:
    """Sums of the ledger: billed calls, tokens and dollars, and beside them what was spent and billed to nobody.

    Raises:
        UsageError: `by` names what usage cannot be summed by.
    """
    match: Document = {"tenant": tenant} if tenant else {}
    bounds = {name: at for name, at in (("$gte", period.since), ("$lt", period.until)) if at is not None}
    if bounds:
        match["at"] = bounds
    call = {"$cond": [{"$gt": ["$corrects", None]}, 0, 1]}  # a correction is no call
    billed = {name: {"$sum": {"$cond": ["$billed", f"${name}", 0]}} for name in COUNTS}
    sums: Document = {
        "calls": {"$sum": call},
        "jobs": {"$sum": {"$cond": ["$billed", call, 0]}},
        **billed,
        "cost_usd": {"$sum": {"$cond": ["$billed", "$cost_usd", _NO_USD]}},
        "unbilled_usd": {"$sum": {"$cond": ["$billed", _NO_USD, "$cost_usd"]}},
        "estimated_calls": {"$sum": {"$cond": ["$estimated", call, 0]}},
    }
    groups = {f"k{place}": _group(name) for place, name in enumerate(by)}
    # The sums as shown are sorted with the dearest first; the key breaks ties, so that two runs agree.
    return [{"$match": match}, {"$group": {"_id": groups, **sums}}, {"$sort": {"cost_usd": -1, "_id": 1}}]


def _group(name: str) -> Any:  # noqa: ANN401 an expression of MongoDB's
    if name.startswith("tag:") and name[4:].replace("_", "").replace("-", "").isalnum():
        return f"$tags.{name[4:]}"
    if name not in _GROUPS:
        raise UsageError(f"usage cannot be summed by {name!r}; choose from {', '.join(GROUPS)}")
    return _GROUPS[name]


def usage_row(by: Sequence[str], found: Mapping[str, Any]) -> Document:
    """One row of the answer to `usage`, its groups under their own names first."""
    groups = {name: found["_id"].get(f"k{place}") for place, name in enumerate(by)}
    return {**groups, **{name: value for name, value in found.items() if name != "_id"}}


def names(text: str) -> tuple[str, ...]:
    """The names in `a,b`; what is empty or said twice counts once or not at all."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def finished(statuses: Sequence[str], tenant: str | None, batch: str | None) -> Document:
    """Finished jobs: of a batch of a tenant, of a tenant, or all.

    Raises:
        UsageError: A status is none that a job can end with.
    """
    for status in statuses:
        if status not in TERMINAL:
            raise UsageError(f"no job ends as {status!r}; choose from {', '.join(TERMINAL)}")
    match: Document = {"state": {"$in": list(statuses or TERMINAL)}}
    if batch is not None:
        match["batch"] = f"{tenant or 'default'}/{batch}"
    elif tenant is not None:
        match["tenant"] = tenant
    return match


def in_order(keys: Sequence[str], match: Mapping[str, Any], projection: Mapping[str, Any]) -> list[Document]:
    """Those of these documents that are as `match` says, in the order of their keys."""
    return [
        {"$match": {**match, "_id": {"$in": list(keys)}}},
        {"$project": {**projection, "place": {"$indexOfArray": [list(keys), "$_id"]}}},
        {"$sort": {"place": 1}},
    ]


def batch_counts(batches: Iterable[tuple[str, str]]) -> list[Document]:
    """How many jobs of these (tenant, batch) are in which state; answered from the index alone."""
    keys = [f"{tenant}/{batch}" for tenant, batch in batches]
    return [{"$match": {"batch": {"$in": keys}}}, {"$group": {"_id": "$state", "jobs": {"$sum": 1}}}]


def batch_codes(batches: Iterable[tuple[str, str]]) -> list[Document]:
    """Why jobs of these (tenant, batch) did not succeed: how many of each state and code."""
    keys = [f"{tenant}/{batch}" for tenant, batch in batches]
    unhappy = [state for state in TERMINAL if state != Status.SUCCEEDED]
    return [
        {"$match": {"batch": {"$in": keys}, "state": {"$in": unhappy}}},
        {"$group": {"_id": {"state": "$state", "code": "$result.code"}, "jobs": {"$sum": 1}}},
        {"$sort": {"jobs": -1, "_id": 1}},
    ]


def unpublished(batches: Iterable[tuple[str, str]]) -> Document:
    """Jobs of these (tenant, batch) that have ended, and of which the outcome is not yet everywhere that it has to be."""
    return {"outbox": {"$exists": True}, "batch": {"$in": [f"{tenant}/{batch}" for tenant, batch in batches]}}


def batch_costs(batches: Iterable[tuple[str, str]]) -> list[Document]:
    """What was billed for each batch of these tenants, in dollars; `batch_cost` answers it alone, others' batches of a like name among it."""
    keys = list(batches)
    tenants, ids = {tenant for tenant, _ in keys}, {batch for _, batch in keys}
    return [
        # the type says to the planner that the index, which holds only texts, will do
        {
            "$match": {
                "batch_id": {"$in": sorted(ids), "$type": "string"},
                "tenant": {"$in": sorted(tenants)},
                "billed": True,
            }
        },
        {"$group": {"_id": {"tenant": "$tenant", "batch_id": "$batch_id"}, "usd": {"$sum": "$cost_usd"}}},
    ]


def state_counts() -> list[Document]:
    """How many jobs are in which state, over the whole deployment."""
    return [{"$group": {"_id": "$state", "jobs": {"$sum": 1}}}]


def outcomes() -> list[Document]:
    """How many jobs of each tenant are in which state, for which reason."""
    keys = {"tenant": "$tenant", "state": "$state", "code": "$result.code"}
    return [{"$group": {"_id": keys, "jobs": {"$sum": 1}}}, {"$sort": {"_id.tenant": 1, "jobs": -1, "_id": 1}}]


def code_row(found: Mapping[str, Any]) -> Document:
    """One row of the answer to `batch_codes`."""
    return {"state": found["_id"]["state"], "code": found["_id"].get("code"), "jobs": found["jobs"]}


def claimed(limit: int) -> list[Document]:
    """How many documents of each priority are in the hands of workers; `limit` documents are looked at."""
    return [
        {"$match": {"state": "claimed", "owner": {"$gt": ""}}},  # the second leads to the index
        {"$limit": limit},
        {"$group": {"_id": "$priority", "jobs": {"$sum": 1}}},
        {"$sort": {"_id": 1}},
    ]


def waiting_reasons(priority: str, limit: int) -> list[Document]:
    """How many documents of a priority wait for which reason, and when the first of each is due; `limit` documents are looked at."""
    reasons = {"_id": "$why_waiting", "jobs": {"$sum": 1}, "first_due_at": {"$min": "$due_at"}}
    return [
        {"$match": {"state": "waiting", "priority": priority}},
        {"$limit": limit},
        {"$group": reasons},
        {"$sort": {"jobs": -1, "_id": 1}},
    ]


_FENCED_SHOWN = 20


def workers() -> list[Document]:
    """Every incarnation that is not fenced and the last of those that are, by what the server's clock says of their leases."""
    lease_s = {"$divide": [{"$subtract": ["$until", "$$NOW"]}, 1000]}
    shown = {
        "host": 1,
        "pid": 1,
        "version": 1,
        "until": 1,
        "drain": 1,
        "fenced": 1,
        "told": 1,
        "health": 1,
        "lease_s": lease_s,
    }
    fenced = [
        {"$match": {"fenced": True}},
        {"$sort": {"until": -1}},
        {"$limit": _FENCED_SHOWN},
        {"$project": shown},
    ]
    return [
        {"$match": {"fenced": {"$exists": False}}},
        {"$sort": {"host": 1, "_id": 1}},
        {"$project": shown},
        {"$unionWith": {"coll": "workers", "pipeline": fenced}},
    ]


def drain(incarnations: Sequence[str]) -> tuple[Document, Document]:
    """The filter and the update that ask these incarnations to finish what runs and to end."""
    return {"_id": {"$in": list(incarnations)}, "fenced": {"$exists": False}}, {"$currentDate": {"drain": True}}


def halts(tenant: str, batch: str | None) -> Document:
    """What keeps jobs of a tenant, or of one of its batches, from running."""
    scopes = ["*", tenant] if batch is None else ["*", tenant, f"{tenant}/{batch}"]
    return {"_id": {"$in": scopes}, "kind": {"$exists": True}}


def live_workers() -> list[Document]:
    """The leases that the server's clock says run."""
    return [
        {"$match": {"fenced": {"$exists": False}, "$expr": {"$gt": ["$until", "$$NOW"]}}},
        {"$sort": {"_id": 1}},
    ]
