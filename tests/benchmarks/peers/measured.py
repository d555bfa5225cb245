"""What the peers share: their arguments, the bodies of their calls, and the CPU time of a whole process."""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import distributions, version
from typing import Any

TEXT = "words of a prompt " * 55  # 1 kB


def arguments() -> argparse.Namespace:
    """Where the provider, Kafka and MongoDB are, and how many calls."""
    parser = argparse.ArgumentParser()
    for name in ("url", "kafka", "mongo", "topic", "out"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--jobs", type=int, required=True)
    return parser.parse_args()


def body(number: int) -> dict[str, Any]:
    """One chat of about 1 kB."""
    return {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": f"{number} {TEXT}"}],
        "max_tokens": 100,
    }


async def measured(work: Callable[[], Awaitable[None]], jobs: int, *packages: str) -> None:
    """Do it, and print what it cost, and the versions of those packages that are here: who uses which changes with the versions."""
    cpu, wall = time.process_time(), time.perf_counter()
    await work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    here = {distribution.name for distribution in distributions()}
    versions = {package: version(package) for package in packages if package in here}
    print(json.dumps({"cpu_us_per_job": cpu / jobs * 1e6, "jobs_per_s": jobs / wall, "versions": versions}))  # noqa: T201 the answer


async def all_at_once(call: Callable[[int], Awaitable[object]], jobs: int, at_once: int) -> None:
    """Every call in a task of its own, so many at a time."""
    slots = asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        async with slots:
            await call(number)

    await asyncio.gather(*(one(number) for number in range(jobs)))
