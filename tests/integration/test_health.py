"""A real worker tells who asks whether it lives and is ready, while its services go away and come back, and while its loop stands still."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from broker.cli.application import run
from broker.local.processes import Child
from broker.local.stack import Stack
from tests.integration.deployment import Deployment, chat, deployed

pytestmark = pytest.mark.timeout(240)

SERVED = {"AIBROKER_HEALTH_PORT": "0", "AIBROKER_LEASE_S": "6", "AIBROKER_SESSION_TIMEOUT_S": "6"}


def address(worker: Child) -> str:
    lines = [json.loads(line) for line in worker.output().splitlines() if "worker.ready" in line]
    return str(lines[0]["health"])


class _Asking:
    """Asks one worker."""

    def __init__(self, worker: Child) -> None:
        self.address = address(worker)

    async def ask(self, path: str) -> tuple[int, dict[str, Any]]:
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"{self.address}{path}", timeout=10)
        return answer.status_code, answer.json()

    async def unfit(self) -> set[str]:
        """The checks of /ready that say no."""
        status, document = await self.ask("/ready")
        no = {name for name, check in document["checks"].items() if not check["ok"]}
        assert status == (503 if no else 200)
        return no


async def test_a_worker_is_unready_for_as_long_as_a_service_is_away_and_lives_on(stack: Stack, prefix: str) -> None:
    assert stack.mongod is not None
    assert stack.kafka is not None
    async with deployed(stack, prefix) as deployment:
        worker, *_ = await deployment.workers(1, **SERVED)
        asking = _Asking(worker)

        async def is_unfit(*names: str) -> bool:
            return await asking.unfit() == set(names)

        await deployment.until(is_unfit)
        await stack.mongod.stop()
        await deployment.until(lambda: is_unfit("mongo", "lease"))
        await stack.restart(stack.mongod)
        await deployment.until(is_unfit, 60)
        await stack.kafka.stop()
        await deployment.until(lambda: is_unfit("kafka"))
        assert (await asking.ask("/live"))[0] == 200
        await stack.restart(stack.kafka)
        await deployment.until(is_unfit, 60)
        await deployment.stop(worker)


async def test_a_worker_that_drains_lives_and_is_not_ready_and_is_listed_with_its_address(
    stack: Stack, prefix: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    async with deployed(stack, prefix, {"default": {"latency": {"ms": 8_000}}}) as deployment:
        worker, *_ = await deployment.workers(1, **SERVED)
        asking = _Asking(worker)
        await deployment.send([chat("h1")])
        await deployment.until(lambda: len(deployment.calls()) == 1)
        capfdbinary.readouterr()
        assert await _command(deployment, "workers", "--json") == 0
        assert json.loads(capfdbinary.readouterr().out)["health"] == asking.address
        assert await _command(deployment, "drain", "--all") == 0

        async def drains() -> bool:
            return await asking.unfit() == {"phase"}

        await deployment.until(drains)
        status, document = await asking.ask("/live")
        assert (status, document["phase"]) == (200, "draining")
        assert await worker.ended(30)
        assert deployment.count({"state": "succeeded"}) == 1


async def test_a_worker_whose_loop_stands_still_says_so_itself(stack: Stack, prefix: str) -> None:
    async with deployed(stack, prefix) as deployment:
        patient = {**SERVED, "AIBROKER_WORKER_WATCHDOG_S": "15"}
        worker, *_ = await deployment.workers(1, AIBROKER_FAIL_AT="block_before_call", **patient)
        asking = _Asking(worker)
        await deployment.send([chat("h1")])

        async def lags() -> bool:
            return "loop_lag" in await asking.unfit()

        await deployment.until(lags, 14)
        assert await worker.ended(30)
        assert worker.exit_code == 70


async def _command(deployment: Deployment, *arguments: str) -> int:
    return await asyncio.to_thread(run, list(arguments), deployment.environment)
