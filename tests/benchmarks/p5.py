"""P5: what nine quiet tenants notice of one that has sent a hundred times as many jobs before them.

Twice: the quiet ones send a little all the time, less than their share, so that alone nothing waits; then each sends many at once, so that all have
work for a while and share what there is. The provider takes 200 ms on average, so the slots decide how much is served, whatever machine this is. A
wait is what the result says (`timing.queued_ms`: from the record's timestamp to the start of the job); what was served is what the ledger says.

The trickle once more with a provider that takes 200 ms exactly: the noisy tenant's calls, which began together, then end together for ever, and who
comes in between waits for the end of the step, whatever is next in the queue.
"""

import random
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson

from broker.local.stack import Stack
from tests.benchmarks.ground import Entry, Figure, Options, Record, fresh, produce
from tests.benchmarks.pace import send_at
from tests.benchmarks.percentiles import jains_index, percentile
from tests.integration.deployment import Deployment

QUIET = tuple(f"quiet-{number}" for number in range(9))
NOISY = "noisy"
TIMES_AS_MUCH = 100
SLOTS = 20  # a tenth of them is for the first priority; at most 90 jobs a second are left
TRICKLE_PER_S = 4  # of each quiet tenant: 36 a second of all, while their share of the slots is 81
TRICKLED = 80
AT_ONCE = 160
SETTINGS = f"worker: {{slots: {SLOTS}}}"
VARIED: Mapping[str, Any] = {"kind": "uniform", "low_ms": 100, "high_ms": 300}
IN_STEP: Mapping[str, Any] = {"ms": 200}
WINDOW = timedelta(seconds=10)


@dataclass(frozen=True)
class Waits:
    """95 % of the quiet tenants' jobs waited at most so long, in milliseconds."""

    trickle: float
    at_once: float


def _bound(alone: float) -> float:
    """What they may wait beside a noisy tenant if they wait so long alone, in milliseconds."""
    return 2 * alone + 100


async def measure(stack: Stack, options: Options) -> Entry:
    """The quiet ones alone, then the same beside the noisy one; then both with calls in step."""
    alone, _ = await _run(stack, options, noisy=False)
    beside, indices = await _run(stack, options, noisy=True)
    alone_in_step, beside_in_step = [await _in_step(stack, options, noisy=noisy) for noisy in (False, True)]
    conditions = {
        "p95_wait_ms_alone": {"trickle": alone.trickle, "at_once": alone.at_once},
        "p95_wait_ms_beside": {"trickle": beside.trickle, "at_once": beside.at_once},
        "p95_wait_ms_in_step": {"alone": alone_in_step, "beside": beside_in_step},
        "jains_index_of_each_10_s": [round(index, 4) for index in indices],
        "jobs": f"{options.sized(TRICKLED)} + {options.sized(AT_ONCE)} of each of 9 quiet tenants, {TIMES_AS_MUCH} times as many before them",
        "provider": f"100 to 300 ms, in step 200 ms; {SLOTS} slots; all jobs of one priority; answers of 40 to 400 bytes",
    }
    figures = {
        "p95 wait of a trickle / (2 x alone + 100 ms)": Figure(beside.trickle / _bound(alone.trickle), "<=", 1),
        "p95 wait of many at once / (2 x alone + 100 ms)": Figure(beside.at_once / _bound(alone.at_once), "<=", 1),
        "Jain's index, the worst 10 s": Figure(min(indices), ">=", 0.95),
        "p95 wait of a trickle, calls in step": Figure(beside_in_step / _bound(alone_in_step), "<=", 1),
    }
    return Entry(figures, conditions)


async def _run(stack: Stack, options: Options, *, noisy: bool) -> tuple[Waits, Sequence[float]]:
    trickled, at_once = options.sized(TRICKLED), options.sized(AT_ONCE)
    async with _begun(stack, options, VARIED, TIMES_AS_MUCH * (trickled + at_once) * noisy) as deployment:
        await _trickle(deployment, trickled)
        records = [_records(tenant, "b", at_once) for tenant in QUIET]
        await produce(deployment.services, (record for each in zip(*records, strict=True) for record in each))
        await deployment.until(lambda: _ended(deployment, "b") == len(QUIET) * at_once, 120)
        waits = Waits(_p95(deployment, "t"), _p95(deployment, "b"))
        indices = _indices(deployment) if noisy else []
    sys.stderr.write(f"P5 {'beside' if noisy else 'alone'}: {waits}\n")
    return waits, indices


