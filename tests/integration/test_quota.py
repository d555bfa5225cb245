"""A tenant's limit over several workers, and what a crash does to it."""

from pathlib import Path

import pytest

from broker.local.stack import Stack
from tests.integration.deployment import chat, deployed

pytestmark = pytest.mark.timeout(180)
LEASE_S = 6
LIMIT = 100


async def test_two_workers_keep_a_limit_and_a_crash_only_delays_what_is_left(
    stack: Stack, prefix: str, tmp_path: Path
) -> None:
    file = tmp_path / "aibroker.yaml"
    file.write_text(f"quotas: [{{tenant: acme, requests: {LIMIT}, policy: wait}}]\n")
    short = {"AIBROKER_SETTINGS": str(file), "AIBROKER_LEASE_S": str(LEASE_S), "AIBROKER_SESSION_TIMEOUT_S": "6"}
    async with deployed(stack, prefix, {"default": {"latency": {"kind": "fixed", "ms": 300}}}) as deployment:
        workers = await deployment.workers(2, AIBROKER_WORKER_SLOTS="10", **short)
        await deployment.send([chat(f"q{number}", tenant="acme") for number in range(1_000)])
        await deployment.until(lambda: len(deployment.calls()) >= LIMIT // 3)
        for worker in workers:
            await stack.kill_worker(worker)
        billed = deployment.count({"billed": True}, "usage")
        assert billed < LIMIT

        [survivor] = await deployment.workers(1, **short)
        await deployment.until(lambda: deployment.count({"billed": True}, "usage") == LIMIT, 3 * (LEASE_S + 10))
        await deployment.until_count(1_000 - LIMIT, {"state": "waiting", "why_waiting": "quota"})
        answered = [call for call in deployment.calls() if call["outcome"] == "answered"]
        assert deployment.count({"billed": True}, "usage") == LIMIT
        assert len(answered) <= LIMIT + 2 * 10  # one lease of each worker's open calls
        await deployment.stop(survivor)
