"""Books in MongoDB: collection `quotas`, `_id` = `<whose>/<per>/<start>`, each written by comparing its revision; by PyMongo's client or Motor's."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Context, Decimal
from types import MappingProxyType
from typing import Any

import bson
from bson.decimal128 import Decimal128
from pymongo import ReadPreference
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from broker.limit_versions import LimitVersion, restored
from broker.limits import parts
from broker.mongo import Database, Document
from broker.windows import BEGINNING, Per
from workers.quota.book import NOTHING, Alert, Amounts, Book, Limit, Told
from workers.quota.protocol import SOON_S, Books, Key, looked_at_until
from workers.stores.mongo_wire import answered
from workers.stores.protocol import StoreUnknownError

KEPT: Mapping[Per, timedelta] = MappingProxyType(
    {"minute": timedelta(hours=2), "hour": timedelta(days=2), "day": timedelta(days=60), "month": timedelta(days=400)}
)
"""So long after its window a book is kept for who asks what happened; those without an end are kept for ever."""

_KEYS_A_READ = 1_000
_SKEW = timedelta(minutes=5)
_DIGITS = Context(prec=34, rounding=ROUND_CEILING)  # what a Decimal128 holds; only amounts finer than that are rounded
_MAJORITY = {"level": "majority"}
_KEY = ("subject", "per", "start", "end")


class MongoBooks:
    """`MongoBooks(connect(url)[name])`; every verb ends after `timeout_s` seconds."""

    def __init__(self, database: Database, timeout_s: float = SOON_S) -> None:
        self._database: Database = database.client.get_database(
            database.name,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority"),
            read_preference=ReadPreference.PRIMARY,
        )
        self._quotas = self._database.get_collection("quotas")
        self._jobs = self._database.get_collection("jobs")
        self._workers = self._database.get_collection("workers")
        self._timeout_s = timeout_s

    async def read(self, keys: Sequence[Key]) -> dict[Key, Book]:
        """The books that there are, by a majority read."""
        books: dict[Key, Book] = {}
        for first in range(0, len(keys), _KEYS_A_READ):
            ids = [key.id for key in keys[first : first + _KEYS_A_READ]]
            with answered(self._timeout_s):
                documents = await self._quotas.find({"_id": {"$in": ids}}).to_list(None)
            books.update((_key(document), _book(document)) for document in documents)
        return books

    async def swap(self, key: Key, book: Book) -> bool:
        """Write a book as the next revision; False: another writer was faster."""
        document = _document(key, book)
        with answered(self._timeout_s):
            if book.rev:
                result = await self._quotas.replace_one({"_id": document["_id"], "rev": book.rev}, document)
                return result.matched_count == 1
            try:
                await self._quotas.insert_one(document)
            except DuplicateKeyError:
                return False
        return True

    async def spent(self, key: Key, without: Collection[str], within_s: float = SOON_S) -> Amounts:
        """What the ledger's billed rows of this key say, for all incarnations but `without`."""
        if not key.on_ledger:
            return NOTHING
        rows = {
            **_narrowed(key),  # to what an index finds
            "quota_keys": key.id,
            "billed": True,
            "incarnation": {"$nin": list(without)},
        }
        sums = {
            "_id": None,
            "requests": {"$sum": 1},
            "tokens": {"$sum": {"$add": ["$input_tokens", "$output_tokens"]}},
            "usd": {"$sum": "$cost_usd"},
        }
        found = await self._aggregate("usage", [{"$match": rows}, {"$group": sums}], within_s)
        return _amounts(found[0]) if found else NOTHING

    async def closable(self, incarnations: Collection[str]) -> set[str]:
        """Those that are dead with no document claimed in their name and no outbox of theirs left."""
        living = {"_id": {"$in": list(incarnations)}, "fenced": {"$exists": False}}
        with answered(self._timeout_s):
            leases = await self._workers.find(living, {"_id": 1}).to_list(None)
        dead = set(incarnations) - {lease["_id"] for lease in leases}
        return {incarnation for incarnation in dead if not await self._has_documents(incarnation)}

    async def waiting(self, now: datetime) -> list[Key]:
        """The keys on which jobs may wait."""
        query = {"looked_at_until": {"$gte": now}, "waiting": True}
        with answered(self._timeout_s):
            return [_key(document) for document in await self._quotas.find(query, _KEY).to_list(None)]

    async def named(self, now: datetime) -> dict[str, list[Key]]:
        """The incarnations that have entries, with the keys."""
        pipeline: list[Document] = [
            {"$match": {"looked_at_until": {"$gte": now}}},
            {"$project": {"owner": {"$map": {"input": {"$objectToArray": "$grants"}, "in": "$$this.k"}}}},
            {"$unwind": "$owner"},
            {"$group": {"_id": "$owner"}},
        ]
        owners = [document["_id"] for document in await self._aggregate("quotas", pipeline)]
        return {owner: await self._keys_of(owner, now) for owner in owners}

    async def untold(self) -> list[Key]:
        """The keys of books with an alert that Kafka may not have."""
        with answered(self._timeout_s):
            found = await self._quotas.find({"untold": True}, _KEY, hint="untold").to_list(None)
        return [_key(document) for document in found]

    async def current(self, now: datetime) -> list[Key]:
        """The keys of all books of windows that are open or ended not long ago."""
        with answered(self._timeout_s):
            found = await self._quotas.find({"looked_at_until": {"$gte": now}}, _KEY).to_list(None)
        return [_key(document) for document in found]

    async def limits(self, after: int) -> LimitVersion | None:
        """The last version that was set by command, if it is a later one."""
        with answered(self._timeout_s):
            found = await self._database["limits"].find_one({"_id": {"$gt": after}}, sort=[("_id", -1)])
        if found is None:
            return None
        try:
            return restored(found)
        except ValueError as error:
            raise StoreUnknownError(f"limits of version {found['_id']} cannot be read: {error}") from error

    async def _keys_of(self, owner: str, now: datetime) -> list[Key]:
        query = {"looked_at_until": {"$gte": now}, f"grants.{owner}": {"$exists": True}}
        with answered(self._timeout_s):
            return [_key(document) for document in await self._quotas.find(query, _KEY).to_list(None)]

    async def _has_documents(self, incarnation: str) -> bool:
        claimed = {"state": "claimed", "owner": incarnation}
        outbox = {"outbox": {"$exists": True}, "owner": incarnation}
        with answered(self._timeout_s):
            return (
                await self._jobs.find_one(claimed, {"_id": 1}, hint="claimed") is not None
                or await self._jobs.find_one(outbox, {"_id": 1}, hint="outbox") is not None
            )

    async def _aggregate(
        self, collection: str, pipeline: Sequence[Document], within_s: float = SOON_S
    ) -> list[Document]:
        """Run a pipeline whose answer fits one message, by the command itself: the drivers' methods differ."""
        command = {"aggregate": collection, "pipeline": list(pipeline), "cursor": {"batchSize": 10_000}}
        with answered(within_s):
            reply = await self._database.command({**command, "readConcern": _MAJORITY})
        found: list[Document] = reply["cursor"]["firstBatch"]
        return found


