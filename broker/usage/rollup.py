"""Sums of the ledger that are kept: an hour's by tenant, model and whatever else tells rows apart, and a day's out of its hours.

Idempotent and incremental: an hour is summed again when rows of it were recorded since the last run, and only where its rows are not those that
were summed: the ledger is only ever added to, so as many rows are the same rows. The server does the work (`$merge`), an hour at a time, so memory is
bounded by the rows of an hour, and `allowDiskUse` bounds that.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from broker.mongo import Database
from broker.usage import ledger
from schemas.usage import COUNTS

Document = dict[str, Any]

OVERLAP = timedelta(days=1)
"""A row may become visible this long after the time at which it says it was recorded (an outage, a worker that died with it)."""
_HOUR = timedelta(hours=1)

DIMENSIONS = (
    "tenant",
    "provider",
    "credential",
    "request_model",
    "operation",
    "priority",
    "service_tier",
    "outcome",
    "tags",
)
"""What tells sums of one hour or day apart."""
_IF = {"failed": {"$ne": ["$outcome", "succeeded"]}, "correction": {"$gt": ["$corrects", None]}}


def _sums() -> Document:
    """What is summed; dollars are exact decimals throughout."""

    def where(condition: object, value: object) -> Document:
        return {"$sum": {"$cond": [condition, value, 0]}}

    call = {"$cond": [_IF["correction"], 0, 1]}  # a correction is no call
    return {
        "rows": {"$sum": 1},
        "calls": {"$sum": call},
        "jobs": where("$billed", call),
        **{name: where("$billed", f"${name}") for name in COUNTS},
        "cost_usd": where("$billed", "$cost_usd"),
        "unbilled_calls": {"$sum": {"$cond": ["$billed", 0, call]}},
        "unbilled_usd": {"$sum": {"$cond": ["$billed", 0, "$cost_usd"]}},
        "estimated_calls": where("$estimated", call),
        "estimated_usd": where("$estimated", "$cost_usd"),
        "failed_calls": where(_IF["failed"], call),
        "failed_usd": where(_IF["failed"], "$cost_usd"),
        "provider_ms": {"$sum": "$provider_ms"},
        "longest_provider_ms": {"$max": "$provider_ms"},
        "queued_ms": {"$sum": "$queued_ms"},
    }


SUMS = tuple(_sums())
"""The names of the sums."""


def of_hour(everybody: Sequence[str], hour: datetime) -> list[Document]:
    """The pipeline on `usage` that sums an hour into `usage_hourly`."""
    key: Document = {"hour": hour, **{name: f"${name}" for name in DIMENSIONS}}
    return [
        {"$match": ledger.within(everybody, hour, hour + _HOUR)},
        {"$group": {"_id": key, **_sums()}},
        *_kept("usage_hourly"),
    ]


def of_day(day: datetime) -> list[Document]:
    """The pipeline on `usage_hourly` that sums a day (UTC) into `usage_daily`."""
    key: Document = {"day": day, **{name: f"${name}" for name in DIMENSIONS}}
    sums = {name: {"$max" if name.startswith("longest") else "$sum": f"${name}"} for name in SUMS}
    return [
        {"$match": _hours_of(day)},
        {"$group": {"_id": key, **sums}},
        *_kept("usage_daily"),
    ]


def _hours_of(day: datetime) -> Document:
    return {"hour": {"$gte": day, "$lt": day + timedelta(days=1)}}


def _kept(collection: str) -> list[Document]:
    # A field that no row has (a service tier, say) is absent in the key, where MongoDB takes it for null.
    whole = {"$replaceWith": {"$mergeObjects": ["$_id", "$$ROOT"]}}
    return [whole, {"$merge": {"into": collection, "on": "_id", "whenMatched": "replace"}}]


class Done(NamedTuple):
    """An hour that was looked at: how many rows it has, and whether it was summed again."""

    hour: datetime
    rows: int
    again: bool


async def roll_up(database: Database, since: datetime | None = None) -> AsyncIterator[Done]:
    """Bring both collections up to date; `since`: sum every hour from then on again, whatever was recorded when.

    The time up to which rows are known moves only at the end: a run that is interrupted is done again by the next.
    """
    started = (await database.command("hello"))["localTime"]
    state = await database["rollups"].find_one({"_id": "usage"}) or {}
    everybody = await ledger.tenants(database)
    hours = await _hours(database, everybody, state.get("recorded_until"), since)
    for hour in hours:
        rows = await _rows(database, everybody, hour)
        again = since is not None or rows != await _summed(database, "usage_hourly", {"hour": hour})
        if again:
            await _run(database, "usage", of_hour(everybody, hour))
        yield Done(hour, rows, again)
    for day in sorted({hour.replace(hour=0) for hour in hours}):
        rows = await _summed(database, "usage_hourly", _hours_of(day))
        if since is not None or rows != await _summed(database, "usage_daily", {"day": day}):
            await _run(database, "usage_hourly", of_day(day))
    kept = {"recorded_until": started, "hours": len(hours)}
    await database["rollups"].replace_one({"_id": "usage"}, kept, upsert=True)


async def _hours(
    database: Database, everybody: Sequence[str], recorded_until: datetime | None, since: datetime | None
) -> list[datetime]:
    """The hours of which something may be new, in order."""
    if since is not None:
        match = {"tenant": {"$in": list(everybody)}, "at": {"$gte": since.replace(minute=0, second=0, microsecond=0)}}
    else:
        match = {"recorded_at": {"$gte": recorded_until - OVERLAP}} if recorded_until else {}
    hour = {"$dateTrunc": {"date": "$at", "unit": "hour"}}
    pipeline: list[Document] = [{"$match": match}, {"$group": {"_id": hour}}, {"$sort": {"_id": 1}}]
    return [found["_id"] async for found in await database["usage"].aggregate(pipeline)]


async def _rows(database: Database, everybody: Sequence[str], hour: datetime) -> int:
    """How many rows an hour has, by the index alone."""
    pipeline: list[Document] = [{"$match": ledger.within(everybody, hour, hour + _HOUR)}, {"$count": "rows"}]
    return sum([found["rows"] async for found in await database["usage"].aggregate(pipeline)])


async def _summed(database: Database, collection: str, match: Document) -> int:
    """How many rows kept sums are of."""
    pipeline: list[Document] = [{"$match": match}, {"$group": {"_id": None, "rows": {"$sum": "$rows"}}}]
    return sum([found["rows"] async for found in await database[collection].aggregate(pipeline)])


async def _run(database: Database, collection: str, pipeline: list[Document]) -> None:
    async for _ in await database[collection].aggregate(pipeline, allowDiskUse=True):
        pass
