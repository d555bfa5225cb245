"""Servers that stop or are killed: an outage of MongoDB or Kafka alone repeats no call, and work resumes by itself.

A Kafka takes the longer to come back the more topics it has. What restarts it belongs here, because this module is among the first to run.
"""

import asyncio
import json
from collections import Counter

import pytest

from broker.local import readiness
from broker.local.stack import Stack
from tests.faults.waiting import until_ended
from tests.integration.deployment import chat, deployed

pytestmark = pytest.mark.timeout(240)


async def test_mongodb_is_away_for_longer_than_a_lease_and_no_call_is_repeated(stack: Stack, prefix: str) -> None:
    assert stack.mongod is not None
    behaviour = {"default": {"latency": {"kind": "uniform", "low_ms": 4_000, "high_ms": 8_000}}}
    async with deployed(stack, prefix, behaviour) as deployment:
        workers = await deployment.workers(2, AIBROKER_LEASE_S="6")
        await deployment.send([chat(f"o{number}") for number in range(500)])
        await deployment.until(lambda: sum(call["outcome"] == "open" for call in deployment.calls()) == 500)
        await stack.mongod.stop()
        await asyncio.sleep(20)
        await stack.restart(stack.mongod)
        assert await until_ended(deployment.services, 90)
        await deployment.stop(*workers)

        assert deployment.count({"state": "succeeded"}) == 500
        assert Counter(call["outcome"] for call in deployment.calls()) == {"answered": 500}
        assert deployment.count({"billed": True}, "usage") == 500


async def test_kafka_is_away_and_no_call_is_repeated(stack: Stack, prefix: str) -> None:
    assert stack.kafka is not None
    behaviour = {"default": {"latency": {"kind": "uniform", "low_ms": 2_000, "high_ms": 4_000}}}
    async with deployed(stack, prefix, behaviour) as deployment:
        workers = await deployment.workers(2, AIBROKER_SESSION_TIMEOUT_S="6")
        await deployment.send([chat(f"o{number}") for number in range(500)])
        await deployment.until(lambda: len(deployment.calls()) == 500)
        await stack.kafka.stop()
        await deployment.until_count(500, {"state": "succeeded"})
        assert deployment.count({"outbox": {"$exists": True}}) > 0
        await stack.restart(stack.kafka)
        assert await until_ended(deployment.services, 90)
        await deployment.stop(*workers)

        assert Counter(call["outcome"] for call in deployment.calls()) == {"answered": 500}


async def test_servers_that_were_killed_come_back_on_their_ports(stack: Stack) -> None:
    for server in (stack.kafka, stack.mongod):
        assert server is not None
        assert server.child is not None
        url, killed = server.url, server.child
        killed.kill()
        assert await killed.ended(10)
        await stack.restart(server)
        assert server.url == url
        assert server.child.pid != killed.pid
        assert server.child.pid in json.loads((stack.folder / "stack.json").read_text())["pids"].values()
    assert await readiness.group_can_join(stack.kafka_url)
    await readiness.check_mongo(stack.mongo_url)
