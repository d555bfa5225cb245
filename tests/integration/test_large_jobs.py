"""Jobs of nearly a megabyte: what a worker holds stays bounded, its partitions pause while too much waits and go on afterwards."""

import json
from typing import Any

import pytest

from broker.local.processes import Child
from broker.local.stack import Stack
from tests.integration.deployment import chat, deployed

pytestmark = pytest.mark.timeout(240)

JOBS = 60
TEXT = "many words of one prompt " * 36_000  # 900 kB
SMALL = {
    "AIBROKER_WORKER_PAYLOAD_MB": "8",
    "AIBROKER_WORKER_READ_MB": "2",
    "AIBROKER_WORKER_WAITING_MB": "20",
    "AIBROKER_GUARDS_PII_INPUT": "allow",
}


def large(name: str) -> dict[str, Any]:
    job = chat(name)
    return {**job, "body": {**job["body"], "messages": [{"role": "user", "content": TEXT}]}}


def told(worker: Child) -> list[str]:
    lines = [json.loads(line) for line in worker.output().splitlines() if line.startswith("{")]
    return [line["event"] for line in lines if line["event"].startswith("reader.")]


async def test_partitions_pause_while_too_many_bytes_wait_and_go_on_until_every_job_has_ended(
    stack: Stack, prefix: str
) -> None:
    async with deployed(stack, prefix, {"default": {"latency": {"ms": 5_000}}}) as deployment:
        [worker] = await deployment.workers(**SMALL)
        await deployment.send([large(str(number)) for number in range(JOBS)])
        most = 0  # in hand at once

        def paused() -> bool:
            nonlocal most
            most = max(most, deployment.count({"state": "claimed"}))
            return "reader.paused" in told(worker)

        await deployment.until(lambda: paused() and most > 1, 60)
        await deployment.behave({})
        await deployment.until(lambda: deployment.count({"state": "succeeded"}) == JOBS, 150)
        await deployment.until(lambda: told(worker)[-1] == "reader.resumed")
        assert most < JOBS / 2  # 7 fit, and two readings at once come on top, as long as nothing is answered
        await deployment.stop(worker)
