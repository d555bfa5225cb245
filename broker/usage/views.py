"""Views for analysts, as pipelines: what things cost, how long calls take, what was spent for nothing, where the month will end.

Those on `usage_daily` are as fresh as its last roll-up and fast whatever the ledger's size; those on `usage` are fresh. Dollars are exact decimals,
but for a quotient (rounded to 12 digits behind the point) and in the views named `..._inexact`, whose doubles plotting tools want.
"""

from typing import Any, NamedTuple

Document = dict[str, Any]


class View(NamedTuple):
    """A view: the collection that it is on, and its pipeline."""

    on: str
    pipeline: list[Document]


_EXACT_SUMS = {name: {"$sum": f"${name}"} for name in ("jobs", "calls", "cost_usd", "unbilled_usd")}
_DIGITS = 12
_LATENCY_DAYS = 7
_FORECAST_DAYS = 7
# Latencies are counted in classes of 2 % each: sums of a bounded number of classes stand for any number of calls.
_CLASS = 1.02


def _grouped(sums: Document, **key: str) -> list[Document]:
    """Sums by a key whose parts become fields."""
    return [
        {"$group": {"_id": key, **sums}},
        {"$replaceWith": {"$mergeObjects": ["$_id", "$$ROOT"]}},
        {"$unset": "_id"},
        {"$sort": dict.fromkeys(key, 1)},
    ]


def _percentile(share: float) -> Document:
    """The milliseconds that so large a share of the calls takes at most, from `classes` in order and `calls`."""
    rank = {"$ceil": {"$multiply": ["$calls", share]}}
    step = {
        "$cond": [
            {"$gte": ["$$value.seen", rank]},
            "$$value",
            {"seen": {"$add": ["$$value.seen", "$$this.calls"]}, "ms": "$$this.ms"},
        ]
    }
    found = {"$reduce": {"input": "$classes", "initialValue": {"seen": 0, "ms": 0}, "in": step}}
    return {"$getField": {"field": "ms", "input": found}}


def _ago(days: int) -> Document:
    return {"$dateSubtract": {"startDate": "$$NOW", "unit": "day", "amount": days}}


_COST_PER_JOB = {
    "$cond": [{"$eq": ["$jobs", 0]}, None, {"$round": [{"$divide": ["$cost_usd", {"$max": ["$jobs", 1]}]}, _DIGITS]}]
}
_TODAY = {"$dateTrunc": {"date": "$$NOW", "unit": "day"}}
_MONTH = {"$dateTrunc": {"date": "$$NOW", "unit": "month"}}
_MONTH_END = {"$dateAdd": {"startDate": _MONTH, "unit": "month", "amount": 1}}
_RECENTLY = {"$dateSubtract": {"startDate": _TODAY, "unit": "day", "amount": _FORECAST_DAYS}}
_DAYS_LEFT = {"$divide": [{"$subtract": [_MONTH_END, "$$NOW"]}, 86_400_000]}
_SPENT = {"$add": ["$cost_usd", "$unbilled_usd"]}

VIEWS: dict[str, View] = {
    "costs_daily": View("usage_daily", _grouped(_EXACT_SUMS, day="$day", tenant="$tenant", model="$request_model")),
    "costs_by_tag": View(
        "usage_daily",
        [
            {"$set": {"tag": {"$objectToArray": {"$ifNull": ["$tags", {}]}}}},
            {"$unwind": "$tag"},
            *_grouped(_EXACT_SUMS, day="$day", tenant="$tenant", tag="$tag.k", value="$tag.v", model="$request_model"),
        ],
    ),
    "unit_costs": View(
        "usage_daily",
        [
            *_grouped(_EXACT_SUMS, day="$day", tenant="$tenant", operation="$operation", model="$request_model"),
            {"$set": {"usd_per_job": _COST_PER_JOB}},
        ],
    ),
    "latencies": View(
        "usage",
        [
            {
                "$match": {
                    "outcome": "succeeded",
                    "corrects": None,
                    "$expr": {"$gte": ["$recorded_at", _ago(_LATENCY_DAYS)]},
                }
            },
            {
                "$group": {
                    "_id": {
                        "priority": "$priority",
                        "model": "$request_model",
                        "class": {"$ceil": {"$log": [{"$max": ["$provider_ms", 1]}, _CLASS]}},
                    },
                    "calls": {"$sum": 1},
                    "ms": {"$max": "$provider_ms"},
                }
            },
            {"$sort": {"_id.class": 1}},
            {
                "$group": {
                    "_id": {"priority": "$_id.priority", "model": "$_id.model"},
                    "calls": {"$sum": "$calls"},
                    "longest_ms": {"$max": "$ms"},
                    "classes": {"$push": {"calls": "$calls", "ms": "$ms"}},
                }
            },
            {
                "$project": {
                    "_id": 0,
                    "priority": "$_id.priority",
                    "model": "$_id.model",
                    "calls": 1,
                    "p50_ms": _percentile(0.5),
                    "p95_ms": _percentile(0.95),
                    "longest_ms": 1,
                }
            },
            {"$sort": {"priority": 1, "model": 1}},
        ],
    ),
    "spent_for_nothing": View(
        "usage_daily",
        [
            {"$match": {"$or": [{"unbilled_calls": {"$gt": 0}}, {"failed_calls": {"$gt": 0}}]}},
            *_grouped(
                {
                    name: {"$sum": f"${name}"}
                    for name in ("unbilled_calls", "unbilled_usd", "failed_calls", "failed_usd")
                },
                day="$day",
                tenant="$tenant",
                outcome="$outcome",
            ),
        ],
    ),
    "forecast": View(
        "usage_daily",
        [
            {"$match": {"$expr": {"$gte": ["$day", {"$min": [_MONTH, _RECENTLY]}]}}},
            {
                "$group": {
                    "_id": "$tenant",
                    "spent_usd": {"$sum": {"$cond": [{"$gte": ["$day", _MONTH]}, _SPENT, 0]}},
                    "recent_usd": {
                        "$sum": {
                            "$cond": [{"$and": [{"$gte": ["$day", _RECENTLY]}, {"$lt": ["$day", _TODAY]}]}, _SPENT, 0]
                        }
                    },
                }
            },
            {
                "$project": {
                    "_id": 0,
                    "tenant": "$_id",
                    "month": _MONTH,
                    "spent_usd": 1,
                    "usd_a_day": {"$round": [{"$divide": [{"$toDecimal": "$recent_usd"}, _FORECAST_DAYS]}, _DIGITS]},
                    "days_left": {"$round": [_DAYS_LEFT, 3]},
                }
            },
            {
                "$set": {
                    "forecast_usd": {
                        "$round": [
                            {"$add": ["$spent_usd", {"$multiply": ["$usd_a_day", {"$toDecimal": "$days_left"}]}]},
                            _DIGITS,
                        ]
                    }
                }
            },
            {"$sort": {"tenant": 1}},
        ],
    ),
    "usage_inexact": View("usage", [{"$set": {"cost_usd": {"$toDouble": "$cost_usd"}}}]),
    "usage_daily_inexact": View(
        "usage_daily",
        [
            {"$unset": "_id"},
            {
                "$set": {
                    name: {"$toDouble": f"${name}"}
                    for name in ("cost_usd", "unbilled_usd", "estimated_usd", "failed_usd")
                }
            },
        ],
    ),
}
"""Every view by its name."""

READABLE = ("usage", "usage_hourly", "usage_daily", *VIEWS)
"""What analysts may read: nothing in it holds a prompt or an answer."""
