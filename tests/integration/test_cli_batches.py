"""Batches at length on the real Kafka and the real MongoDB: killed in the middle, followed, read in order, submitted again."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import TopicPartition

from broker import kafka, topics
from broker.local.stack import Stack
from broker.settings import Settings, load
from tests.integration.deployment import deployed

PROGRAM = Path(sys.executable).parent / "aibroker"
MODEL, FAILS = "gpt-4o-mini", "gpt-5-nano"
LINES = 20_000


def openai(custom_id: str, model: str = MODEL) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": custom_id}]}
    return orjson.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body})


def ours(job: dict[str, Any], model: str) -> bytes:
    return orjson.dumps({**job, "body": {"model": model, "messages": [{"role": "user", "content": "hi"}]}})


class Command:
    """The command as a user starts it, in a folder and for a deployment of this test's own."""

    def __init__(self, stack: Stack, prefix: str, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "PATH": os.environ["PATH"],
            "AIBROKER_KAFKA": stack.kafka_url,
            "AIBROKER_MONGO": stack.mongo_url,
            "AIBROKER_PREFIX": prefix,
        }
        self.settings: Settings = load(self.environment)

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start it."""
        command = [str(PROGRAM), *arguments]
        return subprocess.Popen(
            command, env=self.environment, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        """Run it to its end."""
        command = [str(PROGRAM), *arguments]
        return subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, timeout=120, check=False
        )


@pytest.fixture
async def command(stack: Stack, prefix: str, tmp_path: Path) -> Command:
    made = Command(stack, prefix, tmp_path)
    await topics.ensure(made.settings)
    return made


@pytest.fixture
async def reader(command: Command) -> AsyncIterator[kafka.AIOKafkaConsumer]:
    """Reads the topic of the batch jobs, from its beginning."""
    made = kafka.consumer(command.settings)
    await made.start()
    counts = await kafka.partition_counts(command.settings)
    made.assign([TopicPartition(command.settings.topic("jobs.batch"), n) for n in range(counts["jobs.batch"])])
    await made.seek_to_beginning()
    yield made
    await made.stop()


async def sent(reader: kafka.AIOKafkaConsumer) -> int:
    return sum((await reader.end_offsets(reader.assignment())).values())


async def ids(reader: kafka.AIOKafkaConsumer, total: int) -> Counter[str]:
    """How often each job stands in the topic."""
    found: Counter[str] = Counter()
    while found.total() < total:
        for records in (await reader.getmany(timeout_ms=500)).values():
            found.update(orjson.loads(record.value)["id"] for record in records)
    return found


@pytest.mark.timeout(360)
async def test_a_killed_submitter_goes_on_with_what_has_not_arrived(
    command: Command, reader: kafka.AIOKafkaConsumer
) -> None:
    path = command.folder / "jobs.jsonl"
    path.write_bytes(b"\n".join(openai(f"request-{number}") for number in range(LINES)))
    for part in (1, 2):
        submitter = command.start("submit", "jobs.jsonl")
        while await sent(reader) < part * LINES // 10:
            assert submitter.poll() is None, submitter.communicate()
        submitter.send_signal(signal.SIGKILL)
        submitter.communicate()
        assert submitter.returncode == -signal.SIGKILL
    arrived = await sent(reader)
    assert arrived < LINES
    ended = command.run("submit", "jobs.jsonl", "--json")
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["jobs"] == LINES
    assert arrived <= told["arrived_before"] < LINES
    found = await ids(reader, await sent(reader))
    assert len(found) == found.total() == LINES
    assert [entry.name for entry in command.folder.iterdir()] == ["jobs.jsonl"]


def lines_of(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.timeout(360)
async def test_a_file_is_followed_read_in_order_and_what_failed_runs_again(
    stack: Stack, prefix: str, tmp_path: Path
) -> None:
    broken = {"models": {"gpt-5-nano": {"faults": {"400": 1.0}}}}
    lines = [openai(f"r{number}", FAILS if number % 3 else MODEL) for number in range(60)]
    lines += [
        ours({"id": f"own-{number}"} if number % 2 else {}, FAILS if number % 3 else MODEL) for number in range(60)
    ]
    failing = [number for number in range(120) if number % 3]
    async with deployed(stack, prefix, broken) as deployment:
        command = Command(stack, prefix, tmp_path)
        await deployment.workers()
        (tmp_path / "jobs.jsonl").write_bytes(b"\n".join(lines))
        ended = await asyncio.to_thread(command.run, "submit", "jobs.jsonl", "--follow", "--json")
        assert ended.returncode == 1, ended.stderr
        submitted, followed = lines_of(ended.stdout)
        assert followed["states"] == {"succeeded": 40, "rejected": 80}
        rows = deployment.documents({"billed": True}, "usage")
        assert Decimal(followed["cost_usd"]) == sum((row["cost_usd"].to_decimal() for row in rows), Decimal(0)) > 0

        batch = submitted["batch_id"]
        again = await asyncio.to_thread(command.run, "status", "--batch", batch, "--follow", "--json")
        assert again.returncode == 1
        assert lines_of(again.stdout) == [followed]

        written = await asyncio.to_thread(command.run, "results", "--ordered", "jobs.jsonl")
        assert written.returncode == 0, written.stderr
        results = lines_of(written.stdout)
        assert [result["custom_id"] for result in results[:60]] == [f"r{number}" for number in range(60)]
        assert [result["job_id"] for result in results[60:]] == [
            f"own-{number}" if number % 2 else f"{batch}/{61 + number}" for number in range(60)
        ]

        wanted = ("results", "--ordered", "jobs.jsonl", "--status", "rejected", "--as-input", "-o", "again.jsonl")
        written = await asyncio.to_thread(command.run, *wanted)
        assert written.returncode == 0, written.stderr
        found = lines_of((tmp_path / "again.jsonl").read_bytes())
        assert [line["body"] for line in found] == [json.loads(lines[number])["body"] for number in failing]
        assert [line["custom_id"] for line in found[:40]] == [f"r{number}" for number in failing[:40]]

        await deployment.behave({})
        ended = await asyncio.to_thread(command.run, "submit", "again.jsonl", "--follow", "--json")
        assert ended.returncode == 0, (ended.stdout, ended.stderr)
        submitted, followed = lines_of(ended.stdout)
        assert submitted["batch_id"] != batch
        assert followed["states"] == {"succeeded": 80}
        assert deployment.count({"batch_id": batch}) == 120


async def test_a_followed_batch_ends_once_its_outcomes_are_on_the_ledger(
    stack: Stack, prefix: str, tmp_path: Path
) -> None:
    fast = {"AIBROKER_LEASE_S": "6", "AIBROKER_SESSION_TIMEOUT_S": "6"}
    slow = {"default": {"latency": {"kind": "fixed", "ms": 3_000}}}  # its record is committed long before it ends
    async with deployed(stack, prefix, slow) as deployment:
        command = Command(stack, prefix, tmp_path)
        await deployment.workers(AIBROKER_FAIL_AT="after_finish", **fast)
        (tmp_path / "jobs.jsonl").write_bytes(openai("one"))
        submitted = await asyncio.to_thread(command.run, "submit", "jobs.jsonl", "--json")
        await deployment.until_count(1, {"state": "succeeded", "outbox": {"$exists": True}})
        assert not deployment.documents({}, "usage")

        (said,) = lines_of(submitted.stdout)
        following = asyncio.to_thread(command.run, "status", "--batch", said["batch_id"], "--follow", "--json")
        ended, _ = await asyncio.gather(following, deployment.workers(**fast))
        (followed,) = lines_of(ended.stdout)
        (row,) = deployment.documents({}, "usage")
        assert Decimal(followed["cost_usd"]) == row["cost_usd"].to_decimal() > 0
