"""What outsiders see of a job: a foreign producer's line, the same id twice, cancels, seals, a stop in the middle, and an exact ledger."""

import asyncio
import random
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest

from broker.client import Client
from broker.local.stack import Stack
from tests.faults.checker import check
from tests.faults.reading import read_history
from tests.faults.waiting import until_ended
from tests.integration.deployment import Deployment, chat, deployed

pytestmark = pytest.mark.timeout(180)


async def console_producer(deployment: Deployment, *lines: str) -> None:
    """Send lines by Kafka's own console producer, compressed by zstd, without headers."""
    kafka = deployment.stack.kafka
    assert kafka is not None
    options = ["--bootstrap-server", deployment.services.kafka, "--topic", deployment.services.topic("jobs.normal")]
    command = kafka.program("org.apache.kafka.tools.ConsoleProducer", *options, "--compression-codec", "zstd")
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, complaints = await asyncio.wait_for(process.communicate("\n".join(lines).encode()), 60)
    assert process.returncode == 0, complaints.decode()


async def test_a_line_of_the_console_producer_comes_back_on_results(stack: Stack, prefix: str) -> None:
    async with deployed(stack, prefix) as deployment:
        [worker] = await deployment.workers()
        await console_producer(
            deployment, '{"body": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}}'
        )
        await deployment.until_count(1, {"state": "succeeded"})
        assert await until_ended(deployment.services, 30)
        await deployment.stop(worker)

        history = await read_history(deployment.services)
        event, *again = history.events
        assert {one.value for one in again} <= {event.value}
        assert event.topic == "results"
        assert event.content["status"] == "succeeded"
        assert event.content["output"]["choices"][0]["message"]["content"]
        assert (event.key or b"").decode() == f"default/{event.content['job_id']}"
        assert event.header("ce_id") == f"default/{event.content['job_id']}/1"


async def test_the_same_id_twice_is_one_document_and_one_call(stack: Stack, prefix: str) -> None:
    line = orjson.dumps(chat("twice")).decode()
    async with deployed(stack, prefix) as deployment:
        [worker] = await deployment.workers()
        await console_producer(deployment, line, line)
        assert await until_ended(deployment.services, 30)
        await deployment.send([line.encode()])
        assert await until_ended(deployment.services, 30)
        await deployment.stop(worker)

        assert deployment.count({}) == 1
        assert len(deployment.calls()) == 1
        contents = {event.value for event in (await read_history(deployment.services)).events}
        assert len(contents) == 1


async def test_a_client_that_was_killed_gets_its_result_by_the_id(stack: Stack, prefix: str) -> None:
    program = """
import asyncio, sys
from broker import Client
async def main():
    async with Client(kafka=sys.argv[1], prefix=sys.argv[2]) as client:
        handle = await client.submit({"id": "orphan", "body": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}})
        print("sent", flush=True)
        await handle.result(60)
asyncio.run(main())
"""
    async with deployed(stack, prefix, {"default": {"latency": {"kind": "fixed", "ms": 1500}}}) as deployment:
        [worker] = await deployment.workers()
        waiting = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, deployment.services.kafka, prefix, stdout=asyncio.subprocess.PIPE
        )
        assert waiting.stdout is not None
        assert await asyncio.wait_for(waiting.stdout.readline(), 30) == b"sent\n"
        waiting.kill()
        await waiting.wait()

        async with Client(kafka=deployment.services.kafka, prefix=prefix) as client:
            result = await client.await_result("orphan", 30)
        assert result.status == "succeeded"
        assert len(deployment.calls()) == 1
        await deployment.stop(worker)


async def test_a_cancel_ends_running_queued_and_unarrived_jobs(stack: Stack, prefix: str) -> None:
    async with deployed(stack, prefix, {"default": {"latency": {"kind": "fixed", "ms": 20_000}}}) as deployment:
        [worker] = await deployment.workers(AIBROKER_WORKER_SLOTS="2")
        async with Client(kafka=deployment.services.kafka, prefix=prefix) as client:
            await client.cancel("not-yet", "was a mistake")
            await deployment.until_count(1, {"_id": "default/not-yet", "state": "announced"})
            handles = [await client.submit(chat(name)) for name in ("running", "beside")]
            await deployment.until(lambda: len(deployment.calls()) == 2)
            handles += [await client.submit(chat(name)) for name in ("queued", "not-yet")]
            await deployment.until_count(1, {"_id": "default/queued"})
            await handles[2].cancel("changed my mind")
            await deployment.until_count(1, {"_id": "default/queued", "cancel": {"$exists": True}})
            for handle in handles[:2]:
                await handle.cancel("changed my mind")
            results = [await handle.result(30) for handle in handles]
        assert [(result.status, result.code) for result in results] == [("cancelled", "cancelled")] * 4
        assert results[3].message == "was a mistake"
        await deployment.stop(worker)
        rows = deployment.documents({}, "usage")
        assert {(row["outcome"], row["billed"], row["estimated"]) for row in rows} == {("cancelled", False, True)}
        assert len(rows) == len(deployment.calls()) == 2


