"""The verbs of a job on its way: inserted, read, merged, taken up, taken, put back; each as the protocol's table has it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument

from broker.mongo import Document
from workers.stores import mongo_documents as documents
from workers.stores.mongo_wire import DUPLICATE_KEY, Connection, answered, encode
from workers.stores.protocol import (
    Claim,
    Fate,
    Insertion,
    Known,
    NewJob,
    State,
    StoreUnknownError,
    Waiting,
)


class JobVerbs(Connection):
    """From the insert to the last `wait`; finishing is `mongo_finished.py`."""

    async def insert(self, jobs: Sequence[NewJob]) -> list[Insertion]:
        """Insert, unordered; one outcome a job, in order; what cannot be encoded or stored is REFUSED alone."""
        outcomes = [Insertion.REFUSED] * len(jobs)
        encoded = [encode(documents.new_document(job, self.owner)) for job in jobs]
        sent = [index for index, document in enumerate(encoded) if document is not None]
        written = await self.write("insert", "jobs", [document for document in encoded if document is not None])
        for place, index in enumerate(sent):
            outcomes[index] = insertion(written.errors.get(place))
        return outcomes

    async def read(self, ids: Sequence[str]) -> dict[str, Known]:
        """Majority read; an absent id is not in the answer."""
        found = await self.find({"_id": {"$in": list(ids)}}, documents.KNOWN_FIELDS)
        return {document["_id"]: documents.known(document) for document in found}

    async def merge(self, job: NewJob) -> Claim | None:
        """Make a stub a job, claimed by us; a job with `due_at` waits instead, and the answer is None as for what is no stub."""
        with answered(self.timeout_s):
            document = await self.jobs.find_one_and_update(
                {"_id": job.id, "state": State.ANNOUNCED},
                documents.merge_pipeline(job, self.owner),
                projection=documents.CLAIM_FIELDS,
                return_document=ReturnDocument.AFTER,
            )
        return documents.claim(document) if document and job.due_at is None else None

    async def adopt(self, id: str, fence: int) -> Claim | None:  # noqa: A002 the document's own word
        """Take up what is claimed by us under `fence` by a CAS that raises the fence; None: look again later."""
        with answered(self.timeout_s):
            document = await self.jobs.find_one_and_update(
                {"_id": id, "state": State.CLAIMED, "owner": self.owner, "fence": fence},
                {"$inc": {"fence": 1}},
                projection=documents.CLAIM_FIELDS,
                return_document=ReturnDocument.AFTER,
            )
        return documents.claim(document) if document else None

    async def unheld(self, limit: int) -> list[tuple[str, int]]:
        """(id, fence) of up to `limit` documents claimed by us."""
        found = await self.find({"state": State.CLAIMED, "owner": self.owner}, {"fence": 1}, limit=limit)
        return [(document["_id"], document["fence"]) for document in found]

    async def any_due(self, now: datetime) -> bool:
        """Whether any waiting job is due."""
        query = {"state": State.WAITING, "due_at": {"$lte": now}}
        return bool(await self.find(query, {"_id": 0, "due_at": 1}, limit=1, hint="any_due"))

    async def due_tenants(self, priority: str, now: datetime) -> list[str]:
        """Tenants with waiting jobs that are due: one hop over the index for each tenant that has waiting jobs."""
        tenants: list[str] = []
        last = ""
        while True:
            earliest = await self.find(
                {"state": State.WAITING, "priority": priority, "tenant": {"$gt": last}},
                {"_id": 0, "tenant": 1, "due_at": 1},
                sort=[("tenant", 1), ("due_at", 1)],
                limit=1,
                hint="waiting",
            )
            if not earliest:
                return tenants
            last = earliest[0]["tenant"]
            if earliest[0]["due_at"] <= now:
                tenants.append(last)

    async def due(self, priority: str, tenant: str, now: datetime, limit: int) -> list[str]:
        """Ids of waiting jobs that are due, oldest first."""
        query = {"state": State.WAITING, "priority": priority, "tenant": tenant, "due_at": {"$lte": now}}
        found = await self.find(query, {"_id": 1}, sort=[("due_at", 1)], limit=limit, hint="waiting")
        return [document["_id"] for document in found]

    async def take(self, ids: Sequence[str], token: str, now: datetime) -> list[Claim]:
        """Claim those that still wait and are due, then read them back by the token.

        When the update's outcome is unknown, what is there is read back once; the audit finds what comes later.
        """
        query = {"_id": {"$in": list(ids)}, "state": State.WAITING, "due_at": {"$lte": now}}
        changed = {"state": State.CLAIMED, "owner": self.owner, "token": token}
        gone = {"why_waiting": 1, "wait_key": 1}
        try:
            if not await self.update_many(query, {"$set": changed, "$unset": gone, "$inc": {"fence": 1}}):
                return []
        except StoreUnknownError:
            pass
        mine = {"_id": {"$in": list(ids)}, "token": token, "owner": self.owner}
        return [documents.claim(document) for document in await self.find(mine, documents.CLAIM_FIELDS)]

    async def mark_called(self, id: str, fence: int) -> Fate:  # noqa: A002 the document's own word
        """Note that a call may have started; DONE or FENCED."""
        with answered(self.timeout_s):
            result = await self.jobs.update_one(
                {"_id": id, "state": State.CLAIMED, "owner": self.owner, "fence": fence}, {"$set": {"called": True}}
            )
        return Fate.DONE if result.matched_count else Fate.FENCED

    async def wait(self, jobs: Sequence[Waiting]) -> list[Fate]:
        """Put claimed jobs back; one fate a job."""
        return await self.compare_and_set(jobs, lambda job: documents.wait_statement(job, self.owner), self._waited)

    async def release(self, wait_key: str, limit: int) -> int:
        """Make up to `limit` of the jobs that wait on this key due now, oldest first; return how many."""
        query: Document = {"wait_key": wait_key, "state": State.WAITING}
        found = await self.find(query, {"_id": 1}, sort=[("due_at", 1)], limit=limit, hint="wait_key")
        query["_id"] = {"$in": [document["_id"] for document in found]}
        return await self.update_many(query, {"$currentDate": {"due_at": True}, "$unset": {"wait_key": 1}})

    def _waited(self, job: Waiting, stored: Mapping[str, Any]) -> Fate:
        if stored.get("state") == State.CLAIMED and self.holds(stored, job.fence):
            return Fate.MARKED if "cancel" in stored else Fate.AGAIN
        # An earlier try of ours was executed; a sweep would have left its own reason.
        waits = (State.WAITING, None, job.fence, job.why_waiting)
        return Fate.DONE if tuple(map(stored.get, ("state", "owner", "fence", "why_waiting"))) == waits else Fate.FENCED


def insertion(code: int | None) -> Insertion:
    """What the code that refused an insert, or None, says of it."""
    if code is None:
        return Insertion.INSERTED
    return Insertion.DUPLICATE if code == DUPLICATE_KEY else Insertion.REFUSED
