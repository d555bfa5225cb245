"""The verbs of a job after its outcome is frozen: finished, on the ledger, published, and its outbox cleared."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from broker.mongo import Document
from workers.stores import mongo_documents as documents
from workers.stores.mongo_jobs import insertion
from workers.stores.mongo_wire import Connection, answered, encode, encoded_row
from workers.stores.protocol import Fate, Finish, Insertion, Published, State, Unpublished


class FinishedVerbs(Connection):
    """From the finish to the cleared outbox."""

    async def finish(self, jobs: Sequence[Finish], token: str) -> list[Fate]:
        """Finish claimed jobs by CAS on (owner, fence), outbox = token; one fate a job."""
        return await self.compare_and_set(jobs, lambda job: self._finish_statement(job, token), self._finished)

    async def ledger(self, rows: Sequence[Mapping[str, Any]]) -> list[Insertion]:
        """Insert rows by their `_id`; DUPLICATE is done, too, and REFUSED what the ledger does not take."""
        outcomes = [Insertion.REFUSED] * len(rows)
        encoded = [(index, encoded_row(row)) for index, row in enumerate(rows)]
        sent = [(index, document) for index, document in encoded if document is not None]
        written = await self.write("insert", "usage", [document for _, document in sent])
        for place, (index, _) in enumerate(sent):
            outcomes[index] = insertion(written.errors.get(place))
        return outcomes

    async def untold(self, limit: int, *, of_the_dead: bool) -> list[Document]:
        """Rows with the mark `untold`, without it: our own, or those of incarnations that are fenced or have no lease."""
        query: Document = {"untold": {"$exists": True}, "incarnation": self.owner}
        with answered(self.timeout_s):
            if of_the_dead:  # who starts after this look has its rows told twice at worst
                leases = await self.workers.find({"fenced": {"$exists": False}}, {"_id": 1}).to_list(None)
                query["incarnation"] = {"$nin": [lease["_id"] for lease in leases]}
            usage = self.database.get_collection("usage")
            return await usage.find(query, {"untold": 0}, limit=limit, hint="untold").to_list(None)

    async def told(self, ids: Sequence[str]) -> None:
        """Take the mark of these rows away: their events are acknowledged."""
        statement = encode({"q": {"_id": {"$in": list(ids)}}, "u": {"$unset": {"untold": 1}}, "multi": True})
        await self.write("update", "usage", [] if statement is None else [statement])

    async def unpublished(self, limit: int, *, of_the_dead: bool) -> list[Unpublished]:
        """Finished documents with an outbox: our own, or those of owners that are fenced or have no lease."""
        with_outbox: Document = {"outbox": {"$exists": True}}
        owners = [self.owner]
        if of_the_dead:
            owners = await self.the_dead(await self.owners(with_outbox, "outbox"))
        query = {**with_outbox, "owner": {"$in": owners}}
        found = await self.find(query, documents.UNPUBLISHED_FIELDS, limit=limit, hint="outbox") if owners else []
        return [documents.unpublished(document) for document in found]

    async def outboxes(self, ids: Sequence[str]) -> list[Unpublished]:
        """The same for these ids, whoever owns them; ids without an outbox are not in the answer."""
        query = {"_id": {"$in": list(ids)}, "outbox": {"$exists": True}}
        return [documents.unpublished(document) for document in await self.find(query, documents.UNPUBLISHED_FIELDS)]

    async def published(self, done: Sequence[Published], expire_at: datetime) -> list[str]:
        """Clear outboxes and set `expire_at`; ids of those that have to be published again, because a reply address came."""
        statements = [encode(statement) for statement in documents.clear_statements(done, expire_at)]
        written = await self.write("update", "jobs", [statement for statement in statements if statement is not None])
        if written.matched == len(done):
            return []
        found = await self.find({"_id": {"$in": [one.id for one in done]}}, {"outbox": 1})
        tokens = {document["_id"]: document.get("outbox") for document in found}
        return [one.id for one in done if tokens.get(one.id) == one.token]

    def _finish_statement(self, job: Finish, token: str) -> Document:
        row: Mapping[str, Any] | None = encoded_row(job.row) if job.row is not None else None
        return documents.finish_statement(job, self.owner, token, job.row if row is None else row)

    def _finished(self, job: Finish, stored: Mapping[str, Any]) -> Fate:
        if not self.holds(stored, job.fence):
            return Fate.FENCED
        return Fate.AGAIN if stored["state"] == State.CLAIMED else Fate.DONE
