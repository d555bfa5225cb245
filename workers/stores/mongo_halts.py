"""The verbs of halts: scopes that are paused or cancelled, batches over a limit, and the jobs that wait for a batch to be resumed."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pymongo.errors import DuplicateKeyError

from broker.mongo import Document
from workers.stores.control import NEVER, PARKED, Halt, HaltKind
from workers.stores.mongo_control import ControlVerbs, not_after
from workers.stores.mongo_wire import answered, encode
from workers.stores.protocol import State

_PAST_PARKED = f"{PARKED[:-1]};"  # the next character after the colon
_UNCANCELLED: Document = {"cancel": {"$exists": False}}


_LIMITED: list[Document] = [
    # What the index on `limited.at` holds, said so that the planner sees it: a pipeline in a pipeline takes no hint.
    {"$match": {"limited": {"$exists": True}, "limited.at": {"$gte": datetime(1970, 1, 1, tzinfo=UTC)}}},
    {"$replaceWith": {"$mergeObjects": ["$limited", {"_id": "$_id", "seq": "$seq", "kind": HaltKind.LIMITED.value}]}},
]
HALTED: list[Document] = [
    {"$match": {"kind": {"$exists": True}}},
    {"$unionWith": {"coll": "batches", "pipeline": _LIMITED}},
]
"""One question, because every worker asks it every second."""


class HaltVerbs(ControlVerbs):
    """A small collection, read by every worker once a second."""

    async def halt(self, scope: str, kind: HaltKind | None, seq: int, *, reason: str = "") -> None:
        """Halt a scope, or let it go on; refused in silence after a control record >= `seq`."""
        fields: Document = {"seq": seq, "reason": reason}
        gone: Document = {"applied": 1}
        (gone if kind is None else fields)["kind"] = kind
        (gone if kind is HaltKind.PAUSED else fields)["expire_at"] = self.stub_expiry()
        update: Document = {"$set": fields, "$unset": gone, "$currentDate": {"at": True}}
        query = {"_id": scope, **not_after(seq)}
        with answered(self.timeout_s):
            try:
                await self.database["halts"].update_one(query, update, upsert=True)
            except DuplicateKeyError:  # handled before; or it was inserted between the look and the upsert
                await self.database["halts"].update_one(query, update)

    async def halts(self) -> list[Halt]:
        """Every scope that is halted now, batches that have passed a limit included."""
        return [_halt(found) for found in await self.aggregate("halts", HALTED, "kind")]

    async def apply(self, halt: Halt) -> None:
        """Let a batch's documents know of a halt; the same again goes on where an unknown outcome left it."""
        # What this leaves alone is what `Halt.meets` leaves alone.
        meant: Document = {"batch": halt.scope, "$or": [{"generation": 1}, {"arrived_at": {"$lt": halt.at}}]}
        if halt.kind is HaltKind.LIMITED:
            late = {**meant, "state": State.WAITING, "due_at": {"$gt": halt.at}}
            await self.update_many(late, {"$set": {"due_at": halt.at}, "$unset": {"wait_key": 1}})
            with answered(self.timeout_s):
                await self.batches.update_one({"_id": halt.scope, "seq": halt.seq}, {"$set": {"limited.applied": True}})
            return
        if halt.kind is HaltKind.PAUSED:
            due = {"batch": halt.scope, "state": State.WAITING, "due_at": {"$lte": halt.at}, **_UNCANCELLED}
            await self.update_many(due, {"$set": _parked(halt.scope)})
        else:
            going_on = {**meant, **_UNCANCELLED, "state": {"$in": [State.WAITING, State.CLAIMED]}}
            await self.update_many(going_on, {"$set": {"cancel": halt.reason}, "$currentDate": {"due_at": True}})
        with answered(self.timeout_s):
            await self.database["halts"].update_one({"_id": halt.scope, "seq": halt.seq}, {"$set": {"applied": True}})

    async def park(self, ids: Sequence[str], batch: str) -> int:
        """Have those of these waiting jobs that are of a paused batch and not cancelled wait for it."""
        query = {"_id": {"$in": list(ids)}, "state": State.WAITING, "batch": batch, **_UNCANCELLED}
        return await self._update_these(query, {"$set": _parked(batch)})

    async def parked(self) -> list[str]:
        """The batches that jobs wait for: one hop over the index for each."""
        found: list[str] = []
        last = PARKED
        while True:
            query = {"wait_key": {"$gt": last, "$lt": _PAST_PARKED}}
            options: Document = {"sort": [("wait_key", 1)], "limit": 1, "hint": "wait_key"}
            next_one = await self.find(query, {"_id": 0, "wait_key": 1}, **options)
            if not next_one:
                return found
            last = next_one[0]["wait_key"]
            found.append(last.removeprefix(PARKED))

    async def unpark(self, batch: str, limit: int) -> int:
        """Make up to `limit` of the jobs that wait for a batch due again, as of their arrival; return how many."""
        query: Document = {"wait_key": PARKED + batch}
        found = await self.find(query, {"_id": 1}, sort=[("due_at", 1)], limit=limit, hint="wait_key")
        query["_id"] = {"$in": [document["_id"] for document in found]}
        return await self._update_these(
            query, [{"$set": {"due_at": "$arrived_at", "why_waiting": "queued"}}, {"$unset": "wait_key"}]
        )

    async def _update_these(self, query: Document, update: Document | list[Document]) -> int:
        """Update jobs by their ids; left to itself, the planner looks through the whole batch for a few of it."""
        statement = encode({"q": query, "u": update, "multi": True, "hint": "_id_"})
        return (await self.write("update", "jobs", [statement])).matched if statement is not None else 0


def _parked(batch: str) -> Document:
    return {"due_at": NEVER, "why_waiting": HaltKind.PAUSED, "wait_key": PARKED + batch}


def _halt(found: Mapping[str, Any]) -> Halt:
    return Halt(
        scope=found["_id"],
        kind=HaltKind(found["kind"]),
        seq=found["seq"],
        reason=found["reason"],
        at=found["at"],
        applied=found.get("applied", False),
    )
