"""P4: an interactive job behind 100,000 waiting batch jobs, against one in an empty system, and what many waiting jobs cost each that runs.

The provider takes 200 ms. What it may be asked at once is set so that it serves half of what this machine was measured to serve when the provider
takes no time, and interactive jobs come at a fixed share of that, below what the reserved slots serve. The empty system is measured before and
after the full one. A batch job's CPU is the whole worker's while as many batch jobs come as are served, so that reading is part of it in both cases.
"""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import orjson

from broker.local.processes import Child
from broker.local.stack import Stack
from tests.benchmarks.ground import Entry, Figure, Options, Record, cpu_s, fresh, produce
from tests.benchmarks.pace import arrivals, send_at
from tests.benchmarks.percentiles import percentile
from tests.faults.told import told_between
from tests.integration.deployment import Deployment

LATENCY_S = 0.2
BEHAVIOUR = {"default": {"latency": {"ms": 1000 * LATENCY_S}}}
RESERVED_SHARE = 0.1
CAPACITY_JOBS = 8_000
SETTINGS = f"""
worker: {{{{slots: {{slots}}, reserved_share: {RESERVED_SHARE}}}}}
telemetry: {{{{exporter: log, interval_s: 5}}}} # more often than a worker forgets how late its event loop was
"""
WAITING = 100_000
FEW = 1_000
INTERACTIVE = 500
INTERACTIVE_SHARE = 0.05
"""Of the limited rate; the reserved slots serve more than twice as much."""
WARM = 20
"""Interactive jobs that are not measured: a worker's first ones load what the others find loaded."""
FED_S = 15.0
REPLIES = "results.replies"


class Times(NamedTuple):
    """From submit to result, in milliseconds."""

    p50: float
    p99: float


class Asked(NamedTuple):
    """What interactive jobs took, in milliseconds, and what the worker told meanwhile of how long its event loop keeps a task waiting."""

    took: list[float]
    lags_ms: list[float]
    parts_ms: dict[str, float]
    """The medians of what the results say: how long a job was queued, its call, and both with what lay between."""