async def test_a_stopped_worker_hands_back_what_another_then_does_once(stack: Stack, prefix: str) -> None:
    async with deployed(stack, prefix, {"default": {"latency": {"kind": "fixed", "ms": 400}}}) as deployment:
        [first] = await deployment.workers(AIBROKER_WORKER_SLOTS="20")
        await deployment.send([chat(f"j{number}") for number in range(300)])
        await deployment.until(lambda: len(deployment.calls()) >= 40)
        await deployment.stop(first)
        assert deployment.count({"state": "claimed"}) == 0
        [second] = await deployment.workers()
        assert await until_ended(deployment.services, 60)
        await deployment.stop(second)

        assert deployment.count({"state": "succeeded"}) == 300
        assert len(deployment.calls()) == 300


async def test_a_scheduled_job_does_not_run_before_its_time(stack: Stack, prefix: str) -> None:
    async with deployed(stack, prefix) as deployment:
        [worker] = await deployment.workers()
        start = datetime.now(UTC) + timedelta(seconds=8)
        await deployment.send([chat("later", not_before=start.isoformat())])
        await deployment.until_count(1, {"state": "waiting", "why_waiting": "scheduled"})
        await deployment.until_count(1, {"state": "succeeded"})
        [call] = deployment.calls()
        assert call["opened"] >= start.timestamp()
        await deployment.stop(worker)


def mixed(count: int) -> list[dict[str, Any] | bytes]:
    """Jobs of four tenants, of all operations, some that fail at first, some refused, some no jobs."""
    chance = random.Random(11)
    jobs: list[dict[str, Any] | bytes] = []
    for number in range(count):
        job = chat(f"m{number}", tenant=f"t{number % 4}", tags={"team": str(number % 3)})
        kind = chance.random()
        if kind < 0.1:
            job |= {"operation": "embeddings", "body": {"model": "text-embedding-3-small", "input": f"text {number}"}}
        elif kind < 0.2:
            job |= {"operation": "responses", "body": {"model": "gpt-5-nano", "input": f"text {number}"}}
        elif kind < 0.22:
            job |= {"body": {"model": "gpt-4o-mini", "messages": []}}
        elif kind < 0.24:
            job |= {"dedline": "soon"}
        jobs.append(b"no json" if kind > 0.99 else job)
    return jobs


@pytest.mark.timeout(300)
async def test_results_ledger_and_invoice_agree_to_the_last_digit(stack: Stack, prefix: str) -> None:
    behaviour = {
        "seed": 3,
        "default": {
            "latency": {"kind": "uniform", "low_ms": 0, "high_ms": 30},
            "answer": {"output_tokens": [5, 120], "cached_tokens": [0, 8]},
            "faults": {"500": 0.02, "429": 0.01},
            "fault_retry_after_s": 0.1,
        },
        "models": {"gpt-5-nano": {"answer": {"reasoning_tokens": 64}}},
    }
    async with deployed(stack, prefix, behaviour) as deployment:
        workers = await deployment.workers(2)
        await deployment.send(mixed(10_000))
        assert await until_ended(deployment.services, 200)
        await deployment.stop(*workers)

        history = await read_history(deployment.services)
        assert {name: problems for name, problems in check(history).items() if problems} == {}
        billed = sum((row["cost_usd"].to_decimal() for row in history.ledger if row["billed"]), Decimal(0))
        invoiced = sum((Decimal(call["cost"]) for call in history.calls), Decimal(0))
        # An event may come twice; the checker has seen that its content is the same.
        told = {event.header("ce_id"): Decimal(event.content["cost_usd"]) for event in history.events}
        assert billed == invoiced == sum(told.values()) > 0
        assert Counter(row["estimated"] for row in history.ledger) == {False: len(history.ledger)}
        assert len(history.ledger) == deployment.count({"state": "succeeded"}) > 9_000
