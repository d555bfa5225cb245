"""What is told of jobs on their way: not read, waiting with a time of start that comes true, in the hands of a worker on a host."""

import asyncio
import json
import platform
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.cli.application import run
from broker.local.stack import Stack
from tests.integration.deployment import Deployment, chat, deployed

pytestmark = pytest.mark.timeout(180)


class _Command:
    """Runs the command against a deployment."""

    def __init__(self, deployment: Deployment, capture: pytest.CaptureFixture[bytes]) -> None:
        self.deployment = deployment
        self.capture = capture

    async def lines(self, *arguments: str) -> list[dict[str, Any]]:
        self.capture.readouterr()
        assert await asyncio.to_thread(run, [*arguments, "--json"], self.deployment.environment) == 0
        return [json.loads(line) for line in self.capture.readouterr().out.splitlines()]

    async def status(self, job: str) -> dict[str, Any]:
        (told,) = await self.lines("status", job)
        return told


async def test_a_job_in_the_log_is_not_seen_and_what_is_unread_is_told(
    stack: Stack, prefix: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    async with deployed(stack, prefix) as deployment:
        command = _Command(deployment, capfdbinary)
        assert await command.lines("topics")
        assert await asyncio.to_thread(run, ["status", "n1"], deployment.environment) == 2
        assert b"never sent" in capfdbinary.readouterr().err
        await deployment.send([chat(f"n{number}") for number in range(3)])
        told = await command.status("n1")
        assert (told["state"], told["unread"]) == ("not_seen", {"interactive": 0, "normal": 3, "batch": 0})
        assert [(row["priority"], row["state"], row["jobs"]) for row in await command.lines("status")] == [
            ("normal", "not_seen", 3)
        ]
        assert await asyncio.to_thread(run, ["status", "n1"], deployment.environment) == 0
        assert b"3 of normal are unread" in capfdbinary.readouterr().out


async def test_a_waiting_job_starts_about_when_its_status_says_and_is_then_with_a_worker_of_this_host(
    stack: Stack, prefix: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    async with deployed(stack, prefix, {"default": {"latency": {"ms": 1_000}}}) as deployment:
        command = _Command(deployment, capfdbinary)
        few = {"AIBROKER_WORKER_SLOTS": "5", "AIBROKER_WORKER_READY": "10", "AIBROKER_WORKER_RESERVED_SHARE": "0"}
        worker, *_ = await deployment.workers(1, AIBROKER_LEASE_S="6", **few)
        await deployment.send([chat(f"e{number}") for number in range(120)])
        last = await _last_waiting(deployment)

        async def is_estimated() -> bool:
            """By a whole lease of steady work: five slots, a second for each call."""
            return ((await command.status(last))["starts_per_s"] or 0.0) > 4

        await deployment.until(is_estimated)
        told = await command.status(last)
        asked, estimated = datetime.now(UTC), datetime.fromisoformat(told["estimated_start"])
        assert (told["state"], told["why_waiting"], told["host"]) == ("waiting", "queued", None)
        assert told["jobs_before"] > 20
        assert 4 < told["starts_per_s"] <= 6

        rows = {(row["state"], row["why_waiting"]): row["jobs"] for row in await command.lines("status")}
        assert rows["waiting", "queued"] > 20
        assert 5 <= rows["claimed", None] <= 15

        await deployment.until_count(1, {"job_id": last, "state": "claimed"}, 90)
        told = await command.status(last)
        assert (told["state"], told["host"]) == ("claimed", platform.node())
        late_s = (datetime.now(UTC) - estimated).total_seconds()
        assert abs(late_s) < 4 + 0.3 * (estimated - asked).total_seconds()
        await deployment.stop(worker)


async def _last_waiting(deployment: Deployment) -> str:
    """The job that has its turn last, once all are there: of those that are due at one moment the one that was read last."""
    await deployment.until(lambda: deployment.count({}) == 120)
    waiting = deployment.documents({"state": "waiting"})
    latest = max(job["due_at"] for job in waiting)
    return str([job["job_id"] for job in waiting if job["due_at"] == latest][-1])