async def _in_step(stack: Stack, options: Options, *, noisy: bool) -> float:
    """What 95 % of a trickle waited at most, in milliseconds."""
    trickled = options.sized(TRICKLED)
    async with _begun(stack, options, IN_STEP, TIMES_AS_MUCH * trickled * noisy) as deployment:
        await _trickle(deployment, trickled)
        wait = _p95(deployment, "t")
    sys.stderr.write(f"P5 in step, {'beside' if noisy else 'alone'}: {wait}\n")
    return wait


@asynccontextmanager
async def _begun(stack: Stack, options: Options, latency: Mapping[str, Any], noisy: int) -> AsyncIterator[Deployment]:
    """A worker that has read so many jobs of the noisy tenant: they came before the others'."""
    behaviour = {"default": {"latency": latency, "answer": {"text_bytes": [40, 400]}}}
    async with fresh(stack, options, SETTINGS, behaviour) as deployment:
        await deployment.workers()
        if noisy:
            await produce(deployment.services, _records(NOISY, "n", noisy))
            jobs = deployment.mongo[deployment.services.database]["jobs"]
            await deployment.until(lambda: jobs.estimated_document_count() >= noisy, 180)
        yield deployment


async def _trickle(deployment: Deployment, count: int) -> None:
    """Each quiet tenant sends a job every quarter of a second, at moments of its own, until all have ended."""
    chance, every_s = random.Random(5), 1 / TRICKLE_PER_S
    moments = [((n + chance.random()) * every_s, _record(tenant, f"t-{n}")) for tenant in QUIET for n in range(count)]
    await send_at(deployment.services, sorted(moments, key=lambda one: one[0]))
    await deployment.until(lambda: _ended(deployment, "t") == len(QUIET) * count, 120)


def _records(tenant: str, kind: str, count: int) -> Iterator[Record]:
    return (_record(tenant, f"{kind}-{number}") for number in range(count))


def _record(tenant: str, name: str) -> Record:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "word " * 60}], "max_tokens": 256}
    return Record("jobs.normal", orjson.dumps({"id": name, "tenant": tenant, "batch_id": name[0], "body": body}))


def _of(kind: str) -> dict[str, Any]:
    """What the quiet tenants' jobs of a kind are found by, through an index."""
    return {"batch": {"$in": [f"{tenant}/{kind}" for tenant in QUIET]}, "state": "succeeded"}


def _ended(deployment: Deployment, kind: str) -> int:
    return deployment.count(_of(kind))


def _p95(deployment: Deployment, kind: str) -> float:
    found = deployment.documents(_of(kind))
    return percentile((float(job["result"]["timing"]["queued_ms"]) for job in found), 95)


def _indices(deployment: Deployment) -> list[float]:
    """Jain's index of what each tenant was served in each 10 s in which all had work: from the last one's first job to the first one's last."""
    rows = deployment.documents({"billed": True}, "usage")
    many = [row for row in rows if row["tenant"] in QUIET and row["job_id"].startswith("b-")]
    at: dict[str, list[datetime]] = defaultdict(list)
    for row in many:
        at[row["tenant"]].append(row["at"])
    begin, end = max(map(min, at.values())), min(map(max, at.values()))
    if end - begin < WINDOW:
        raise RuntimeError(f"all had work for {end - begin} only; a window has {WINDOW}")
    windows = range((end - begin) // WINDOW)
    return [jains_index(_served(rows, begin + number * WINDOW).values()) for number in windows]


def _served(rows: Sequence[dict[str, Any]], begin: datetime) -> dict[str, float]:
    served = dict.fromkeys((NOISY, *QUIET), 0.0)
    for row in rows:
        if begin <= row["at"] < begin + WINDOW:
            served[row["tenant"]] += float(row["cost_usd"].to_decimal())
    return served
