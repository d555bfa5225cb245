"""P8: whether two workers do twice as much as one, and whether a million stored jobs slow the store's verbs down.

The workers are bounded by their slots, not by the machine: 200 calls of half a second at a time. The verbs are those of the store, on a database with
few and one with many jobs that wait, in turn, by the CPU time of mongod and of this process.
"""

import asyncio
import os
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import psutil
import pymongo

from broker.local.stack import Stack
from broker.mongo import close, connect, prepare
from tests.benchmarks.ground import Entry, Figure, Options, Record, fresh, produce
from tests.integration.deployment import chat
from workers.stores.mongo import MongoStore
from workers.stores.protocol import Address, Finish, NewJob

TWICE = 1.9
SLOWER = 1.1
SLOTS = 200
CALL_MS = 500
WATCHED_S = 10
ROUNDS = 5
FEW, MANY = 10_000, 1_000_000
BATCH = 256
TIMES = 150
SETTINGS = f"worker: {{slots: {SLOTS}, ready: {2 * SLOTS}, reserved_share: 0}}\n"


async def measure(stack: Stack, options: Options) -> Entry:
    """Alternate one worker and two; then few documents and many."""
    ones, twos = [], []
    for number in range(options.rounds or ROUNDS):
        ones.append(await _served(stack, options, 1))
        twos.append(await _served(stack, options, 2))
        sys.stderr.write(f"P8 {number + 1}: one worker {ones[-1]:.0f}/s, two {twos[-1]:.0f}/s\n")
    few, many = await _verbs(stack, FEW, options.sized(MANY))
    ratios = [two / one for one, two in zip(ones, twos, strict=True)]
    slower = {verb: many[verb] / few[verb] for verb in few}
    conditions = {
        "jobs_per_s_of_one": [round(rate) for rate in ones],
        "jobs_per_s_of_two": [round(rate) for rate in twos],
        "documents": [FEW, options.sized(MANY)],
        "cpu_us_a_job_with_few": {verb: round(us, 1) for verb, us in few.items()},
        "cpu_us_a_job_with_many": {verb: round(us, 1) for verb, us in many.items()},
    }
    figures = {"two workers to one": Figure(statistics.median(ratios), ">=", TWICE)}
    figures |= {f"{verb} with many stored": Figure(ratio, "<=", SLOWER) for verb, ratio in slower.items()}
    return Entry(figures, conditions)


async def _served(stack: Stack, options: Options, workers: int) -> float:
    """Jobs a second of so many workers while there is more to do than they can."""
    rate = workers * SLOTS * 1_000 / CALL_MS
    jobs = int(rate * (WATCHED_S + 8))
    behaviour = {"default": {"latency": {"ms": CALL_MS}}}
    async with fresh(stack, options, SETTINGS, behaviour) as deployment:
        await produce(
            deployment.services, (Record("jobs.normal", orjson.dumps(chat(f"p8-{number}"))) for number in range(jobs))
        )
        started = await deployment.workers(workers)
        await deployment.until(lambda: deployment.count({"state": "succeeded"}) > rate * 2, 60)
        before, began = deployment.count({"state": "succeeded"}), time.monotonic()
        await asyncio.sleep(WATCHED_S)
        served, took = deployment.count({"state": "succeeded"}) - before, time.monotonic() - began
        if before + served == jobs:
            raise RuntimeError("the jobs ended before the measuring did")
        for worker in started:
            await stack.kill_worker(worker)
    return served / took


async def _verbs(stack: Stack, few: int, many: int) -> tuple[dict[str, float], dict[str, float]]:
    """Microseconds of CPU a job for each verb, with few documents stored and with many."""
    client = connect(stack.mongo_url)
    assert stack.mongod is not None
    assert stack.mongod.child is not None
    processes = [psutil.Process(stack.mongod.child.pid), psutil.Process(os.getpid())]
    spent: dict[str, dict[str, list[float]]] = {}
    try:
        with pymongo.MongoClient[dict[str, Any]](stack.mongo_url) as plain:
            stores = {}
            for name, count in (("few", few), ("many", many)):
                plain.drop_database(f"p8_{name}")
                await prepare(client[f"p8_{name}"])
                await asyncio.to_thread(_fill, plain, f"p8_{name}", count)
                stores[name], spent[name] = MongoStore(client[f"p8_{name}"], "us"), {}
            for turn in range(TIMES):
                for name, store in stores.items():
                    await _one_round(store, turn, processes, spent[name])
            for name in stores:
                plain.drop_database(f"p8_{name}")
    finally:
        await close(client)
    means = [{verb: sum(times) / TIMES / BATCH * 1e6 for verb, times in spent[name].items()} for name in spent]
    return means[0], means[1]


async def _one_round(
    store: MongoStore, turn: int, processes: list[psutil.Process], spent: dict[str, list[float]]
) -> None:
    """Insert a batch, take it, finish it."""
    now = datetime.now(UTC)
    ids = [f"us/{turn}-{number}" for number in range(BATCH)]
    jobs = [
        NewJob(job, job, "us", job[3:], "normal", b"x" * 200, b"d", Address("results"), now, due_at=now) for job in ids
    ]
    for job in jobs:
        job.why_waiting = "queued"
    at = _cpu_s(processes)
    await store.insert(jobs)
    at = _note(spent, "insert", at, processes)
    claims = await store.take(await store.due("normal", "us", now + timedelta(seconds=1), BATCH), str(turn), now)
    if len(claims) != BATCH:
        raise RuntimeError(f"{len(claims)} of {BATCH} jobs were taken")
    at = _note(spent, "take", at, processes)
    result = {"status": "succeeded", "output": "x" * 200}
    await store.finish([Finish(c.id, c.fence, "succeeded", result, None, keep_payload=False) for c in claims], "token")
    _note(spent, "finish", at, processes)


def _note(spent: dict[str, list[float]], verb: str, since: float, processes: list[psutil.Process]) -> float:
    now = _cpu_s(processes)
    spent.setdefault(verb, []).append(now - since)
    return now


def _cpu_s(processes: list[psutil.Process]) -> float:
    return sum(process.cpu_times().user + process.cpu_times().system for process in processes)


def _fill(plain: "pymongo.MongoClient[dict[str, Any]]", database: str, count: int) -> None:
    """Documents that wait for later, of 100 tenants."""
    due = datetime(2100, 1, 1, tzinfo=UTC)
    shape = {"state": "waiting", "owner": None, "fence": 0, "generation": 1, "takeovers": 0, "attempts": 0}
    shape |= {"priority": "normal", "why_waiting": "scheduled", "due_at": due, "replies_n": 1, "payload": b"x" * 200}
    for first in range(0, count, 10_000):
        documents = [
            {"_id": f"t{number % 100}/{number}", "tenant": f"t{number % 100}", "size": 200, **shape}
            for number in range(first, min(first + 10_000, count))
        ]
        plain[database]["jobs"].insert_many(documents, ordered=False)
