"""P3: how long a job takes beside its provider's time, at half the rate that a worker can do, against the bare path in the same run.

The clock runs from when a producer hands the record over until the result is read from its topic; what the provider took, as the result
says, is subtracted. The bare path makes no call. Two writes a job at once are more than a small machine can do at that rate, and then the bare path
queues; so both are measured at a low rate, too.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from broker.local.stack import Stack
from tests.benchmarks.ground import Entry, Figure, Options, Record, fresh, produce
from tests.benchmarks.percentiles import percentile
from tests.integration.deployment import Deployment, chat

TIMES_P50, TIMES_P99 = 1.5, 2.5
JOBS = 4_000
BURST = 6_000
"""Jobs at once, whose rate is the one that is halved."""
LOW_PER_S = 100.0
LOW_JOBS = 1_500
WARM = 50
"""Jobs that are not measured."""
ROUNDS = 3
SETTINGS = """
quotas: [{tenant: "*", requests: 10000000, tokens: 10000000000, usd: "10000"}]
guards: {pii_input: flag, pii_output: flag}
"""
TEXT = "words of a prompt " * 55  # 1 kB
ARRIVE_S = 90.0


async def measure(stack: Stack, options: Options) -> Entry:
    """Both at half of what a worker can do, then at the low rate."""
    rate = await _rate(stack, options) / 2
    half, half_conditions = await _compared(stack, options, options.sized(JOBS), rate)
    low, low_conditions = await _compared(stack, options, options.sized(LOW_JOBS), LOW_PER_S)
    figures = {**half, **{f"{name} at {LOW_PER_S:.0f} jobs/s": figure for name, figure in low.items()}}
    return Entry(figures, {"half": half_conditions, "low": low_conditions})


async def _compared(
    stack: Stack, options: Options, jobs: int, rate: float
) -> tuple[dict[str, Figure], dict[str, object]]:
    """Alternate both at one rate; the medians of the ratios count."""
    bares, products = [], []
    for number in range(options.rounds or ROUNDS):
        async with fresh(stack, options, SETTINGS) as deployment, _bare(deployment):
            bares.append(_quantiles(await _warm_ms(deployment, jobs, rate)))
        async with fresh(stack, options, SETTINGS) as deployment:
            [worker] = await deployment.workers()
            products.append(_quantiles(await _warm_ms(deployment, jobs, rate)))
            await deployment.stop(worker)
        sys.stderr.write(f"P3 {number + 1}: bare {bares[-1]}, aibroker {products[-1]} (p50, p99 in ms)\n")
    ratios = [[ours[i] / bare[i] for bare, ours in zip(bares, products, strict=True)] for i in (0, 1)]
    return (
        {
            "p50": Figure(statistics.median(ratios[0]), "<=", TIMES_P50),
            "p99": Figure(statistics.median(ratios[1]), "<=", TIMES_P99),
        },
        {"jobs": jobs, "jobs_per_s": round(rate), "bare_p50_p99_ms": bares, "p50_p99_ms": products},
    )


async def _rate(stack: Stack, options: Options) -> float:
    """Jobs a second of one worker with everything at once."""
    count = options.sized(BURST)
    async with fresh(stack, options, SETTINGS) as deployment:
        [worker] = await deployment.workers()
        began = time.monotonic()
        await produce(deployment.services, (Record("jobs.normal", _job(f"r-{number}")) for number in range(count)))
        await deployment.until_count(count, {"state": "succeeded"}, 120)
        took = time.monotonic() - began
        await deployment.stop(worker)
    return count / took


@asynccontextmanager
async def _bare(deployment: Deployment) -> AsyncIterator[None]:
    services = deployment.services
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.benchmarks.bare"),
        *("--kafka", services.kafka, "--mongo", services.mongo, "--database", services.database),
        *("--jobs", services.topic("jobs.normal"), "--results", services.topic("results")),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readline(), 60)
        yield
    finally:
        process.kill()
        await process.wait()


async def _warm_ms(deployment: Deployment, jobs: int, rate: float) -> list[float]:
    """Milliseconds beside the provider's, one a job, of a path whose groups have joined: the first jobs would wait for that."""
    await _latencies_ms(deployment, WARM, rate, "w")
    return await _latencies_ms(deployment, jobs, rate, "j")


async def _latencies_ms(deployment: Deployment, jobs: int, rate: float, kind: str) -> list[float]:
    """Milliseconds beside the provider's, one a job."""
    services = deployment.services
    consumer = AIOKafkaConsumer(
        services.topic("results"), bootstrap_servers=services.kafka, auto_offset_reset="latest", fetch_max_wait_ms=100
    )
    producer = AIOKafkaProducer(bootstrap_servers=services.kafka, acks="all")
    await consumer.start()
    await producer.start()
    try:
        await consumer.seek_to_end()
        sent: dict[bytes, float] = {}
        async with asyncio.timeout(ARRIVE_S + jobs / rate), asyncio.TaskGroup() as group:
            reading = group.create_task(_read(consumer, sent, jobs))
            began = time.monotonic()
            for number in range(jobs):
                await asyncio.sleep(max(began + number / rate - time.monotonic(), 0))
                sent[f"default/{kind}-{number}".encode()] = time.monotonic()
                await producer.send(services.topic("jobs.normal"), _job(f"{kind}-{number}"))
        return reading.result()
    finally:
        await producer.stop()
        await consumer.stop()


async def _read(consumer: AIOKafkaConsumer, sent: dict[bytes, float], jobs: int) -> list[float]:
    found: dict[bytes, float] = {}
    while len(found) < jobs:
        for records in (await consumer.getmany(timeout_ms=500)).values():
            now = time.monotonic()
            for record in records:
                provider_ms = (orjson.loads(record.value).get("timing") or {}).get("provider_ms", 0)
                found.setdefault(record.key, (now - sent[record.key]) * 1_000 - provider_ms)
    return list(found.values())


def _quantiles(latencies_ms: list[float]) -> tuple[float, float]:
    """The median and the 99th percentile."""
    return round(percentile(latencies_ms, 50), 2), round(percentile(latencies_ms, 99), 2)


def _job(name: str) -> bytes:
    job = chat(name)
    return orjson.dumps({**job, "body": {**job["body"], "messages": [{"role": "user", "content": TEXT}]}})
