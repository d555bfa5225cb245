"""The verbs of control on single jobs, of reply addresses and of counting; a job that has not arrived yet gets a stub."""

from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from broker.mongo import Database, Document
from schemas.codes import Code
from workers.stores import mongo_documents as documents
from workers.stores.mongo_wire import Connection, answered
from workers.stores.protocol import Address, Backlog, State, StoreUnknownError

_RACES = 3
_ENDED: Document = {"state": {"$in": documents.TERMINAL}}
_CAN_RUN_AGAIN: Document = {**_ENDED, "outbox": {"$exists": False}, "payload": {"$exists": True}}
_OF_A_GENERATION = (
    *("result", "row", "cancel", "called", "expire_at", "finished_at", "wait_key", "token", "rerun", "last_failure"),
    "deadline",
)
_NEXT_GENERATION: Document = {
    "$inc": {"generation": 1},
    "$set": {"state": State.WAITING, "owner": None, "why_waiting": "rerun", "takeovers": 0, "attempts": 0},
    "$currentDate": {"due_at": True, "arrived_at": True},
    "$unset": dict.fromkeys(_OF_A_GENERATION, 1),
}
"""What a rerun does to a document: everything anew but its fence, because (owner, fence) never comes back."""


class ControlVerbs(Connection):
    """Marks on a job, each handled once by its record's offset."""

    def __init__(
        self, database: Database, owner: str, timeout_s: float = 10.0, stub_expire_s: float = 604_800.0
    ) -> None:
        """A stub whose job never comes, and a halt that is over, is kept for `stub_expire_s` seconds."""
        super().__init__(database, owner, timeout_s)
        self._stub_expire = timedelta(seconds=stub_expire_s)

    async def add_reply(self, id: str, address: Address, token: str) -> bool:  # noqa: A002 the document's own word
        """Add an address to a job or a stub; True: the job is terminal, and its result has to be published."""
        pipeline = documents.reply_pipeline(address, token, self.stub_expiry())
        document = await self._upserted({"_id": id}, pipeline)
        return document is not None and document["state"] in documents.TERMINAL

    async def cancel(self, job: str, seq: int, reason: str) -> Code | None:
        """Mark a job, or a stub, as cancelled and make it due now; the code tells that it has ended."""
        pipeline = documents.cancel_pipeline(seq, reason, self.stub_expiry())
        document = await self._upserted({"_id": job, **not_after(seq, "control_seq")}, pipeline)
        ended = document is not None and document["state"] in documents.TERMINAL
        return Code.ALREADY_ENDED if ended else None

    async def _upserted(self, query: Document, pipeline: list[Document]) -> Document | None:
        """The document's state after the update; None where the query refuses a document that is there."""
        with answered(self.timeout_s):
            for _ in range(_RACES):
                try:
                    return await self.jobs.find_one_and_update(
                        query, pipeline, {"state": 1}, upsert=True, return_document=ReturnDocument.AFTER
                    )
                except DuplicateKeyError:  # refused; or it was inserted between the look and the upsert
                    continue
        return None

    async def cancelled(self) -> list[tuple[str, str]]:
        """(id, reason) of jobs claimed by us that carry a cancel."""
        query = {"owner": self.owner, "state": State.CLAIMED, "cancel": {"$exists": True}}
        return [(job["_id"], job["cancel"]) for job in await self.find(query, {"cancel": 1}, hint="cancelled")]

    async def cancelled_waiting(self, limit: int) -> list[str]:
        """Ids of up to `limit` waiting jobs that carry a cancel."""
        query = {"owner": None, "state": State.WAITING, "cancel": {"$exists": True}}
        return [job["_id"] for job in await self.find(query, {"_id": 1}, hint="cancelled", limit=limit)]

    async def overdue(self, now: datetime, limit: int) -> list[str]:
        """Ids of up to `limit` waiting jobs whose deadline has passed, made due now if they were not."""
        query = {"state": State.WAITING, "deadline": {"$lte": now}}
        found = await self.find(query, {"due_at": 1}, sort=[("deadline", 1)], limit=limit, hint="deadline")
        later = [job["_id"] for job in found if job["due_at"] > now]
        if later:
            waiting = {"_id": {"$in": later}, "state": State.WAITING, "due_at": {"$gt": now}}
            await self.update_many(waiting, {"$set": {"due_at": now}})
        return [job["_id"] for job in found]

    async def rerun(self, job: str, seq: int) -> Code | None:
        """Start the next generation of a job that has ended without success, or keep the wish until its result is out."""
        mine = {"_id": job, **not_after(seq, "control_seq")}
        now = {**_NEXT_GENERATION, "$set": {**_NEXT_GENERATION["$set"], "control_seq": seq}}
        later = {**_CAN_RUN_AGAIN, "outbox": {"$exists": True}}
        with answered(self.timeout_s):
            for _ in range(_RACES):  # its result may get out, or be asked for again, between the writes
                if (await self.jobs.update_one({**mine, **_CAN_RUN_AGAIN}, now)).matched_count:
                    return None
                wish = {"$set": {"control_seq": seq, "rerun": True}}
                if (await self.jobs.update_one({**mine, **later}, wish)).matched_count:
                    return None
        found = await self.find({"_id": job}, {"state": 1, "control_seq": 1, "payload": {"$type": "$payload"}})
        return _why_not(found[0] if found else {"state": State.ANNOUNCED}, seq)

    async def rerun_published(self) -> int:
        """Start the next generation of jobs that were to be run again as soon as their results are out."""
        return await self.update_many({"rerun": True, **_CAN_RUN_AGAIN}, _NEXT_GENERATION)

    async def waiting(self, priority: str, limit: int) -> Backlog:
        """What waits in this priority, looked at up to `limit` documents."""
        pipeline: list[Document] = [
            {"$match": {"state": State.WAITING, "priority": priority}},
            {"$limit": limit},
            {
                "$group": {
                    "_id": None,
                    "documents": {"$sum": 1},
                    "due_at": {"$min": "$due_at"},
                    "bytes": {"$sum": {"$toLong": "$size"}},
                }
            },
        ]
        found = await self.aggregate("jobs", pipeline, "waiting")
        return Backlog(found[0]["documents"], found[0]["due_at"], found[0]["bytes"]) if found else Backlog()

    def stub_expiry(self) -> datetime:
        """Until when what may never be needed is kept."""
        return datetime.now(UTC) + self._stub_expire


def not_after(seq: int, name: str = "seq") -> Document:
    """The condition that no control record from this offset on was handled before."""
    return {name: {"$not": {"$gte": seq}}}


def _why_not(stored: dict[str, Any], seq: int) -> Code | None:
    """Why a job is not run again; None where this record, or a later one, was handled before."""
    if stored["state"] == State.ANNOUNCED:
        return Code.UNKNOWN_JOB
    if stored.get("control_seq", -1) >= seq:
        return None
    if stored["state"] not in documents.TERMINAL:
        return Code.NOT_ENDED
    if stored["payload"] != "missing":
        raise StoreUnknownError("its result gets out, or is asked for, again and again")
    return Code.ALREADY_SUCCEEDED
