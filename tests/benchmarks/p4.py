"""P4: an interactive job behind 100,000 waiting batch jobs, against one in an empty system, and what many waiting jobs cost each that runs.

The provider takes 200 ms. What it may be asked at once is set so that it serves half of what this machine was measured to serve when the provider
takes no time. A batch job's CPU is the whole worker's while as many batch jobs come as are served, so that reading is part of it in both cases.
"""

import asyncio
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import orjson

from broker.local.processes import Child
from broker.local.stack import Stack
from tests.benchmarks.ground import Entry, Figure, Options, Record, cpu_s, fresh, produce
from tests.benchmarks.pace import arrivals, send_at
from tests.benchmarks.percentiles import percentile
from tests.integration.deployment import Deployment

LATENCY_S = 0.2
BEHAVIOUR = {"default": {"latency": {"ms": 1000 * LATENCY_S}}}
RESERVED_SHARE = 0.1
CAPACITY_JOBS = 8_000
WAITING = 100_000
FEW = 1_000
INTERACTIVE = 500
INTERACTIVE_PER_S = 25
FED_S = 15.0
REPLIES = "results.replies"


class Times(NamedTuple):
    """From submit to result, in milliseconds."""

    p50: float
    p99: float


async def measure(stack: Stack, options: Options) -> Entry:
    """Capacity, then CPU with few waiting, then one worker without and with many waiting."""
    per_s = await _capacity(stack, options) / 2
    slots = max(round(per_s * LATENCY_S / (1 - RESERVED_SHARE)), 10)
    settings = f"worker: {{slots: {slots}, reserved_share: {RESERVED_SHARE}}}"
    async with fresh(stack, options, settings, BEHAVIOUR) as deployment:
        [worker] = await deployment.workers()
        few_us = await _cpu_us_per_job(deployment, worker, per_s, options.sized(FEW))
    async with fresh(stack, options, settings, BEHAVIOUR) as deployment:
        [worker] = await deployment.workers()
        empty = await _asked(deployment, options.sized(INTERACTIVE), "e")
        many_us = await _cpu_us_per_job(deployment, worker, per_s, options.sized(WAITING))
        behind = await _asked(deployment, options.sized(INTERACTIVE), "l")
        left = deployment.count({"state": "waiting", "priority": "batch"})
    figures = {
        "p50 of an interactive job / in the empty system": Figure(behind.p50 / empty.p50, "<=", 1.2),
        "p99 of an interactive job / in the empty system": Figure(behind.p99 / empty.p99, "<=", 1.5),
        "CPU of a batch job / with few waiting": Figure(many_us / few_us, "<=", 1.1),
    }
    conditions = {
        "ms_empty": empty._asdict(),
        "ms_behind": behind._asdict(),
        "cpu_us_per_batch_job": {"few": round(few_us), "many": round(many_us)},
        "still_waiting_at_the_end": left,
        "capacity_per_s": round(2 * per_s),
        "limit": f"{slots} slots, {RESERVED_SHARE:.0%} of them for interactive jobs, calls of 200 ms",
        "interactive": f"{options.sized(INTERACTIVE)} jobs, {INTERACTIVE_PER_S} a second, answered on {REPLIES}",
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
    await produce(deployment.services, _batch("w", range(waiting)))
    jobs = deployment.mongo[deployment.services.database]["jobs"]
    await deployment.until(lambda: jobs.estimated_document_count() >= waiting, 180)  # the bulk of it was read
    moments = ((number / per_s, record) for number, record in enumerate(_batch("f", range(int(per_s * FED_S)))))
    before, cpu_before = _ended(deployment), cpu_s(worker)
    await send_at(deployment.services, moments)
    used, served = cpu_s(worker) - cpu_before, _ended(deployment) - before
    sys.stderr.write(f"P4: {used / served * 1e6:.0f} us a job, {served / FED_S:.0f} jobs/s with {waiting} waiting\n")
    return used / served * 1e6


async def _asked(deployment: Deployment, count: int, kind: str) -> Times:
    """Send interactive jobs one by one, and say how long their results took."""
    names = [f"{kind}-{number}" for number in range(count)]
    moments = ((number / INTERACTIVE_PER_S, _interactive(name)) for number, name in enumerate(names))
    async with arrivals(deployment.services, REPLIES) as came:
        sent = await send_at(deployment.services, moments)
        await deployment.until(lambda: len(came) == count, 60)
    took = [(came[f"default/{name}"] - at) * 1000 for name, at in zip(names, sent, strict=True)]
    times = Times(percentile(took, 50), percentile(took, 99))
    sys.stderr.write(f"P4: {times}\n")
    return times


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
