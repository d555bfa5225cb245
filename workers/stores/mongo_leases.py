"""The verbs of leases: an incarnation's sign of life by the server's clock, and what becomes of the jobs of the dead."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from broker.mongo import Document, prepare
from workers.stores.mongo_wire import Connection, answered
from workers.stores.protocol import Lease, Standing, State, StoreUnknownError

_RENEWAL_S = (0.5, 5.0)
_RENEWAL_SHARE = 6  # of the lease: with a period of a third, a gap is half of it
_LIVING: Document = {"fenced": {"$exists": False}}


class LeaseVerbs(Connection):
    """Death is declared in one place, `fence`, and acted upon in one, `sweep`."""

    async def start(self, lease_s: float, facts: dict[str, Any]) -> None:
        """Make indexes, insert our lease and set its end by the server's clock; claims may begin after it.

        Raises:
            MongoMissing: the collections cannot be made.
            StoreUnknownError: also when our lease was fenced before it began.
        """
        await prepare(self.database)
        with answered(self.timeout_s), suppress(DuplicateKeyError):  # an earlier try of ours, its answer lost
            await self.workers.insert_one({**facts, "_id": self.owner})
        if await self.renew(lease_s) is Standing.FENCED:
            raise StoreUnknownError(f"the lease of {self.owner} was fenced before it began")

    async def renew(self, lease_s: float, told: Mapping[str, Any] | None = None) -> Standing:
        """Prolong our lease and say how we stand; FENCED: nothing was written."""
        until = {"$dateAdd": {"startDate": "$$NOW", "unit": "millisecond", "amount": int(lease_s * 1_000)}}
        changed: Document = {"until": until}
        if told is not None:
            changed["told"] = {"$mergeObjects": [{"$literal": dict(told)}, {"at": "$$NOW"}]}
        shortest, longest = _RENEWAL_S
        with answered(min(max(shortest, lease_s / _RENEWAL_SHARE), longest, self.timeout_s)):
            row = await self.workers.find_one_and_update(
                {"_id": self.owner, **_LIVING},
                [{"$set": changed}],
                projection={"drain": 1},
                return_document=ReturnDocument.AFTER,
            )
        if row is None:
            return Standing.FENCED
        return Standing.DRAINING if "drain" in row else Standing.LIVING

    async def expired_leases(self) -> list[Lease]:
        """Leases of others, not fenced, that the server's clock says have run out."""
        query = {**_LIVING, "until": {"$type": "date"}, "$expr": {"$lt": ["$until", "$$NOW"]}}
        with answered(self.timeout_s):
            found = await self.workers.find(query, {"until": 1}).to_list(None)
        return [Lease(lease["_id"], lease["until"]) for lease in found if lease["_id"] != self.owner]

    async def fence(self, lease: Lease) -> bool:
        """Declare one dead, by equality on the `until` that was read; False: it renewed, or another was faster."""
        with answered(self.timeout_s):
            result = await self.workers.update_one(
                {"_id": lease.incarnation, "until": lease.until, **_LIVING},
                {"$set": {"fenced": True}, "$currentDate": {"fenced_at": True}},
            )
        return result.matched_count == 1

    async def sweep(self) -> int:
        """Put back to waiting, due now, what is claimed by owners that are fenced or have no lease; return how many.

        Owners first, leases afterwards: a worker that starts in between has its lease before its first claim.
        """
        swept = 0
        for owner in await self.the_dead(await self.owners({"state": State.CLAIMED}, "claimed")):
            swept += await self.update_many(
                {"state": State.CLAIMED, "owner": owner},
                {
                    "$set": {"state": State.WAITING, "owner": None, "why_waiting": "taken_over"},
                    "$currentDate": {"due_at": True},
                    "$inc": {"takeovers": 1},
                },
            )
        return swept

    async def stop(self) -> None:
        """Remove our lease; only after nothing is claimed by us any more."""
        with answered(self.timeout_s):
            await self.workers.delete_one({"_id": self.owner})
