"""ROLLUP: how fast the kept sums of a large ledger are made, how much memory that takes, and what a run costs that has little to do.

A million rows (ten million at --scale 10) of a week, 20 tenants, 8 models, 12 teams, made on the server out of a thousand. The target is ten
million rows in ten minutes of mongod's CPU: it sums with one thread, so that is the time that it takes on a machine of its own.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil

from broker import mongo
from broker.local.stack import Stack
from broker.usage.rollup import roll_up
from tests.benchmarks.ground import Entry, Figure, Options, fresh
from tests.integration.a_ledger import ledger_row

ROWS = 1_000_000
AT_ONCE = 1_000
ROWS_PER_CPU_S = 10_000_000 / 600
WEEK_S = 7 * 24 * 3_600
_BEGIN = datetime(2026, 11, 1, tzinfo=UTC)


async def measure(stack: Stack, options: Options) -> Entry:
    """Sum a ledger for the first time, then with a thousand rows more, then with nothing new."""
    rows = options.sized(ROWS)
    async with fresh(stack, options) as deployment:
        client = mongo.connect(deployment.services.mongo)
        database = client[deployment.services.database]
        try:
            await mongo.prepare(database)
            await _fill(database, rows)
            (first_s, cpu_s, grown_mb) = await _timed(database, rows)
            await database["usage"].insert_many(
                [_row(0, f"late{number}", datetime.now(UTC)) for number in range(AT_ONCE)]
            )
            second_s, *_ = await _timed(database, rows + AT_ONCE)
            idle_s, *_ = await _timed(database, rows + AT_ONCE)
            groups = await database["usage_hourly"].estimated_document_count()
        finally:
            await mongo.close(client)
    conditions = {
        "rows": rows,
        "first_run_s": round(first_s, 1),
        "with_1000_rows_more_s": round(second_s, 1),
        "with_nothing_new_s": round(idle_s, 1),
        "hourly_sums": groups,
        "first_run_cpu_s": round(cpu_s, 1),
        "mongod_grew_by_mb": round(grown_mb),
    }
    return Entry({"rows a CPU second": Figure(rows / cpu_s, ">=", ROWS_PER_CPU_S)}, conditions)


def _row(number: int, key: str, recorded_at: datetime) -> dict[str, Any]:
    at = _BEGIN + timedelta(seconds=number * WEEK_S / AT_ONCE)
    fields = {"tenant": f"t{number % 20}", "request_model": f"m{number % 8}", "tags": {"team": f"team{number % 12}"}}
    return ledger_row(number, _id=key, at=at, recorded_at=recorded_at, **fields)


async def _fill(database: mongo.Database, rows: int) -> None:
    """A thousand rows, then copies of them that the server makes: each copy's times and keys are its own."""
    recorded = datetime.now(UTC) - timedelta(days=3)
    await database["seed"].insert_many([_row(number, str(number), recorded) for number in range(AT_ONCE)])
    copies = -(-rows // AT_ONCE)
    pipeline: list[dict[str, Any]] = [
        {"$set": {"copy": {"$range": [0, copies]}}},
        {"$unwind": "$copy"},
        {
            "$set": {
                "_id": {"$concat": ["$_id", "-", {"$toString": "$copy"}, "/1/1.1"]},
                "at": {"$add": ["$at", {"$multiply": ["$copy", 500]}]},
            }
        },
        {"$unset": "copy"},
        {"$merge": {"into": "usage", "whenMatched": "fail"}},
    ]
    async for _ in await database["seed"].aggregate(pipeline, allowDiskUse=True):
        pass


async def _timed(database: mongo.Database, rows: int) -> tuple[float, float, float]:
    """Seconds of a run, those of mongod's CPU, and by how many MB mongod was larger than before; the sums are checked."""
    server = psutil.Process((await database.command("serverStatus"))["pid"])
    before, peak, used = server.memory_info().rss, 0, sum(server.cpu_times()[:2])
    started = time.monotonic()

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, server.memory_info().rss)
            await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    async for _ in roll_up(database):
        pass
    seconds, used = time.monotonic() - started, sum(server.cpu_times()[:2]) - used
    watching.cancel()
    pipeline: list[dict[str, Any]] = [{"$group": {"_id": None, "rows": {"$sum": "$rows"}}}]
    (found,) = [found async for found in await database["usage_daily"].aggregate(pipeline)]
    if found["rows"] != rows:
        raise RuntimeError(f"the sums are of {found['rows']:,} rows, the ledger has {rows:,}")
    return seconds, used, (peak - before) / 1e6
