"""P1: CPU per job of a worker with everything on, against the floor: the shortest loop that does the mission without any policy.

Both serve the same jobs from the same Kafka to the same simulator and MongoDB, in turn. CPU is user + system of the whole worker process, from
the first fetch to the last commit. What was on is verified afterwards: documents, ledger rows, quota rows, spans.
"""

import asyncio
import json
import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.local.processes import Child
from broker.local.stack import Stack
from tests.benchmarks.ground import Entry, Figure, Options, Record, cpu_s, fresh, produce
from tests.faults.waiting import until_ended
from tests.integration.deployment import Deployment

TARGET = 1.3
JOBS = 20_000
ROUNDS = 5
SPAN_EVERY = 100
PRIORITIES = ("interactive", "normal", "batch")
SETTINGS = """
quotas: [{tenant: "*", requests: 1000000, tokens: 1000000000, usd: "1000"}]
guards: {pii_input: flag, pii_output: flag}
telemetry: {exporter: log, interval_s: 5}
worker: {slots: 1000}
"""


@dataclass(frozen=True)
class Measured:
    """One run: microseconds of CPU a job, and jobs a second of wall time."""

    cpu_us_per_job: float
    jobs_per_s: float


async def measure(stack: Stack, options: Options) -> Entry:
    """Alternate both; the median of the ratios counts."""
    payloads = made_jobs(options.floor, options.sized(JOBS))
    rounds = options.rounds or ROUNDS
    floors, products = [], []
    for number in range(rounds):
        floors.append(await floor(options.floor, stack, len(payloads)))
        products.append(await ours(stack, options, payloads))
        ratio = products[-1].cpu_us_per_job / floors[-1].cpu_us_per_job
        sys.stderr.write(f"P1 {number + 1}/{rounds}: floor {floors[-1]}, aibroker {products[-1]}, ratio {ratio:.2f}\n")
    ratios = [high.cpu_us_per_job / low.cpu_us_per_job for low, high in zip(floors, products, strict=True)]
    conditions = {
        "jobs": len(payloads),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "floor_cpu_us_per_job": [round(run.cpu_us_per_job, 1) for run in floors],
        "cpu_us_per_job": [round(run.cpu_us_per_job, 1) for run in products],
        "floor_jobs_per_s": [round(run.jobs_per_s) for run in floors],
        "jobs_per_s": [round(run.jobs_per_s) for run in products],
        "on": "guards both ways, token estimate, quota (three kinds), ledger, telemetry with spans 1 in 100, 1,000 calls in flight",
    }
    return Entry({"": Figure(statistics.median(ratios), "<=", TARGET)}, conditions)


async def floor(script: Path, stack: Stack, jobs: int) -> Measured:
    """Run the floor once."""
    assert stack.simulator is not None
    url = f"{stack.simulator.url}/v1/chat/completions"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        *("--kafka", stack.kafka_url, "--mongo", stack.mongo_url, "--url", url, "--jobs", str(jobs), "--slots", "1000"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 180)
    said = json.loads(out)
    return Measured(said["cpu_us_per_job"], said["jobs_per_s"])


async def ours(stack: Stack, options: Options, payloads: list[bytes]) -> Measured:
    """Run one worker once, and verify that everything was on."""
    async with fresh(stack, options, SETTINGS) as deployment:
        [worker] = await deployment.workers()
        loop = asyncio.get_running_loop()
        before, started = cpu_s(worker), loop.time()
        await produce(deployment.services, _records(payloads))
        if not await until_ended(deployment.services, 180):
            raise RuntimeError(f"the jobs did not end; the worker's log is {worker.log}")
        used, wall = cpu_s(worker) - before, loop.time() - started
        await deployment.stop(worker)
        _verify(deployment, worker, len(payloads))
    return Measured(used / len(payloads) * 1e6, len(payloads) / wall)


def made_jobs(script: Path, count: int) -> list[bytes]:
    """The floor's own jobs: about 1 kB, four tenants, prompts of words."""
    if not script.exists():
        raise RuntimeError(f"there is no {script}; name the yardstick with --floor")
    names: dict[str, Any] = {"__name__": "floor"}
    exec(compile(script.read_text(), str(script), "exec"), names)  # noqa: S102 the yardstick is a script, not a module
    made: list[bytes] = names["make_jobs"](count)
    return made


def _records(payloads: list[bytes]) -> Iterator[Record]:
    for number, payload in enumerate(payloads):
        sampled = "01" if number % SPAN_EVERY == 0 else "00"
        trace = f"00-{number + 1:032x}-{number + 1:016x}-{sampled}".encode()
        yield Record(f"jobs.{PRIORITIES[number % 3]}", payload, [("traceparent", trace)])


def _verify(deployment: Deployment, worker: Child, jobs: int) -> None:
    """Everything was on, or the figure would say nothing."""
    found: Mapping[str, int] = {
        "succeeded documents": deployment.count({"state": "succeeded"}),
        "billed rows": deployment.count({"billed": True, "estimated": False}, "usage"),
        "quota rows": deployment.count({}, "quotas"),
        "spans": sum('"event":"span"' in line for line in worker.log.read_text().splitlines()),
    }
    wanted = {"succeeded documents": jobs, "billed rows": jobs, "quota rows": 4, "spans": -(-jobs // SPAN_EVERY)}
    if found != wanted:
        raise RuntimeError(f"not everything was on: {found}, not {wanted}")
