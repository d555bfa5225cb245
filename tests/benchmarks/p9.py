"""P9: how fast the client submits, against the bare library with the same bytes in turn; and how much memory a submitter of a million lines needs.

Both send the same records, headers included, from one process to a topic of the same Kafka; the client reads, checks and completes each line besides.
Memory is the highest that the command `aibroker submit` had resident, for a short file and for a long one.
"""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

from broker.client import Client
from broker.kafka import producer
from broker.local.stack import Stack
from tests.benchmarks.ground import Entry, Figure, Options, fresh
from tests.integration.deployment import Deployment

TARGET = 0.5
TARGET_MB = 50
JOBS = 50_000
ROUNDS = 5
LOOK_S = 0.2
FEW, MANY = 10_000, 1_000_000
WORDS = "words of a prompt that is as long as usual " * 20
PROGRAM = Path(sys.executable).parent / "aibroker"


async def measure(stack: Stack, options: Options) -> Entry:
    """Alternate both; the median of the ratios counts."""
    jobs = [line(number) for number in range(options.sized(JOBS))]
    rounds = options.rounds or ROUNDS
    bare, ours = [], []
    async with fresh(stack, options) as deployment:
        for number in range(rounds):
            bare.append(await with_the_library(deployment, jobs))
            ours.append(await with_the_client(deployment, jobs))
            sys.stderr.write(f"P9 {number + 1}/{rounds}: bare {bare[-1]:,.0f}/s, client {ours[-1]:,.0f}/s\n")
        few, many = options.sized(FEW), options.sized(MANY)
        peaks = [await peak_mb(deployment, options.folder, count) for count in (few, many)]
    ratios = [fast / base for fast, base in zip(ours, bare, strict=True)]
    conditions = {
        "jobs": len(jobs),
        "bytes": len(jobs[0]),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "bare_per_s": [round(each) for each in bare],
        "client_per_s": [round(each) for each in ours],
        "lines": [few, many],
        "peak_rss_mb": [round(each, 1) for each in peaks],
    }
    figures = {
        "rate": Figure(statistics.median(ratios), ">=", TARGET),
        "memory, MB": Figure(peaks[1] - peaks[0], "<=", TARGET_MB),
    }
    return Entry(figures, conditions)


def line(number: int) -> bytes:
    """A job of about 1 kB."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"{number} {WORDS}"}]}
    return orjson.dumps({"id": f"job-{number}", "batch_id": "b", "tenant": "acme", "body": body})


async def with_the_library(deployment: Deployment, jobs: list[bytes]) -> float:
    """One task that sends and lets the library gather batches, its fastest plain way: records a second."""
    topic = deployment.services.topic("jobs.batch")
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_type", b"aibroker.job.v1"),
        ("ce_source", deployment.settings.source.encode()),
        ("content-type", b"application/json"),
    ]
    sender = producer(deployment.settings, linger_ms=5)
    await sender.start()
    try:
        await sender.partitions_for(topic)
        begun = time.perf_counter()
        for number, job in enumerate(jobs):
            own = [("ce_id", b"job-%d" % number), ("ce_subject", b"acme/job-%d" % number)]
            await sender.send(topic, job, headers=[*headers, *own])
        await sender.flush()
        return len(jobs) / (time.perf_counter() - begun)
    finally:
        await sender.stop()


async def with_the_client(deployment: Deployment, jobs: list[bytes]) -> float:
    """The client's way for many lines: records a second."""
    async with Client(deployment.settings) as client:
        begun = time.perf_counter()
        submitted = await client.send_many(jobs, priority="batch")
        took_s = time.perf_counter() - begun
    if submitted.count != len(jobs):
        raise RuntimeError(f"{submitted.count} of {len(jobs)} were sent: {submitted.refused[:1]}")
    return len(jobs) / took_s


async def peak_mb(deployment: Deployment, folder: Path, count: int) -> float:
    """The highest resident memory of `aibroker submit` of so many lines."""
    file = folder / f"{count}.jsonl"
    with file.open("wb") as lines:
        lines.writelines(numbered(count))
    environment = {"PATH": os.environ["PATH"], **deployment.environment}
    process = await asyncio.create_subprocess_exec(
        *(str(PROGRAM), "submit", str(file)), env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    ended, peak = asyncio.create_task(process.wait()), 0.0
    while not (await asyncio.wait({ended}, timeout=LOOK_S))[0]:
        peak = max(peak, high_water_mb(process.pid))
    file.unlink()
    if process.returncode:
        raise RuntimeError(f"submit of {count} lines ended with {process.returncode}")
    return peak


def high_water_mb(pid: int) -> float:
    """The highest resident memory of a process so far, as the kernel keeps it; what `wait4` tells has its parent's in it."""
    status = Path(f"/proc/{pid}/status").read_text()
    [kilobytes] = [row.split()[1] for row in status.splitlines() if row.startswith("VmHWM")] or ["0"]
    return int(kilobytes) * 1024 / 1e6


def numbered(count: int) -> Iterator[bytes]:
    """Lines of a file."""
    return (line(number) + b"\n" for number in range(count))
