"""The ledger as it is read in bulk: periods by an index that begins with the tenant, rows as what an invoice can be compared with."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from broker.mongo import Database
from schemas.usage import COUNTS

Document = dict[str, Any]


class Scope(NamedTuple):
    """Which rows are meant besides their time; None is all."""

    provider: str | None = None
    credential: str | None = None

    def match(self) -> Document:
        """The filter that says the same."""
        return {name: value for name, value in self._asdict().items() if value is not None}


async def tenants(database: Database) -> list[str]:
    """Everybody who has rows, by hops over the index: with them a period of everybody's is found without an index of its own."""
    found: list[str] = []
    while True:
        after = {"tenant": {"$gt": found[-1]}} if found else {}
        row = await database["usage"].find_one(after, {"_id": 0, "tenant": 1}, sort=[("tenant", 1)])
        if row is None:
            return found
        found.append(row["tenant"])


def within(everybody: Sequence[str], since: datetime, until: datetime) -> Document:
    """The rows from an instant, inclusive, to another, exclusive."""
    return {"tenant": {"$in": list(everybody)}, "at": {"$gte": since, "$lt": until}}


class Row(NamedTuple):
    """A call as the ledger knows it, with what corrects it added in."""

    id: str
    response_id: str | None
    at: datetime
    models: frozenset[str]
    counts: Mapping[str, int]
    cost: Decimal
    estimated: bool


_COMPARED = {
    **dict.fromkeys(("response_id", "request_model", "response_model", "at", "cost_usd", "estimated"), 1),
    **dict.fromkeys(COUNTS, 1),
}
_AT_ONCE = 1_000


async def rows_within(database: Database, scope: Scope, since: datetime, until: datetime) -> AsyncIterator[Row]:
    """Every row of a period, in no order."""
    async for row in _rows(database, {**within(await tenants(database), since, until), **scope.match()}):
        yield row


async def rows_named(database: Database, ids: Sequence[str]) -> AsyncIterator[Row]:
    """The rows with these keys."""
    for first in range(0, len(ids), _AT_ONCE):
        some = ids[first : first + _AT_ONCE]
        async for row in _rows(database, {"_id": {"$in": some}}, {"corrects": {"$in": some}}):
            yield row


async def _rows(database: Database, match: Document, of_corrections: Document | None = None) -> AsyncIterator[Row]:
    """Rows, each with its corrections, which stand at the same time as it does."""
    corrections: dict[str, Decimal] = {}
    query = {"corrects": {"$gt": ""}, **(of_corrections or match)}
    async for found in database["usage"].find(query, {"corrects": 1, "cost_usd": 1}, batch_size=_AT_ONCE):
        corrections[found["corrects"]] = corrections.get(found["corrects"], Decimal(0)) + usd(found["cost_usd"])
    query = {**match, "corrects": {"$exists": False}}
    async for found in database["usage"].find(query, _COMPARED, batch_size=_AT_ONCE):
        yield row_of(found, corrections.get(found["_id"], Decimal(0)))


def row_of(document: Mapping[str, Any], correction: Decimal = Decimal(0)) -> Row:
    """A document of the ledger, and what its corrections add to it."""
    models = (document.get("response_model"), document.get("request_model"))
    return Row(
        document["_id"],
        document.get("response_id"),
        document["at"],
        frozenset(model for model in models if model),
        {name: document.get(name, 0) for name in COUNTS},
        usd(document["cost_usd"]) + correction,
        document["estimated"],
    )


async def sums_within(database: Database, scope: Scope, since: datetime, until: datetime) -> list[Document]:
    """Calls, tokens and dollars of a period by model and credential; what is estimated stands apart."""
    known = {"$cond": ["$estimated", 0, 1]}
    call = {"$cond": [{"$gt": ["$corrects", None]}, 0, known]}  # a correction is no call
    sums: Document = {
        "calls": {"$sum": call},
        **{name: {"$sum": {"$cond": ["$estimated", 0, f"${name}"]}} for name in COUNTS},
        "cost_usd": {"$sum": {"$cond": ["$estimated", 0, "$cost_usd"]}},
        "estimated_calls": {"$sum": {"$cond": ["$estimated", 1, 0]}},
        "estimated_usd": {"$sum": {"$cond": ["$estimated", "$cost_usd", 0]}},
    }
    key = {"model": {"$ifNull": ["$response_model", "$request_model"]}, "credential": "$credential"}
    match = {**within(await tenants(database), since, until), **scope.match()}
    pipeline = [{"$match": match}, {"$group": {"_id": key, **sums}}]
    return [found async for found in await database["usage"].aggregate(pipeline, allowDiskUse=True)]


async def ids_of(
    database: Database, scope: Scope, span: tuple[datetime, datetime], *, model: str | None, limit: int
) -> list[str]:
    """The keys of some rows behind a sum."""
    match = {**within(await tenants(database), *span), **scope.match(), "estimated": False}
    if model is not None:
        match["$expr"] = {"$eq": [{"$ifNull": ["$response_model", "$request_model"]}, model]}
    return [row["_id"] async for row in database["usage"].find(match, {"_id": 1}, limit=limit)]


def usd(value: object) -> Decimal:
    """The exact amount of what a row or a sum holds: a decimal of the database's or of ours, or 0."""
    to_decimal: Callable[[], Decimal] | None = getattr(value, "to_decimal", None)
    return to_decimal() if to_decimal else Decimal(str(value))
