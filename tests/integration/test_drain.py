"""Workers that are asked to end: listed, drained across processes, their last calls kept, the rest handed to others."""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from broker import kafka
from broker.cli.application import run
from broker.local.processes import Child
from broker.local.stack import Stack
from tests.faults.reading import PRIORITIES
from tests.integration.deployment import Deployment, chat, deployed

pytestmark = pytest.mark.timeout(180)

FAST = {"AIBROKER_LEASE_S": "6", "AIBROKER_SESSION_TIMEOUT_S": "6"}
SLOW = {"default": {"latency": {"ms": 200}}, "models": {"gpt-4o": {"latency": {"ms": 25_000}}}}


def slow(job_id: str) -> dict[str, Any]:
    job = chat(job_id)
    return {**job, "body": {**job["body"], "model": "gpt-4o"}}


async def command(deployment: Deployment, *arguments: str) -> int:
    return await asyncio.to_thread(run, list(arguments), deployment.environment)


def events(worker: Child, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in worker.output().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


def incarnation(worker: Child) -> str:
    return str(events(worker, "worker.ready")[0]["incarnation"])


async def test_a_drained_worker_ends_its_calls_hands_back_the_rest_and_lets_others_read_on(
    stack: Stack, prefix: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    async with deployed(stack, prefix, SLOW) as deployment:
        # It would cut its calls after a second if it took the drain for a signal; it has room for 20 calls, and 30 more wait there.
        tight = {"AIBROKER_WORKER_GRACE_S": "1", "AIBROKER_WORKER_SLOTS": "20", **FAST}
        drained, *_ = await deployment.workers(1, **tight)
        await deployment.send([slow(f"s{number}") for number in range(50)])
        await deployment.until(lambda: len(deployment.calls()) >= 18)
        held = len(deployment.calls())
        other, *_ = await deployment.workers(1, **FAST)

        capfdbinary.readouterr()
        assert await command(deployment, "drain", incarnation(drained)[:8], "--json") == 0
        asked = json.loads(capfdbinary.readouterr().out)
        assert asked == {"incarnation": incarnation(drained), "state": "draining"}
        assert await command(deployment, "workers", "--json") == 0
        listed = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
        assert {row["incarnation"]: row["state"] for row in listed} == {
            incarnation(drained): "draining",
            incarnation(other): "living",
        }
        assert all(0 < row["lease_s"] <= 6 and row["host"] and row["pid"] for row in listed)

        await deployment.until(lambda: bool(events(drained, "worker.stopping")))
        assert events(drained, "worker.stopping")[0]["phase"] == "draining"
        await deployment.until(lambda: _is_left(deployment, members=1))
        assert deployment.count({"owner": incarnation(drained), "state": "claimed"}) > 0
        await deployment.send([chat(f"q{number}") for number in range(40)])
        await deployment.until_count(40, {"job_id": {"$regex": "^q"}, "state": "succeeded"})
        assert await drained.ended(60)
        assert drained.exit_code == 0
        await deployment.until_count(90, {"state": "succeeded"}, 60)
        assert Counter(call["outcome"] for call in deployment.calls()) == {"answered": 90}
        assert deployment.count({"owner": incarnation(drained)}) == held
        assert deployment.count({"_id": incarnation(drained)}, "workers") == 0
        await deployment.stop(other)


async def _is_left(deployment: Deployment, members: int) -> bool:
    """Whether each group has so many members only."""
    async with kafka.admin(deployment.settings) as admin:
        groups = [deployment.services.group(name) for name in (*PRIORITIES, "control")]
        answers = [
            await admin.describe_consumer_groups([group]) for group in groups
        ]  # it cannot read two in one answer
    described = [group for [answer] in answers for group in answer.to_object()["groups"]]
    return [len(group["members"]) for group in described] == [members] * len(groups)


async def test_a_signal_bounds_a_drain_by_the_grace(stack: Stack, prefix: str) -> None:
    async with deployed(stack, prefix, SLOW) as deployment:
        worker, *_ = await deployment.workers(1, AIBROKER_WORKER_GRACE_S="1", **FAST)
        await deployment.send([slow("s1")])
        await deployment.until(lambda: len(deployment.calls()) == 1)
        assert await command(deployment, "drain", "--all") == 0
        await deployment.until(lambda: bool(events(worker, "worker.stopping")))
        worker.terminate()
        assert await worker.ended(12)
        assert worker.exit_code == 0
        assert deployment.documents({"state": "waiting"})[0]["why_waiting"] == "handed_back"


async def test_a_drain_of_nobody_or_of_somebody_unknown_says_so(
    stack: Stack, prefix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with deployed(stack, prefix) as deployment:
        assert await command(deployment, "topics") == 0
        capfd.readouterr()
        assert await command(deployment, "workers") == 0
        assert "no worker lives" in capfd.readouterr().out
        assert await command(deployment, "drain", "--all") == 0
        assert await command(deployment, "drain") == 2
        assert await command(deployment, "drain", "1234") == 2
        assert "aibroker workers" in capfd.readouterr().err
