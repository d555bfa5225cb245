"""The command that stops, resumes, cancels and runs again, and its dead letters, against a worker on a real stack."""

import asyncio
import json
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from broker.cli.application import run
from broker.local.stack import Stack
from tests.faults.reading import read_records
from tests.faults.waiting import until_ended
from tests.integration.deployment import Deployment, chat, deployed

pytestmark = pytest.mark.timeout(180)


class Typed:
    """Types commands, and reads what they write."""

    def __init__(self, deployment: Deployment, terminal: pytest.CaptureFixture[bytes]) -> None:
        self._environment = dict(deployment.environment)
        self._terminal = terminal

    async def __call__(self, line: str, code: int = 0) -> list[dict[str, Any]]:
        """Run a command that has to end with `code`; return its lines of JSON."""
        self._terminal.readouterr()
        ended = await asyncio.to_thread(run, [*line.split(), "--json"], self._environment)
        written = self._terminal.readouterr()
        self.said = written.err.decode()
        assert ended == code, self.said
        return [json.loads(one) for one in written.out.splitlines()]


async def test_an_operator_stops_everything_and_lets_it_go_on_and_runs_again_what_failed(
    stack: Stack, prefix: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    async with deployed(stack, prefix, {"default": {"faults": {"500": 1.0}}}) as deployment:
        [worker] = await deployment.workers()
        typed = Typed(deployment, capfdbinary)
        [paused] = await typed("pause --all --reason dear")
        assert (paused["event"], paused["everything"], paused["batch_id"]) == ("paused", True, None)
        await deployment.until_count(1, {"_id": "*", "kind": "paused"}, collection="halts")
        await deployment.send([chat(f"j{number}", batch_id="b", max_attempts=1) for number in range(5)])
        await deployment.until_count(5, {"state": "waiting", "why_waiting": "paused"})
        [status] = await typed("status j1")
        assert (status["why_waiting"], status["meaning"]) == (
            "paused",
            "paused (dear): `aibroker resume --all` ends that",
        )
        assert "everything" in {
            found["found"].split(",")[0] for found in await typed("doctor") if found["subject"] == "paused"
        }
        await typed("rerun j1", 2)
        assert "not_ended" in typed.said
        assert deployment.calls() == []
        await typed("resume --all")
        await deployment.until_count(5, {"state": "failed"})

        await typed("cancel j1", 2)
        assert "already_ended" in typed.said
        await typed("cancel --batch b --tenant acme", 2)
        assert "unknown_batch" in typed.said
        await typed("rerun j1 nobody", 2)
        assert "unknown_job" in typed.said
        await deployment.behave({})
        assert await typed("rerun --batch b --status failed --code provider_error --since 1h --check") == [
            {"event": "checked", "jobs": 5}
        ]
        assert await typed("rerun --batch b --until 1h") == [{"event": "rerun", "jobs": 0}]
        assert await typed("rerun --batch b --status failed") == [{"event": "rerun", "jobs": 5}]
        await deployment.until_count(5, {"state": "succeeded", "generation": 2})
        await typed("rerun j1", 2)
        assert "already_succeeded" in typed.said

        await deployment.behave({"default": {"latency": {"kind": "fixed", "ms": 20_000}}})
        await deployment.send([chat("slow", batch_id="c"), chat("single")])
        await deployment.until(lambda: len(deployment.calls()) == 12)
        assert (await typed("cancel single --reason enough"))[0]["job_id"] == "single"
        assert (await typed("cancel --batch c"))[0]["batch_id"] == "c"
        await deployment.until_count(2, {"state": "cancelled"})
        [status] = await typed("status --batch c")
        assert (status["states"], status["halted"].split(" (")[0]) == ({"cancelled": 1}, "cancelled")
        assert await until_ended(deployment.services, 30)
        await deployment.stop(worker)


async def test_dead_letters_are_listed_shown_and_put_back_as_they_were(
    stack: Stack, prefix: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    async with deployed(stack, prefix) as deployment:
        [worker] = await deployment.workers()
        typed = Typed(deployment, capfdbinary)
        producer = AIOKafkaProducer(bootstrap_servers=deployment.services.kafka, acks="all")
        await producer.start()
        headers = [("x", b"\xff"), ("aibroker-reason", b"forged"), ("x", b"twice")]
        topic = deployment.services.topic("jobs.normal")
        await producer.send_and_wait(topic, b"no job", key=b"k", partition=5, headers=headers)
        await producer.send_and_wait(topic, orjson.dumps({**chat("a"), "tenant": "A/B"}), partition=1)
        await producer.stop()

        async def listed(count: int) -> bool:
            return len(await typed("dead list")) == count

        await deployment.until(lambda: listed(2))
        [letter] = await typed("dead list --reason undecodable --since 1h")
        assert (letter["topic"], letter["was"], letter["bytes"]) == (topic, "5/0", 6)
        assert await typed("dead list --until 1h", 2) == []
        [shown] = await typed(f"dead show {letter['place']}")
        assert (shown["key"], shown["value"], shown["headers"]) == ("k", "no job", [["x", "ff"], ["x", "twice"]])
        await typed("dead show 0/999", 2)
        await typed(f"dead retry {letter['place']} 0/999", 2)
        assert await typed(f"dead retry {letter['place']}") == [{"event": "retried", "records": 1}]
        await deployment.until(lambda: listed(3))
        assert await typed("dead retry --reason invalid_tenant") == [{"event": "retried", "records": 1}]
        await deployment.until(lambda: listed(4))
        await deployment.stop(worker)

        records = await read_records(deployment.services)
        first, again = (record for record in records["jobs.normal"] if record.partition == 5)
        assert (again.key, again.value) == (first.key, first.value) == (b"k", b"no job")
        assert again.headers == (("x", b"\xff"), ("x", b"twice"))
