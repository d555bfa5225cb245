"""What the database holds: its collections, each with the indexes that its queries need, the ledger's validator and the view of results."""

from typing import Any

from schemas.result import Status

Index = dict[str, Any]
_WAITING: Index = {"state": "waiting"}
_CLAIMED: Index = {"state": "claimed"}


def _exists(field: str) -> Index:
    return {field: {"$exists": True}}


def _index(name: str, keys: Index, partial: Index | None = None, **options: Any) -> Index:  # noqa: ANN401 MongoDB's own
    return {"name": name, "key": keys, **({"partialFilterExpression": partial} if partial else {}), **options}


INDEXES: dict[str, list[Index]] = {
    "jobs": [
        # Counting and weighing what waits reads no document.
        _index("waiting", {"state": 1, "priority": 1, "tenant": 1, "due_at": 1, "size": 1}, _WAITING),
        _index("any_due", {"due_at": 1}, _WAITING),
        _index("deadline", {"deadline": 1}, _WAITING),
        _index("wait_key", {"wait_key": 1, "due_at": 1}, _exists("wait_key")),
        _index("claimed", {"owner": 1}, _CLAIMED),
        _index("cancelled", {"owner": 1, "state": 1}, _exists("cancel")),
        _index("outbox", {"owner": 1}, _exists("outbox")),
        _index("batch", {"batch": 1, "state": 1}, _exists("batch")),
        _index("rerun", {"rerun": 1}, _exists("rerun")),
        _index("expire_at", {"expire_at": 1}, _exists("expire_at"), expireAfterSeconds=0),
    ],
    "usage": [
        _index("tenant", {"tenant": 1, "at": 1}),
        _index("recorded", {"recorded_at": 1, "at": 1}),  # which hours are to be summed again is seen here alone
        _index("corrects", {"corrects": 1}, _exists("corrects")),
        _index("untold", {"incarnation": 1}, _exists("untold")),
        _index(
            "batch_cost", {"batch_id": 1, "tenant": 1, "billed": 1, "cost_usd": 1}, {"batch_id": {"$type": "string"}}
        ),
    ],
    "usage_hourly": [_index("hour", {"hour": 1, "tenant": 1})],
    "usage_daily": [_index("day", {"day": 1, "tenant": 1})],
    "rollups": [],
    "workers": [
        _index("living", {"fenced": 1, "until": 1}),
        # An owner without a lease counts as fenced, so this changes nothing for its jobs; a day is for people to look at it.
        _index("fenced_at", {"fenced_at": 1}, _exists("fenced_at"), expireAfterSeconds=86_400),
    ],
    "quotas": [
        _index("looked_at_until", {"looked_at_until": 1}),
        _index("untold", {"untold": 1}, _exists("untold")),
        _index("expire_at", {"expire_at": 1}, expireAfterSeconds=0),
    ],
    "limits": [],
    "halts": [
        _index("kind", {"kind": 1}, _exists("kind")),
        _index("expire_at", {"expire_at": 1}, expireAfterSeconds=0),
    ],
    "batches": [
        _index("watch_at", {"watch_at": 1}, _exists("watch_at")),
        _index("limited", {"limited.at": 1}, _exists("limited")),
        _index("expire_at", {"expire_at": 1}, expireAfterSeconds=0),
    ],
}
"""The indexes of each collection besides `_id`, as the command `createIndexes` takes them."""

_TEXT = {"bsonType": "string"}
_TEXT_OR_NULL = {"bsonType": ["string", "null"]}
_COUNT = {"bsonType": ["int", "long"]}
_INSTANT = {"bsonType": "date"}
_YES_OR_NO = {"bsonType": "bool"}

USAGE_VALIDATOR: dict[str, Any] = {
    "$jsonSchema": {
        "bsonType": "object",
        "required": [
            *("_id", "at", "recorded_at", "tenant", "job_id", "generation", "priority", "operation", "provider"),
            *("cost_usd", "billed", "estimated", "incarnation"),
        ],
        "properties": {
            **dict.fromkeys(("_id", "tenant", "job_id", "priority", "operation", "provider", "incarnation"), _TEXT),
            **dict.fromkeys(("credential", "request_model", "outcome", "price_id", "corrects"), _TEXT),
            **dict.fromkeys(("batch_id", "response_model", "response_id", "request_id"), _TEXT_OR_NULL),
            **dict.fromkeys(("region", "service_tier"), _TEXT_OR_NULL),
            **dict.fromkeys(("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"), _COUNT),
            **dict.fromkeys(("output_tokens", "reasoning_output_tokens"), _COUNT),
            **dict.fromkeys(("generation", "queued_ms", "provider_ms"), _COUNT),
            **dict.fromkeys(("at", "recorded_at"), _INSTANT),
            **dict.fromkeys(("billed", "estimated"), _YES_OR_NO),
            "cost_usd": {"bsonType": "decimal"},
            "finish_reasons": {"bsonType": "array"},
            "tags": {"bsonType": "object"},
        },
    }
}
"""What a ledger row must look like: money is a decimal, never a double."""

RESULTS_VIEW: list[dict[str, Any]] = [
    {"$match": {"state": {"$in": [str(status) for status in Status]}}},
    {
        "$replaceWith": {
            "$mergeObjects": ["$result", {"_id": "$_id", "batch_id": "$batch_id", "expire_at": "$expire_at"}]
        }
    },
]
"""The pipeline of the view `results` on `jobs`: each result as on the wire, its `_id` being `<tenant>/<job id>`."""
