"""The verbs of sealed batches: whose turn it is to be looked at, what has become of its jobs, and its completion event."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from bson.decimal128 import Decimal128
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from broker.mongo import Document
from schemas.codes import Code
from workers.stores import mongo_documents as documents
from workers.stores.control import Seal, Sealed
from workers.stores.mongo_control import ControlVerbs, not_after
from workers.stores.mongo_wire import answered
from workers.stores.protocol import Address

KEPT = timedelta(days=60)
"""How long a seal is kept at most, its jobs ended or not."""


class BatchVerbs(ControlVerbs):
    """A document a batch; what it says of a seal is written under that seal's offset only."""

    async def seal(self, seal: Seal) -> Code | None:
        """Keep that a batch is complete, and have it looked at; the code tells that more jobs than `total` have arrived."""
        query = {"_id": seal.id, **not_after(seal.seq)}
        update: Document = {
            "$set": {**_fields(seal), "expire_at": datetime.now(UTC) + KEPT},
            "$unset": dict.fromkeys(("limited", "event", "ended", "pause_s"), 1),
            "$currentDate": {"watch_at": True},
        }
        with answered(self.timeout_s):
            if await self.batches.find_one({"_id": seal.id, "seq": {"$gte": seal.seq}}, {"_id": 1}):
                return None
            arrived = await self.jobs.count_documents({"batch": seal.id}, limit=seal.total + 1, hint="batch")
            if arrived > seal.total:
                return Code.TOTAL_TOO_SMALL
            try:
                await self.batches.update_one(query, update, upsert=True)
            except DuplicateKeyError:  # handled before; or it was inserted between the look and the upsert
                await self.batches.update_one(query, update)
        return None

    async def look(self, now: datetime, again_at: datetime) -> Sealed | None:
        """A sealed batch that is to be looked at by `now`; nobody else is given it before `again_at`."""
        with answered(self.timeout_s):
            found = await self.batches.find_one_and_update(
                {"watch_at": {"$lte": now}},
                {"$set": {"watch_at": again_at}},
                sort=[("watch_at", 1)],
                hint="watch_at",
                return_document=ReturnDocument.BEFORE,
            )
        return _sealed(found) if found else None

    async def counts(self, batch: str) -> dict[str, int]:
        """How many jobs of a batch are in which state, by the index alone."""
        groups = await self._groups("jobs", {"batch": batch}, {"_id": "$state", "jobs": {"$sum": 1}}, "batch")
        return {group["_id"]: group["jobs"] for group in groups}

    async def any_unpublished(self, batch: str) -> bool:
        """Whether any finished job of a batch has an outbox; there are few of these at any time, so that their index is the shorter way."""
        query = {"outbox": {"$exists": True}, "batch": batch}
        return bool(await self.find(query, {"_id": 1}, limit=1, hint="outbox"))

    async def billed(self, tenant: str, batch_id: str) -> Decimal:
        """What a batch has cost its tenant, in dollars, by the index alone."""
        # The second condition says to the planner that the index, which holds only texts, will do.
        texts = [{"batch_id": {"$type": "string"}}]
        match = {"batch_id": batch_id, "tenant": tenant, "billed": True, "$and": texts}
        found = await self._groups("usage", match, {"_id": None, "usd": {"$sum": "$cost_usd"}}, "batch_cost")
        usd: Any = found[0]["usd"] if found else 0
        return usd.to_decimal() if isinstance(usd, Decimal128) else Decimal(usd)

    async def limit(self, seal: Seal, sentence: str) -> None:
        """Keep that a batch has passed a limit of this seal."""
        query = {"_id": seal.id, "seq": seal.seq, "limited": {"$exists": False}}
        with answered(self.timeout_s):
            await self.batches.update_one(
                query, {"$set": {"limited.reason": sentence}, "$currentDate": {"limited.at": True}}
            )

    async def complete(self, seal: Seal, event: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Freeze the completion event; the answer is the one that is kept, or None where a later seal came."""
        mine = {"_id": seal.id, "seq": seal.seq}
        with answered(self.timeout_s):
            await self.batches.update_one({**mine, "event": {"$exists": False}}, {"$set": {"event": dict(event)}})
            kept = await self.batches.find_one(mine, {"event": 1})
        return kept["event"] if kept else None

    async def watch(self, sealed: Sealed, at: datetime) -> None:
        """Have a batch looked at again at `at`, remembering what this look saw."""
        seen = {"watch_at": at, "ended": sealed.ended, "pause_s": sealed.pause_s}
        with answered(self.timeout_s):
            await self.batches.update_one({"_id": sealed.seal.id, "seq": sealed.seal.seq}, {"$set": seen})

    async def unwatch(self, seal: Seal) -> None:
        """Nothing is left to be done for this seal."""
        changed = {"$unset": {"watch_at": 1}, "$set": {"expire_at": self.stub_expiry()}}
        with answered(self.timeout_s):
            await self.batches.update_one({"_id": seal.id, "seq": seal.seq}, changed)

    async def _groups(self, collection: str, match: Document, group: Document, index: str) -> list[Document]:
        """The few groups of a covered aggregation."""
        return await self.aggregate(collection, [{"$match": match}, {"$group": group}], index)


def _fields(seal: Seal) -> Document:
    cost = seal.max_cost_usd
    return {
        "tenant": seal.tenant,
        "batch_id": seal.batch_id,
        "total": seal.total,
        "reply": documents.address_document(seal.reply) if seal.reply else None,
        "seq": seal.seq,
        "max_cost_usd": Decimal128(cost) if cost is not None else None,
        "max_errors": seal.max_errors,
        "max_error_rate": seal.max_error_rate,
    }


def _sealed(found: Mapping[str, Any]) -> Sealed:
    reply, cost = found["reply"], found["max_cost_usd"]
    seal = Seal(
        id=found["_id"],
        tenant=found["tenant"],
        batch_id=found["batch_id"],
        total=found["total"],
        reply=Address(reply["topic"], reply["partition"]) if reply else None,
        seq=found["seq"],
        max_cost_usd=cost.to_decimal() if cost is not None else None,
        max_errors=found["max_errors"],
        max_error_rate=found["max_error_rate"],
    )
    limited = found["limited"]["reason"] if "limited" in found else None
    return Sealed(seal, limited, found.get("event"), found.get("ended", -1), found.get("pause_s", 0.0))