def _narrowed(key: Key) -> Document:
    """What rows of a key have in common that an index knows."""
    scope, tenant, owner = parts(key.subject)
    if scope == "batch":
        return {"batch_id": owner.partition("/")[2], "tenant": tenant}
    begun = {} if key.start == BEGINNING else {"at" if tenant else "recorded_at": {"$gte": key.start - _SKEW}}
    return {**({"tenant": tenant} if tenant else {}), **begun}


def _key(document: Mapping[str, Any]) -> Key:
    start, end = (document[name].replace(tzinfo=UTC) for name in ("start", "end"))
    return Key(document["subject"], document["per"], start, end)


def _document(key: Key, book: Book) -> Document:
    kept = KEPT.get(key.per)
    return {
        "_id": key.id,
        **key._asdict(),
        "looked_at_until": looked_at_until(key),
        **({"expire_at": key.end + kept} if kept else {}),
        "rev": book.rev + 1,
        "closed": _stored(book.closed),
        "grants": {owner: _stored(entry) for owner, entry in book.grants.items()},
        "shut": list(book.shut),
        "waiting": book.waiting,
        "told": {owner: {**_stored(told.spent), "passed_over": told.passed_over} for owner, told in book.told.items()},
        "alerts": [_stored_alert(alert) for alert in book.alerts.values()],
        **({"untold": True} if book.untold else {}),
    }


def _book(document: Mapping[str, Any]) -> Book:
    return Book(
        rev=document["rev"],
        closed=_amounts(document["closed"]),
        grants={owner: _amounts(entry) for owner, entry in document["grants"].items()},
        shut=tuple(document["shut"]),
        waiting=document["waiting"],
        told={owner: Told(_amounts(told), told["passed_over"]) for owner, told in document.get("told", {}).items()},
        alerts={str(alert["threshold"]): _alert(alert) for alert in document.get("alerts", ())},
    )


def _stored_alert(alert: Alert) -> Document:
    most = {**alert.limit._asdict(), "usd": None if alert.limit.usd is None else Decimal128(alert.limit.usd)}
    return {**alert._asdict(), "spent": _stored(alert.spent), "limit": most}


def _alert(stored: Mapping[str, Any]) -> Alert:
    most, at = stored["limit"], stored["at"].replace(tzinfo=UTC)
    usd = most["usd"].to_decimal() if most["usd"] is not None else None
    limit = Limit(most["requests"], most["tokens"], usd)
    return Alert(**{**stored, "at": at, "spent": _amounts(stored["spent"]), "limit": limit})


def _stored(amounts: Amounts) -> Document:
    return {
        "requests": bson.Int64(amounts.requests),
        "tokens": bson.Int64(amounts.tokens),
        "usd": Decimal128(_DIGITS.plus(amounts.usd)),
    }


def _amounts(stored: Mapping[str, Any]) -> Amounts:
    usd = stored["usd"]
    return Amounts(
        int(stored["requests"]),
        int(stored["tokens"]),
        usd.to_decimal() if isinstance(usd, Decimal128) else Decimal(usd),
    )


_: type[Books] = MongoBooks
