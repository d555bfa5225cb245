"""P2: jobs per CPU second of a worker with everything on, against what people use instead; each peer in an environment of its own.

All ask the same simulator for the same answers. CPU is user + system of the whole process, from the first call to the last. A peer neither keeps a
ledger nor survives its own death; the worker does. The parallel script has no target: it is shown for orientation.
"""

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from broker.local.stack import Stack
from tests.benchmarks import p1
from tests.benchmarks.environments import SCRIPTS, command, python_with
from tests.benchmarks.ground import Entry, Figure, Options

JOBS = 4_000
PEER_JOBS = 2_000
ROUNDS = 3
RUN_S = 180


@dataclass(frozen=True)
class Peer:
    """A script, what it needs, and how many times as much as it we are to do for the same CPU."""

    script: str
    packages: tuple[str, ...]
    times: float | None


PEERS = {
    "LiteLLM's router": Peer("litellm_router", ("litellm",), 20),
    "AsyncOpenAI": Peer("openai_client", ("openai",), 15),
    "FastStream handler": Peer("faststream_handler", ("faststream[kafka]", "httpx", "pymongo"), 20),
    "parallel script": Peer("parallel_script", ("aiohttp",), None),
}


async def measure(stack: Stack, options: Options) -> Entry:
    """Alternate the worker and each peer; the medians of the ratios count."""
    pythons = {name: await python_with(options.cache, peer.script, peer.packages) for name, peer in PEERS.items()}
    payloads = p1.made_jobs(options.floor, options.sized(JOBS))
    ours: list[float] = []
    theirs: dict[str, list[dict[str, Any]]] = {name: [] for name in PEERS}
    for number in range(options.rounds or ROUNDS):
        ours.append((await p1.ours(stack, options, payloads)).cpu_us_per_job)
        for name, peer in PEERS.items():
            theirs[name].append(await _run(stack, options, peer, pythons[name]))
        shown = {name: round(runs[-1]["cpu_us_per_job"]) for name, runs in theirs.items()}
        sys.stderr.write(f"P2 {number + 1}: aibroker {ours[-1]:.0f} us of CPU a job, {shown}\n")
    ratios = {
        name: statistics.median(run["cpu_us_per_job"] / us for run, us in zip(runs, ours, strict=True))
        for name, runs in theirs.items()
    }
    figures = {name: Figure(ratios[name], ">=", peer.times) for name, peer in PEERS.items() if peer.times is not None}
    conditions = {
        "jobs": len(payloads),
        "jobs_of_peers": options.sized(PEER_JOBS),
        "cpu_us_per_job": [round(us) for us in ours],
        "cpu_us_per_job_of_peers": {
            name: [round(run["cpu_us_per_job"]) for run in runs] for name, runs in theirs.items()
        },
        "without_target": {name: round(ratios[name], 2) for name, peer in PEERS.items() if peer.times is None},
        "versions": {name: runs[0]["versions"] for name, runs in theirs.items()},
    }
    return Entry(figures, conditions)


async def _run(stack: Stack, options: Options, peer: Peer, python: Path) -> dict[str, Any]:
    assert stack.simulator is not None
    topic, jobs = f"p2-{peer.script}", options.sized(PEER_JOBS)
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_url)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 6, 1)])
        said = await command(
            RUN_S,
            *(str(python), str(SCRIPTS / f"{peer.script}.py"), "--url", stack.simulator.url, "--jobs", str(jobs)),
            *("--kafka", stack.kafka_url, "--mongo", stack.mongo_url, "--topic", topic),
            *("--out", str(options.folder / "parallel.jsonl")),
        )
        await admin.delete_topics([topic])
    finally:
        await admin.close()
    answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    return answer
