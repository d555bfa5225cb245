"""A worker whose event loop is blocked: it ends by itself, and its job is done by another."""

import pytest

from broker.local.stack import Stack
from tests.integration.deployment import chat, deployed

pytestmark = pytest.mark.timeout(120)


async def test_a_worker_whose_loop_is_blocked_ends_with_70_and_its_job_is_done_by_another(
    stack: Stack, prefix: str
) -> None:
    async with deployed(stack, prefix) as deployment:
        fast = {"AIBROKER_LEASE_S": "6", "AIBROKER_SESSION_TIMEOUT_S": "6", "AIBROKER_WORKER_WATCHDOG_S": "2"}
        blocked, *_ = await deployment.workers(1, AIBROKER_FAIL_AT="block_before_call", **fast)
        await deployment.send([chat("w1")])
        assert await blocked.ended(30)
        assert blocked.exit_code == 70
        assert "the event loop has not turned" in blocked.output()
        assert deployment.calls() == []

        other, *_ = await deployment.workers(1, **fast)
        await deployment.until_count(1, {"state": "succeeded", "takeovers": 1}, 60)
        assert len(deployment.calls()) == 1
        await deployment.stop(other)
