"""Prices a period of the ledger again: a row whose price was wrong gets a row beside it that corrects it, and is never changed itself.

A correction has its row's time, tenant, model and tags and no tokens of its own; its `cost_usd` is what has to be added, so it may be negative, and
every sum over the ledger is right with it. The second correction of a row corrects what both are together: done again, nothing is written.
"""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from broker import mongo
from broker.mongo import Database
from broker.prices import Prices
from broker.usage import ledger
from schemas.usage import COUNTS, Usage

Document = dict[str, Any]

_OWN = ("cost_usd", "price_id", "untold", *COUNTS)
_NOTHING = {**dict.fromkeys(COUNTS, 0), "queued_ms": 0, "provider_ms": 0, "held_tokens": 0, "quota_keys": []}


class Repriced(NamedTuple):
    """A row as it should be priced: what it costs now with its corrections, and what it should; None: no price is known."""

    row: Document
    number: int
    now: Decimal
    price_id: str | None
    should: Decimal | None

    @property
    def difference(self) -> Decimal:
        """What has to be added; 0 where no price is known."""
        return Decimal(0) if self.should is None else self.should - self.now


async def repriced(database: Database, prices: Prices, match: Mapping[str, Any]) -> AsyncIterator[Repriced]:
    """Every row that matches, with what it should cost by the price of its own instant."""
    corrections: dict[str, list[Decimal]] = {}
    async for found in database["usage"].find({**match, "corrects": {"$gt": ""}}, {"corrects": 1, "cost_usd": 1}):
        corrections.setdefault(found["corrects"], []).append(ledger.usd(found["cost_usd"]))
    async for row in database["usage"].find({**match, "corrects": {"$exists": False}}, batch_size=1_000):
        earlier = corrections.get(row["_id"], [])
        price = prices.resolve_at(row["at"], row["provider"], row["request_model"], row.get("service_tier"))
        counts = Usage.model_validate({name: row.get(name, 0) for name in COUNTS})
        yield Repriced(
            row,
            len(earlier) + 1,
            ledger.usd(row["cost_usd"]) + sum(earlier, Decimal(0)),
            price.id if price else None,
            price.cost(counts) if price else None,
        )


def correction(found: Repriced, author: str, now: datetime) -> Document:
    """The row that corrects one; `author` stands for the process, and no worker has it: workers tell its event as a dead one's.

    The key ends with the correction's number, so of two that are made at once the second is refused.
    """
    kept = {name: value for name, value in found.row.items() if name not in _OWN}
    return {
        **kept,
        **_NOTHING,
        "_id": f"{found.row['_id']}~{found.number}",
        "corrects": found.row["_id"],
        "recorded_at": now.astimezone(UTC),
        "cost_usd": mongo.exact(found.difference),
        "price_id": found.price_id,
        "incarnation": author,
        "untold": True,
    }
