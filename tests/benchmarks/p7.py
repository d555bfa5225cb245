"""P7: ten thousand calls in flight in one worker, a minute each: what each costs in memory, and whether the worker stays in its groups.

Over HTTP/1.1 the simulator counts the calls; each is a connection, so both processes need as many file descriptors. Over HTTP/2 they share
connections to a server of an environment of its own, which counts them likewise, and says how many came over HTTP/2.
"""

import asyncio
import json
import resource
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import orjson
import psutil
from aiokafka.admin import AIOKafkaAdminClient

from broker.local import ports, readiness
from broker.local.processes import Child, Children
from broker.local.stack import Stack
from tests.benchmarks.environments import SCRIPTS, python_with
from tests.benchmarks.ground import Entry, Figure, Options, Record, fresh, produce, rss_bytes
from tests.faults.reading import Services, read_stats
from tests.integration.deployment import Deployment, chat

CALLS = 10_000
CALL_S = 60
KB_A_CALL, KB_A_CALL_OVER_HTTP2 = 70.0, 30.0
BESIDE = 500
"""File descriptors beside the calls'."""
START_S = 60
TEXT = "words of a prompt " * 55  # 1 kB
SETTINGS = (
    "worker: {{slots: {calls}, ready: {calls}, reserved_share: 0}}\nguards: {{pii_input: flag, pii_output: flag}}\n"
)


class Held(NamedTuple):
    """What was seen of calls that were held."""

    most: int
    """As many were open at once, by the provider's count."""
    rss_mb: tuple[int, int]
    """Before, and with the most of them open."""
    kb_a_call: float
    open_after_s: float
    connections: int
    lost: int
    """Members that left their group."""


async def measure(stack: Stack, options: Options) -> Entry:
    """Open the calls, and look at them while they last: over HTTP/1.1, then over HTTP/2."""
    calls = options.sized(CALLS)
    _allow_files(calls + BESIDE)
    behaviour = {"default": {"latency": {"ms": CALL_S * 1_000}}}
    async with fresh(stack, options, SETTINGS.format(calls=calls), behaviour) as deployment:
        services = deployment.services
        one = await _held(deployment, {}, calls, lambda: int(read_stats(services)["open"]))
        outcomes = Counter(str(call["outcome"]) for call in deployment.calls())
    async with (
        _http2_provider(options, calls) as url,
        fresh(stack, options, SETTINGS.format(calls=calls)) as deployment,
    ):
        told = {"AIBROKER_PROVIDERS_SIM_BASE_URL": f"{url}/v1", "AIBROKER_PROVIDERS_SIM_HTTP2": "true"}
        two = await _held(deployment, told, calls, lambda: _counts(url)["open"])
        counts = _counts(url)
    if counts["over_http2"] < calls:
        raise RuntimeError(f"of {calls} calls that were meant to, {counts['over_http2']} came over HTTP/2")
    figures = {
        "kB of RSS a call": Figure(one.kb_a_call, "<=", KB_A_CALL),
        "calls in flight": Figure(one.most, ">=", calls),
        "kB of RSS a call over HTTP/2": Figure(two.kb_a_call, "<=", KB_A_CALL_OVER_HTTP2),
        "calls in flight over HTTP/2": Figure(two.most, ">=", calls),
        "members that left their group": Figure(one.lost + two.lost, "<=", 0),
    }
    conditions = {
        "call_s": CALL_S,
        "http1": {**one._asdict(), "calls_by_outcome": dict(outcomes)},
        "http2": {**two._asdict(), "calls_not_answered": counts["calls"] - counts["answered"]},
    }
    return Entry(figures, conditions)


async def _held(deployment: Deployment, told: Mapping[str, str], calls: int, count: Callable[[], int]) -> Held:
    """Have a worker open the calls, and wait until all have ended well; `count` says how many are open."""
    [worker] = await deployment.workers(**told)
    before, members = rss_bytes(worker), await _members(deployment.services)
    await produce(deployment.services, (Record("jobs.normal", _job(number)) for number in range(calls)))
    most, rss, connections, open_after_s, began = 0, before, 0, 0.0, time.monotonic()
    while most < calls and time.monotonic() - began < 3 * CALL_S:
        await asyncio.sleep(0.5)
        if (here := await asyncio.to_thread(count)) > most:
            most, rss, open_after_s = here, rss_bytes(worker), time.monotonic() - began
            connections = len(psutil.Process(worker.pid).net_connections("tcp"))
    await deployment.until_count(calls, {"state": "succeeded"}, 5 * CALL_S)
    lost = len(members - await _members(deployment.services))
    await deployment.stop(worker)
    rss_mb = (round(before / 1e6), round(rss / 1e6))
    held = Held(most, rss_mb, (rss - before) / max(most, 1) / 1_000, round(open_after_s, 1), connections, lost)
    sys.stderr.write(f"P7: {held}\n")
    return held


@asynccontextmanager
async def _http2_provider(options: Options, calls: int) -> AsyncIterator[str]:
    """The address of a provider that holds so many calls on one connection."""
    python, port = await python_with(options.cache, "http2_provider", ("granian",)), ports.choose(0, "the provider")
    command = [
        str(python),
        "-m",
        "granian",
        "--interface",
        "rsgi",
        "--host",
        ports.HOST,
        "--port",
        str(port),
        "--no-log",
    ]
    command += ["--http2-max-concurrent-streams", str(calls), "--backpressure", str(calls + BESIDE)]
    command += ["--working-dir", str(SCRIPTS), "http2_provider:app"]
    url = f"http://{ports.HOST}:{port}"

    async def answers() -> bool:
        return await readiness.http_answers(url, "/")

    with Children(options.folder / "logs") as children:
        child: Child = children.start("http2-provider", command, {"PATH": "/usr/bin:/bin", "HOLD_S": str(CALL_S)})
        await child.ready(answers, START_S)
        yield url


def _counts(url: str) -> dict[str, int]:
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 our own server
        counts: dict[str, int] = json.load(answer)
        return counts


def _allow_files(needed: int) -> None:
    """Raise the limit for us and our children."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < needed:
        raise RuntimeError(f"a process may open {hard} files here, and {needed} are needed: raise `ulimit -Hn`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _job(number: int) -> bytes:
    job = chat(f"p7-{number}")
    messages = [{"role": "user", "content": f"{number} {TEXT}"}]
    return orjson.dumps({**job, "tenant": f"t{number % 4}", "body": {**job["body"], "messages": messages}})


async def _members(services: Services) -> set[str]:
    """The members of the readers' groups; who was expelled and came back is another one."""
    admin = AIOKafkaAdminClient(bootstrap_servers=services.kafka)
    await admin.start()
    try:
        groups = [services.group(priority) for priority in ("interactive", "normal", "batch")]
        answers: list[Any] = [
            await admin.describe_consumer_groups([group]) for group in groups
        ]  # two are too many for it
        found: list[Mapping[str, Any]] = [group for [answer] in answers for group in answer.to_object()["groups"]]
        return {member["member_id"] for group in found for member in group["members"]}
    finally:
        await admin.close()
