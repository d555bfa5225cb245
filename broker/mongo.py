"""The one door to MongoDB's drivers: connects by PyMongo or by Motor, checks what answers, and lays out the collections."""

import inspect
from decimal import Decimal
from typing import Any, Literal, cast

import pymongo
from bson import Decimal128
from pymongo import AsyncMongoClient, ReadPreference
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import (
    ConfigurationError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from broker.errors import MongoMissing
from broker.mongo_layout import INDEXES, RESULTS_VIEW, USAGE_VALIDATOR
from broker.usage.views import VIEWS, View

Document = dict[str, Any]
Client = AsyncMongoClient[Document]
"""What both drivers offer: the store speaks only the part that they share, so Motor's client passes for PyMongo's."""
Database = AsyncDatabase[Document]

OLDEST = (6, 0)
_PREPARE_S = 300
_MAJORITY = {"w": "majority"}
_DEFAULTS = {
    "serverSelectionTimeoutMS": 5_000,
    "connectTimeoutMS": 5_000,
    "maxPoolSize": 50,
    "appname": "aibroker",
}
"""What the URL may set otherwise."""


def connect(url: str, driver: Literal["pymongo", "motor"] = "pymongo") -> Client:
    """Return a client whose writes are acknowledged by a majority and whose reads are majority reads; nothing is sent yet.

    Raises:
        MongoMissing: the URL is wrong.
    """
    options: dict[str, Any] = {
        "w": "majority",
        "readConcernLevel": "majority",
        "retryWrites": True,
        "tz_aware": True,
        **{name: value for name, value in _DEFAULTS.items() if name.lower() not in url.lower()},
    }
    try:
        if driver == "motor":
            from motor.motor_asyncio import AsyncIOMotorClient  # noqa: PLC0415 only who asks for Motor loads it

            return cast("Client", AsyncIOMotorClient(url, **options))
        return AsyncMongoClient(url, **options)
    except (ConfigurationError, InvalidURI, ValueError) as error:
        raise MongoMissing(
            f"the address of MongoDB is wrong: {error}; mongodb://host:port/?replicaSet=name is one"
        ) from None


async def close(client: Client) -> None:
    """Give back the client's connections; Motor's does it at once, PyMongo's has to be awaited."""
    closing: object = client.close()
    if inspect.isawaitable(closing):
        await closing


async def check(client: Client, within_s: float = 5.0) -> None:
    """Make sure that a replica set or a sharded cluster of MongoDB 6.0 or newer answers and takes writes, within `within_s` seconds.

    Raises:
        MongoMissing: with one sentence that says what is missing.
    """
    try:
        with pymongo.timeout(within_s):
            hello = await client.admin.command("hello", read_preference=ReadPreference.PRIMARY_PREFERRED)
            build = await client.admin.command("buildInfo", read_preference=ReadPreference.PRIMARY_PREFERRED)
    except ServerSelectionTimeoutError as error:
        raise MongoMissing(
            f"MongoDB cannot be reached: {_first_line(error)}; is it running, and is `mongo` its address?"
        ) from None
    except PyMongoError as error:
        raise MongoMissing(f"MongoDB does not answer as it should: {_first_line(error)}") from None
    version = str(build["version"])
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise MongoMissing(f"MongoDB is of version {version}; 6.0 or newer is needed")
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        raise MongoMissing(
            "MongoDB runs without a replica set, which majority writes need: start mongod with --replSet and initiate it"
        )
    if not hello.get("isWritablePrimary"):
        raise MongoMissing(
            f"the replica set {hello.get('setName')} has no primary that takes writes; is a majority up?"
        )


async def prepare(database: Database) -> None:
    """Make collections, indexes, validator and view, those that are not there yet; the same again changes nothing.

    Raises:
        MongoMissing: the database does not let us.
    """
    try:
        with pymongo.timeout(_PREPARE_S):
            listed = await database.command("listCollections", cursor={"batchSize": 1_000})
            there = {entry["name"]: entry["options"] for entry in listed["cursor"]["firstBatch"]}
            for name, indexes in INDEXES.items():
                await _shape(database, name, there.get(name), {"validator": USAGE_VALIDATOR} if name == "usage" else {})
                if indexes:
                    await database.command("createIndexes", name, indexes=indexes, writeConcern=_MAJORITY)
            for name, view in {"results": View("jobs", RESULTS_VIEW), **VIEWS}.items():
                await _shape(database, name, there.get(name), {"viewOn": view.on, "pipeline": view.pipeline})
    except PyMongoError as error:
        raise MongoMissing(f"the collections in MongoDB cannot be prepared: {_first_line(error)}") from None


async def _shape(database: Database, name: str, now: Document | None, wanted: Document) -> None:
    """Make a collection or view with these options, or give it them when it has others."""
    if now is None:
        try:
            await database.command("create", name, **wanted, writeConcern=_MAJORITY)
        except OperationFailure as error:
            if error.code != _NAMESPACE_EXISTS:  # another process made it a moment ago
                raise
    elif any(now.get(option) != value for option, value in wanted.items()):
        await database.command("collMod", name, **wanted, writeConcern=_MAJORITY)


_NAMESPACE_EXISTS = 48


def exact(amount: Decimal) -> Decimal128:
    """An amount of dollars as it is stored."""
    return Decimal128(amount)


def _first_line(error: Exception) -> str:
    """The driver's message without the description of the topology that it appends."""
    return str(error).split(", Topology Description")[0].splitlines()[0][:300]
