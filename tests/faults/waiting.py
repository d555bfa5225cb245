"""Waits, as a stranger, until everything that was accepted has ended; imports nothing of ours."""

import asyncio
import time
from typing import Any

import pymongo
from pymongo.database import Database

from tests.faults.links import TERMINAL
from tests.faults.reading import Services, read_committed, read_ends

_POLL_S = 0.25


async def until_ended(services: Services, within_s: float) -> bool:
    """Wait until every record has been read, every job is terminal, every outbox is clear and every row told; False if that took too long."""
    give_up = time.monotonic() + within_s
    with pymongo.MongoClient[dict[str, Any]](services.mongo) as client:  # connecting costs more than asking
        database = client[services.database]
        while time.monotonic() < give_up:
            if not await asyncio.to_thread(_left, database) and await _all_read(services):
                return True
            await asyncio.sleep(_POLL_S)  # nothing tells a stranger that all is done
    return False


def _left(database: Database[dict[str, Any]]) -> int:
    query = {"$or": [{"state": {"$nin": sorted(TERMINAL)}}, {"outbox": {"$exists": True}}]}
    return database["jobs"].count_documents(query) + database["usage"].count_documents({"untold": {"$exists": True}})


async def _all_read(services: Services) -> bool:
    committed, ends = await read_committed(services), await read_ends(services)
    return all(committed.get(place, 0) >= end for place, end in ends.items() if end)
