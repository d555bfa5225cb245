"""What operators ask of jobs, batches and tenants on a real stack: cancel, pause, resume, rerun."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from broker.kafka import murmur2
from broker.lanes import home
from broker.local.stack import Stack
from tests.faults.checker import check
from tests.faults.reading import read_history, read_records
from tests.faults.waiting import until_ended
from tests.integration.deployment import Deployment, chat, deployed

pytestmark = pytest.mark.timeout(180)

SLOW = {"default": {"latency": {"kind": "fixed", "ms": 20_000}}}


async def ask(deployment: Deployment, **message: Any) -> None:  # noqa: ANN401 any JSON value
    """Send a control message as a foreign producer does."""
    producer = AIOKafkaProducer(bootstrap_servers=deployment.services.kafka, acks="all")
    await producer.start()
    try:
        key = message.get("job_id") or message.get("batch_id") or message.get("tenant", "*")
        topic = deployment.services.topic("jobs.control")
        await producer.send_and_wait(topic, orjson.dumps(message), key=key.encode())
    finally:
        await producer.stop()


def halted(deployment: Deployment, scope: str, kind: str | None) -> Any:  # noqa: ANN401 a condition
    """Whether a scope is marked so."""
    query: Mapping[str, Any] = {"_id": scope, "kind": kind if kind is not None else {"$exists": False}}
    return lambda: deployment.count(query, "halts") == 1


async def test_of_two_messages_about_the_same_the_later_one_counts_whoever_sent_them_and_wherever_they_lie(
    stack: Stack, prefix: str
) -> None:
    async with deployed(stack, prefix) as deployment:
        [worker] = await deployment.workers()
        topic = deployment.services.topic("jobs.control")
        away = (home(murmur2(b"acme"), 8) + 1) % 8
        producer = AIOKafkaProducer(bootstrap_servers=deployment.services.kafka, acks="all")
        await producer.start()
        try:
            for _ in range(5):
                await producer.send_and_wait(topic, b'{"action": "pause", "tenant": "acme"}', partition=away)
        finally:
            await producer.stop()
        await deployment.until(halted(deployment, "acme", "paused"))
        await deployment.until(lambda: deployment.documents({"_id": "acme"}, "halts")[0]["seq"] == 4)
        await ask(deployment, action="resume", tenant="acme")
        await deployment.until(halted(deployment, "acme", None))
        await deployment.stop(worker)


async def test_a_cancelled_batch_ends_running_queued_scheduled_and_late_jobs_and_no_others(
    stack: Stack, prefix: str
) -> None:
    async with deployed(stack, prefix, SLOW) as deployment:
        workers = await deployment.workers(2, AIBROKER_WORKER_SLOTS="3", AIBROKER_WORKER_READY="4")
        jobs = [chat(f"b{number}", batch_id="b") for number in range(30)]
        await deployment.send([*jobs, chat("later", batch_id="b", not_before="2099-01-01T00:00:00Z")])
        await deployment.until(lambda: len(deployment.calls()) == 6)
        await deployment.until_count(31, {"batch_id": "b"})
        await ask(deployment, action="cancel", batch_id="b", reason="a mistake")
        await deployment.until_count(31, {"state": "cancelled"})
        await deployment.send(
            [chat("late", batch_id="b"), chat("free", batch_id="c"), chat("theirs", batch_id="b", tenant="acme")]
        )
        await deployment.until_count(32, {"state": "cancelled"})
        assert await until_ended(deployment.services, 40)
        await deployment.stop(*workers)

        assert {one["job_id"] for one in deployment.documents({"state": "succeeded"})} == {"free", "theirs"}
        assert {one["result"]["message"] for one in deployment.documents({"state": "cancelled"})} == {
            "the batch b was cancelled: a mistake"
        }
        rows = deployment.documents({"estimated": True}, "usage")
        assert len(rows) == len(deployment.calls()) - 2 == 6


async def test_nothing_of_a_paused_scope_starts_until_it_is_resumed_while_calls_go_on(
    stack: Stack, prefix: str
) -> None:
    async with deployed(stack, prefix, {"default": {"latency": {"kind": "fixed", "ms": 3_000}}}) as deployment:
        [first] = await deployment.workers(AIBROKER_WORKER_SLOTS="2")
        await deployment.send([chat(f"j{number}", batch_id="b") for number in range(6)])
        await deployment.until(lambda: len(deployment.calls()) == 2)
        await ask(deployment, action="pause", everything=True, reason="too dear")
        await deployment.until(halted(deployment, "*", "paused"))
        await deployment.until_count(4, {"state": "waiting", "why_waiting": "paused"})
        await deployment.until_count(2, {"state": "succeeded"})  # what ran goes on
        await ask(deployment, action="pause", batch_id="b")
        await deployment.until(halted(deployment, "default/b", "paused"))
        [second] = await deployment.workers()  # one that starts now
        await deployment.send([chat("new"), chat("in-batch", batch_id="b")])
        await deployment.until_count(6, {"state": "waiting", "why_waiting": "paused"})
        assert len(deployment.calls()) == 2

        await ask(deployment, action="resume", everything=True)
        await deployment.until_count(1, {"job_id": "new", "state": "succeeded"})
        await deployment.until_count(5, {"state": "waiting", "why_waiting": "paused", "wait_key": "paused:default/b"})
        assert len(deployment.calls()) == 3
        waiting = deployment.documents({"state": "waiting", "job_id": {"$ne": "in-batch"}})
        await ask(deployment, action="cancel", job_id=waiting[0]["job_id"], reason="not needed")
        await deployment.until_count(1, {"job_id": waiting[0]["job_id"], "state": "cancelled"})
        await ask(deployment, action="resume", batch_id="b")
        await deployment.until_count(7, {"state": "succeeded"})
        await deployment.stop(first, second)


async def test_a_failed_job_runs_again_as_generation_two_and_the_ledger_stays_exact(stack: Stack, prefix: str) -> None:
    broken = {"default": {"faults": {"500": 1.0}}}
    async with deployed(stack, prefix, broken) as deployment:
        [worker] = await deployment.workers()
        await deployment.send([chat("again", max_attempts=1, batch_id="b"), chat("refused", dedline="soon")])
        await deployment.until_count(1, {"job_id": "again", "state": "failed"})
        await deployment.until_count(1, {"job_id": "refused", "state": "rejected"})
        await deployment.behave({})
        for job_id in ("again", "refused", "again", "nobody"):
            await ask(deployment, action="rerun", job_id=job_id)
        await deployment.until_count(1, {"job_id": "again", "state": "succeeded", "generation": 2})
        await deployment.until_count(1, {"job_id": "refused", "state": "rejected", "generation": 2})
        assert await until_ended(deployment.services, 30)
        await deployment.stop(worker)

        history = await read_history(deployment.services)
        told = {event.header("ce_id"): event.content["status"] for event in history.events}
        assert told == {
            "default/again/1": "failed",
            "default/again/2": "succeeded",
            "default/refused/1": "rejected",
            "default/refused/2": "rejected",
        }
        [row] = deployment.documents({"billed": True}, "usage")
        assert row["_id"].split("/")[1:] == ["2", "2.1"]
        reasons = [letter.header("aibroker-reason") for letter in history.dead]
        assert set(reasons) - {"not_ended", "already_succeeded"} == {"unknown_job"}
        assert {name: problems for name, problems in check(history).items() if problems} == {}


async def test_a_batch_over_its_limit_stops_and_its_sealer_is_told_once_what_became_of_it(
    stack: Stack, prefix: str
) -> None:
    behaviour = {
        "default": {"latency": {"kind": "fixed", "ms": 100}},
        "models": {"gpt-5-nano": {"faults": {"500": 1.0}}},
    }
    async with deployed(stack, prefix, behaviour) as deployment:
        workers = await deployment.workers(2, AIBROKER_WORKER_SLOTS="2", AIBROKER_WORKER_READY="20")
        bad = {"body": {"model": "gpt-5-nano", "messages": [{"role": "user", "content": "x"}]}, "max_attempts": 1}
        seal = {"action": "seal", "batch_id": "b", "reply_to": "results"}
        await deployment.send([chat(f"g{number}", batch_id="b") for number in range(5)])
        await deployment.until_count(5, {"state": "succeeded"})
        await ask(deployment, **seal, total=400, max_errors=8)
        await deployment.send([chat(f"b{number}", batch_id="b", **bad) for number in range(395)])
        await ask(deployment, **seal, total=3)  # fewer than have arrived: refused, and the first one stays
        await deployment.until_count(
            1, {"batch_id": "b", "event": {"$exists": True}, "watch_at": {"$exists": False}}, collection="batches"
        )
        assert await until_ended(deployment.services, 60)
        await deployment.stop(*workers)

        limited = deployment.documents({"state": "cancelled"})
        assert {one["result"]["code"] for one in limited} == {"batch_limit"}
        assert 9 <= deployment.count({"state": "failed"}) == 395 - len(limited) <= 300
        records = await read_records(deployment.services)
        [event] = [record for record in records["results"] if record.header("ce_type") == "aibroker.batch.v1"]
        assert (event.key, event.content["code"], event.content["jobs"]) == (b"default/b", "batch_limit", 400)
        assert event.content["states"] == {
            "succeeded": 5,
            "failed": deployment.count({"state": "failed"}),
            "cancelled": len(limited),
        }
        billed = [row["cost_usd"].to_decimal() for row in deployment.documents({"billed": True}, "usage")]
        assert Decimal(event.content["cost_usd"]) == sum(billed) > 0
        [letter] = records["jobs.dead"]
        assert letter.header("aibroker-reason") == "total_too_small"
