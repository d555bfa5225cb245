"""MongoDB as the listing commands see it: opened, checked, closed, its failures told as ours."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from broker import mongo
from broker.errors import MongoMissing
from broker.limit_versions import LimitVersion, restored
from broker.settings import Settings

Document = dict[str, Any]


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[mongo.Database]:
    """Open the deployment's database for reading.

    Raises:
        MongoMissing: It cannot be reached, is too old, or failed in the middle.
    """
    client = mongo.connect(settings.mongo.get_secret_value())
    try:
        await mongo.check(client)
        yield client[settings.database]
    except Exception as error:
        # The driver is imported behind its own door only, so its errors are known here by where they come from.
        if type(error).__module__.partition(".")[0] != "pymongo":
            raise
        raise MongoMissing(f"MongoDB failed in the middle: {str(error).splitlines()[0][:300]}; run it again") from error
    finally:
        await mongo.close(client)


async def aggregate(
    database: mongo.Database, collection: str, pipeline: Sequence[Document], *, hint: str | None = None
) -> AsyncIterator[Document]:
    """The documents of an aggregation, one by one; `hint` names its index."""
    options: dict[str, Any] = {"hint": hint} if hint else {}
    async for document in await database[collection].aggregate(list(pipeline), allowDiskUse=True, **options):
        yield document


async def listed(database: mongo.Database, collection: str, pipeline: Sequence[Document]) -> list[Document]:
    """All documents of a small aggregation."""
    return [document async for document in aggregate(database, collection, pipeline)]


async def limits(database: mongo.Database) -> LimitVersion | None:
    """The limits that were set by command last; None: those of the settings hold."""
    found = await database["limits"].find_one({}, sort=[("_id", -1)])
    return None if found is None else restored(found)


async def state_counts(database: mongo.Database, pipeline: Sequence[Document]) -> dict[str, int]:
    """How many jobs are in each state, by one of `queries`' counting pipelines."""
    return {found["_id"]: found["jobs"] async for found in aggregate(database, "jobs", pipeline)}
