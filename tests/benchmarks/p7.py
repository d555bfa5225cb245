"""P7: ten thousand calls in flight in one worker, a minute each: what each costs in memory, and whether the worker stays in its groups.

The calls are counted by the simulator. Over HTTP/1.1 each is a connection, so both processes need as many file descriptors.
"""

import asyncio
import resource
import time
from collections.abc import Mapping
from typing import Any

import orjson
from aiokafka.admin import AIOKafkaAdminClient

from broker.local.stack import Stack
from tests.benchmarks.ground import Entry, Figure, Options, Record, fresh, produce, rss_bytes
from tests.faults.reading import Services, read_stats
from tests.integration.deployment import chat

CALLS = 10_000
CALL_S = 60
KB_A_CALL = 70.0
BESIDE = 500
"""File descriptors beside the calls'."""
TEXT = "words of a prompt " * 55  # 1 kB
SETTINGS = (
    "worker: {{slots: {calls}, ready: {calls}, reserved_share: 0}}\nguards: {{pii_input: flag, pii_output: flag}}\n"
)


async def measure(stack: Stack, options: Options) -> Entry:
    """Open the calls, and look at them while they last."""
    calls = options.sized(CALLS)
    _allow_files(calls + BESIDE)
    behaviour = {"default": {"latency": {"ms": CALL_S * 1_000}}}
    async with fresh(stack, options, SETTINGS.format(calls=calls), behaviour) as deployment:
        [worker] = await deployment.workers()
        before, members = rss_bytes(worker), await _members(deployment.services)
        await produce(deployment.services, (Record("jobs.normal", _job(number)) for number in range(calls)))
        most, rss, all_open_s, opened_s = 0, before, 0.0, time.monotonic()
        while most < calls and time.monotonic() - opened_s < 3 * CALL_S:
            await asyncio.sleep(0.5)
            here = read_stats(deployment.services)["open"]
            if here > most:
                most, rss, all_open_s = here, rss_bytes(worker), time.monotonic() - opened_s
        await deployment.until_count(calls, {"state": "succeeded"}, 5 * CALL_S)
        lost = len(members - await _members(deployment.services))
        repeated = sum(call["outcome"] != "answered" for call in deployment.calls())
        await deployment.stop(worker)
    conditions = {
        "call_s": CALL_S,
        "open_after_s": round(all_open_s, 1),
        "rss_mb_before_and_then": [round(before / 1e6), round(rss / 1e6)],
        "calls_not_answered": repeated,
        "transport": "HTTP/1.1; HTTP/2 is not built, so its target is not measured",
    }
    figures = {
        "kB of RSS a call": Figure((rss - before) / max(most, 1) / 1_000, "<=", KB_A_CALL),
        "calls in flight": Figure(most, ">=", calls),
        "members that left their group": Figure(lost, "<=", 0),
    }
    return Entry(figures, conditions)


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
