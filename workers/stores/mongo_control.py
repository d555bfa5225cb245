"""The verbs of control and of counting: reply addresses, cancels, seals; a job that has not arrived yet gets a stub."""

from datetime import UTC, datetime, timedelta

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from broker.mongo import Database, Document
from workers.stores import mongo_documents as documents
from workers.stores.mongo_wire import Connection, answered
from workers.stores.protocol import Address, Backlog, Seal, State

_RACES = 3


class ControlVerbs(Connection):
    """Marks on a job, each handled once by its record's offset."""

    def __init__(
        self, database: Database, owner: str, timeout_s: float = 10.0, stub_expire_s: float = 604_800.0
    ) -> None:
        """A stub whose job never comes is kept for `stub_expire_s` seconds."""
        super().__init__(database, owner, timeout_s)
        self._stub_expire = timedelta(seconds=stub_expire_s)

    async def add_reply(self, id: str, address: Address, token: str) -> bool:  # noqa: A002 the document's own word
        """Add an address to a job or a stub; True: the job is terminal, and its result has to be published."""
        pipeline = documents.reply_pipeline(address, token, self._stub_expiry())
        with answered(self.timeout_s):
            for race in range(_RACES):
                try:
                    document = await self.jobs.find_one_and_update(
                        {"_id": id}, pipeline, {"state": 1}, upsert=True, return_document=ReturnDocument.AFTER
                    )
                    return bool(document and document["state"] in documents.TERMINAL)
                except DuplicateKeyError:  # it was inserted between the look and the upsert: now it is there
                    if race == _RACES - 1:
                        raise
        raise AssertionError  # the last race returns or raises

    async def cancel(self, id: str, seq: int, reason: str) -> None:  # noqa: A002 the document's own word
        """Mark a job, or a stub, as cancelled and make it due now; refused in silence after a control record >= `seq`."""
        query = {"_id": id, "control_seq": {"$not": {"$gte": seq}}}
        stub: Document = {
            "state": State.ANNOUNCED,
            "fence": 0,
            "generation": 1,
            "replies": [],
            "replies_n": 0,
            "expire_at": self._stub_expiry(),
        }
        mark: Document = {"$set": {"cancel": reason, "control_seq": seq}, "$currentDate": {"due_at": True}}
        with answered(self.timeout_s):
            try:
                await self.jobs.update_one(query, {**mark, "$setOnInsert": stub}, upsert=True)
            except DuplicateKeyError:  # handled before; or it was inserted between the look and the upsert
                await self.jobs.update_one(query, mark)

    async def cancelled(self) -> list[tuple[str, str]]:
        """(id, reason) of jobs claimed by us that carry a cancel."""
        query = {"owner": self.owner, "state": State.CLAIMED, "cancel": {"$exists": True}}
        return [(job["_id"], job["cancel"]) for job in await self.find(query, {"cancel": 1}, hint="cancelled")]

    async def seal(self, seal: Seal) -> None:
        """Keep that a batch is complete; refused in silence after a record >= its `seq`."""
        query = {"_id": seal.id, "seq": {"$not": {"$gte": seal.seq}}}
        fields: Document = {
            "tenant": seal.tenant,
            "batch_id": seal.batch_id,
            "total": seal.total,
            "reply": documents.address_document(seal.reply) if seal.reply else None,
            "seq": seal.seq,
        }
        with answered(self.timeout_s):
            try:
                await self.batches.update_one(query, {"$set": fields}, upsert=True)
            except DuplicateKeyError:
                await self.batches.update_one(query, {"$set": fields})

    async def waiting(self, priority: str, limit: int) -> Backlog:
        """What waits in this priority, looked at up to `limit` documents; by the command itself, because the drivers' methods differ."""
        pipeline: list[Document] = [
            {"$match": {"state": State.WAITING, "priority": priority}},
            {"$limit": limit},
            {"$group": {"_id": None, "documents": {"$sum": 1}, "due_at": {"$min": "$due_at"}}},
        ]
        command: Document = {"aggregate": "jobs", "pipeline": pipeline, "cursor": {}, "hint": "due"}
        command["readConcern"] = {"level": "majority"}
        with answered(self.timeout_s):
            reply = await self.database.command(command, codec_options=self.database.codec_options)
        found = reply["cursor"]["firstBatch"]
        return Backlog(found[0]["documents"], found[0]["due_at"]) if found else Backlog()

    def _stub_expiry(self) -> datetime:
        return datetime.now(UTC) + self._stub_expire
