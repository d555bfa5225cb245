"""P1: CPU per job of a worker with everything on, against the floor: the shortest loop that does the mission without any policy.

Both serve the same jobs from the same Kafka to the same simulator and MongoDB, in turn. CPU is user + system of the whole worker process, from
the first fetch to the last commit. What was on is verified afterwards: documents, ledger rows, quota rows, spans.
"""

import asyncio
import json
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pymongo
from aiokafka import AIOKafkaProducer

from broker import topics
from broker.local.processes import Child
from broker.local.stack import Stack
from broker.settings import load
from tests.faults.reading import Services
from tests.faults.waiting import until_ended

TARGET = 2.0
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


async def ours(stack: Stack, folder: Path, prefix: str, payloads: list[bytes]) -> Measured:
    """Run one worker once, and verify that everything was on."""
    assert stack.simulator is not None
    services = Services(stack.kafka_url, stack.mongo_url, prefix, prefix, stack.simulator.url)
    file = folder / "p1.yaml"
    file.write_text(SETTINGS)
    environment = {
        "AIBROKER_SETTINGS": str(file),
        "AIBROKER_KAFKA": services.kafka,
        "AIBROKER_MONGO": services.mongo,
        "AIBROKER_PREFIX": prefix,
        "AIBROKER_PROVIDERS_SIM_BASE_URL": f"{services.simulator}/v1",
        "AIBROKER_PROVIDERS_SIM_API_KEY": "key",
    }
    await topics.ensure(load(environment))
    [worker] = await stack.start_workers(1, environment)
    process, loop = psutil.Process(worker.pid), asyncio.get_running_loop()
    before, started = _cpu_s(process), loop.time()
    await _produce(services, payloads)
    if not await until_ended(services, 180):
        raise RuntimeError(f"the jobs did not end; the worker's log is {worker.log}")
    used, wall = _cpu_s(process) - before, loop.time() - started
    await stack.stop_worker(worker)
    _verify(services, worker, len(payloads))
    return Measured(used / len(payloads) * 1e6, len(payloads) / wall)


async def compare(stack: Stack, folder: Path, script: Path, *, jobs: int, pairs: int) -> dict[str, Any]:
    """Alternate both; return P1's entry of the table."""
    payloads = _jobs(script, jobs)
    ratios, floors, products = [], [], []
    for pair in range(pairs):
        low = await floor(script, stack, jobs)
        high = await ours(stack, folder, f"p1x{pair}x{psutil.Process().pid}", payloads)
        ratios.append(high.cpu_us_per_job / low.cpu_us_per_job)
        floors.append(low)
        products.append(high)
        sys.stderr.write(f"P1 pair {pair + 1}/{pairs}: floor {low}, aibroker {high}, ratio {ratios[-1]:.2f}\n")
    value = statistics.median(ratios)
    return {
        "value": round(value, 3),
        "target": TARGET,
        "holds": value <= TARGET,
        "conditions": {
            "jobs": jobs,
            "pairs": pairs,
            "ratios": [round(ratio, 3) for ratio in ratios],
            "floor_cpu_us_per_job": [round(run.cpu_us_per_job, 1) for run in floors],
            "cpu_us_per_job": [round(run.cpu_us_per_job, 1) for run in products],
            "floor_jobs_per_s": [round(run.jobs_per_s) for run in floors],
            "jobs_per_s": [round(run.jobs_per_s) for run in products],
            "on": "guards both ways, token estimate, quota (three kinds), ledger, telemetry with spans 1 in 100, 1,000 calls in flight",
        },
    }


def _jobs(script: Path, count: int) -> list[bytes]:
    """The floor's own jobs."""
    names: dict[str, Any] = {"__name__": "floor"}
    exec(compile(script.read_text(), str(script), "exec"), names)  # noqa: S102 the yardstick is a script, not a module
    made: list[bytes] = names["make_jobs"](count)
    return made


async def _produce(services: Services, payloads: list[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=services.kafka, acks="all", linger_ms=5, max_batch_size=262_144)
    await producer.start()
    try:
        for number, payload in enumerate(payloads):
            sampled = "01" if number % SPAN_EVERY == 0 else "00"
            trace = f"00-{number + 1:032x}-{number + 1:016x}-{sampled}".encode()
            topic = services.topic(f"jobs.{PRIORITIES[number % 3]}")
            await producer.send(topic, payload, headers=[("traceparent", trace)])
        await producer.flush()
    finally:
        await producer.stop()


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _verify(services: Services, worker: Child, jobs: int) -> None:
    """Everything was on, or the figure would say nothing."""
    with pymongo.MongoClient[dict[str, Any]](services.mongo) as client:
        database = client[services.database]
        found: Mapping[str, int] = {
            "succeeded documents": database["jobs"].count_documents({"state": "succeeded"}),
            "billed rows": database["usage"].count_documents({"billed": True, "estimated": False}),
            "quota rows": database["quotas"].count_documents({}),
            "spans": sum('"event":"span"' in line for line in worker.log.read_text().splitlines()),
        }
        client.drop_database(services.database)
    wanted = {"succeeded documents": jobs, "billed rows": jobs, "quota rows": 4, "spans": jobs // SPAN_EVERY}
    if found != wanted:
        raise RuntimeError(f"not everything was on: {found}, not {wanted}")