async def measure(stack: Stack, options: Options) -> Entry:
    """Capacity, then one worker without and with many waiting, then another without and with few."""
    load_before = os.getloadavg()
    per_s = await _capacity(stack, options) / 2
    interactive_per_s = per_s * INTERACTIVE_SHARE
    asked, many, few = options.sized(INTERACTIVE), options.sized(WAITING), options.sized(FEW)
    slots = max(round(per_s * LATENCY_S / (1 - RESERVED_SHARE)), 10)
    settings = SETTINGS.format(slots=slots)
    async with fresh(stack, options, settings, BEHAVIOUR) as deployment:
        [worker] = await deployment.workers()
        empty = await _asked(deployment, worker, interactive_per_s, asked - asked // 2)
        many_us = await _cpu_us_per_job(deployment, worker, per_s, many)
        before = await _filled(deployment, "t", many + round(per_s * (WARM + asked) / interactive_per_s), per_s)
        behind = await _asked(deployment, worker, interactive_per_s, asked)
        after = _waiting(deployment)
    if after < many:
        raise RuntimeError(f"P4 measured nothing: only {after} batch jobs waited at the end, and {many} had to")
    async with fresh(stack, options, settings, BEHAVIOUR) as deployment:
        [worker] = await deployment.workers()
        again = await _asked(deployment, worker, interactive_per_s, max(asked // 2, 1))
        few_us = await _cpu_us_per_job(deployment, worker, per_s, few)
    alone, full = _times(empty.took + again.took), _times(behind.took)
    figures = {
        "p50 of an interactive job / in the empty system": Figure(full.p50 / alone.p50, "<=", 1.2),
        "p99 of an interactive job / in the empty system": Figure(full.p99 / alone.p99, "<=", 1.5),
        "CPU of a batch job / with few waiting": Figure(many_us / few_us, "<=", 1.1),
    }
    conditions = {
        "ms_empty": alone._asdict(),
        "ms_behind": full._asdict(),
        "ms_by_the_results_empty_and_behind": [empty.parts_ms, behind.parts_ms],
        "worst_loop_lag_ms_empty_and_behind": [
            max(lags, default=None) for lags in (empty.lags_ms + again.lags_ms, behind.lags_ms)
        ],
        "cpu_us_per_batch_job": {"few": round(few_us), "many": round(many_us)},
        "waiting_before_and_after": [before, after],
        "capacity_per_s": round(2 * per_s),
        "limit": f"{slots} slots, {RESERVED_SHARE:.0%} of them for interactive jobs, calls of 200 ms",
        "interactive": f"{asked} jobs, {interactive_per_s:.1f} a second ({INTERACTIVE_SHARE:.0%} of {per_s:.0f}), answered on {REPLIES}",
        "load_average_before_and_after": [round(load_before[0], 1), round(os.getloadavg()[0], 1)],
    }
    return Entry(figures, conditions)


async def _capacity(stack: Stack, options: Options) -> float:
    """Jobs a second that a worker serves of a provider that takes no time."""
    count = options.sized(CAPACITY_JOBS)
    async with fresh(stack, options, "worker: {slots: 1000}") as deployment:
        await deployment.workers()
        await produce(deployment.services, _batch("c", range(100)))
        await _served(deployment, 100)  # it is warm, and its groups are joined
        started = asyncio.get_running_loop().time()
        await produce(deployment.services, _batch("c", range(100, count)))
        await _served(deployment, count)
        per_s = (count - 100) / (asyncio.get_running_loop().time() - started)
    sys.stderr.write(f"P4: {per_s:.0f} jobs/s without a limit\n")
    return per_s


async def _cpu_us_per_job(deployment: Deployment, worker: Child, per_s: float, waiting: int) -> float:
    """The worker's CPU for each batch job while so many wait and as many come as go."""
    found = await _filled(deployment, "w", waiting, per_s)
    moments = ((number / per_s, record) for number, record in enumerate(_batch("f", range(int(per_s * FED_S)))))
    before, cpu_before = _ended(deployment), cpu_s(worker)
    await send_at(deployment.services, moments)
    used, served = cpu_s(worker) - cpu_before, _ended(deployment) - before
    sys.stderr.write(f"P4: {used / served * 1e6:.0f} us a job, {served / FED_S:.0f} jobs/s with {found} waiting\n")
    return used / served * 1e6


async def _filled(deployment: Deployment, kind: str, wanted: int, per_s: float) -> int:
    """Submit batch jobs until so many wait, and say how many do: some are served while others are sent and read."""
    jobs = deployment.mongo[deployment.services.database]["jobs"]
    sent = jobs.estimated_document_count()
    while (found := _waiting(deployment)) < wanted:
        more = wanted - found + round(per_s)  # what is served within a second comes on top
        await produce(deployment.services, _batch(kind, range(sent, sent + more)))
        sent += more
        await deployment.until(lambda known=sent: jobs.estimated_document_count() >= known, 240)
    return found


def _waiting(deployment: Deployment) -> int:
    return deployment.count({"state": "waiting", "priority": "batch"})


async def _asked(deployment: Deployment, worker: Child, per_s: float, count: int) -> Asked:
    """Send interactive jobs one by one, and say how long each of them took from submit to result."""
    began = time.time()
    names = [f"{began:.0f}-{number}" for number in range(WARM + count)]
    moments = ((number / per_s, _interactive(name)) for number, name in enumerate(names))
    async with arrivals(deployment.services, REPLIES) as came:
        sent = await send_at(deployment.services, moments)
        await deployment.until(lambda: len(came) == len(names), 60)
    took = [(came[f"default/{name}"] - at) * 1000 for name, at in zip(names, sent, strict=True)][WARM:]
    lags_ms = [
        round(event["value"] * 1000, 1)
        for event in told_between(began, time.time(), [worker.log])
        if event["event"] == "metric" and event["metric"] == "aibroker.loop_lag"
    ]
    sys.stderr.write(f"P4: {_times(took)}, loop lag {max(lags_ms, default=None)} ms\n")
    return Asked(took, lags_ms, _parts_ms(deployment, names[WARM:]))


def _parts_ms(deployment: Deployment, names: list[str]) -> dict[str, float]:
    found = deployment.documents({"_id": {"$in": [f"default/{name}" for name in names]}})
    timings = [document["result"]["timing"] for document in found]
    return {part: statistics.median(timing[part] for timing in timings) for part in timings[0]}


def _times(took: list[float]) -> Times:
    return Times(percentile(took, 50), percentile(took, 99))


async def _served(deployment: Deployment, count: int) -> None:
    await deployment.until(lambda: _ended(deployment) >= count, 120)


def _ended(deployment: Deployment) -> int:
    return deployment.count({"batch": "default/w", "state": "succeeded"})


def _batch(kind: str, numbers: Iterable[int]) -> Iterator[Record]:
    return (Record("jobs.batch", _job(f"{kind}-{number}", batch_id="w")) for number in numbers)


def _interactive(name: str) -> Record:
    return Record("jobs.interactive", _job(name, reply_to=REPLIES))


def _job(name: str, **fields: Any) -> bytes:  # noqa: ANN401 fields of a job
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "word " * 200}], "max_tokens": 64}
    return orjson.dumps({"id": name, "body": body, **fields})
