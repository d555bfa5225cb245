"""The command against a real Kafka and a real MongoDB: what it sends, and what it tells about documents."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from bson.decimal128 import Decimal128

from broker import kafka, mongo
from broker import settings as settings_of
from broker.cli.application import run
from broker.local.stack import Stack
from broker.settings import Settings

NOW = datetime(2026, 12, 1, 8, tzinfo=UTC)
BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
OPENAI = {"custom_id": "request-1", "method": "POST", "url": "/v1/chat/completions", "body": BODY}


@pytest.fixture
def environment(stack: Stack, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Leads the command to a deployment of this test's own."""
    monkeypatch.chdir(tmp_path)
    return {
        "PATH": os.environ["PATH"],
        "AIBROKER_KAFKA": stack.kafka_url,
        "AIBROKER_MONGO": stack.mongo_url,
        "AIBROKER_PREFIX": prefix,
        "AIBROKER_PROVIDERS_SIMULATOR_BASE_URL": f"{stack.addresses.simulator}/v1",
    }


@pytest.fixture
def deployment(environment: dict[str, str], capfdbinary: pytest.CaptureFixture[bytes]) -> Settings:
    """The settings of that deployment, whose topics and collections `aibroker topics` has made."""
    assert run(["topics", "--json"], environment) == 0
    topics = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert {topic["state"] for topic in topics} == {"made"}
    return settings_of.load(environment)


@pytest.fixture
def collections(environment: dict[str, str]) -> Settings:
    """The settings of that deployment with its collections alone: what is asked of documents needs none of Kafka's 70 partitions."""
    settings = settings_of.load(environment)
    in_database(settings, mongo.prepare)
    return settings


def in_database(deployment: Settings, work: Callable[[mongo.Database], Awaitable[Any]]) -> Any:  # noqa: ANN401 what the work gives
    async def opened() -> Any:  # noqa: ANN401 the same
        client = mongo.connect(deployment.mongo.get_secret_value())
        try:
            return await work(client[deployment.database])
        finally:
            await mongo.close(client)

    return asyncio.run(opened())


def plant(deployment: Settings, collection: str, *documents: dict[str, Any]) -> None:
    in_database(deployment, lambda database: database[collection].insert_many(documents))


def finished(job: dict[str, Any], state: str = "succeeded", **result: object) -> dict[str, Any]:
    """The document of a job that has ended, as a worker leaves it."""
    tenant = job.get("tenant", "default")
    outcome = {
        "job_id": job["id"],
        "tenant": tenant,
        "generation": 1,
        "operation": "chat",
        "status": state,
        "cost_usd": Decimal128("0.0002076"),
        "attempts": 1,
        "metadata": job.get("metadata"),
        "finished_at": NOW,
        **result,
    }
    document = {
        "_id": f"{tenant}/{job['id']}",
        "uid": f"u-{job['id']}",
        "generation": 1,
        "tenant": tenant,
        "job_id": job["id"],
        "priority": "batch",
        "state": state,
        "fence": 1,
        "batch": f"{tenant}/{job['batch_id']}",
        "batch_id": job["batch_id"],
        "result": outcome,
        "finished_at": NOW,
    }
    return document if state == "succeeded" else {**document, "payload": orjson.dumps(job)}


def records(deployment: Settings, topic: str) -> list[dict[str, Any]]:
    """Everything in a topic, decoded."""

    async def read() -> list[dict[str, Any]]:
        reader = kafka.consumer(deployment)
        await reader.start()
        try:
            count = (await kafka.partition_counts(deployment))[topic]
            places = [kafka.TopicPartition(deployment.topic(topic), n) for n in range(count)]
            total = sum((await reader.end_offsets(places)).values())
            reader.assign(places)
            found: list[dict[str, Any]] = []
            async with asyncio.timeout(20):
                while len(found) < total:
                    batch = await reader.getmany(timeout_ms=200)
                    found += [orjson.loads(record.value) for got in batch.values() for record in got]
        finally:
            await reader.stop()
        return found

    return asyncio.run(read())


def test_topics_are_there_the_second_time(
    deployment: Settings, environment: dict[str, str], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert run(["topics", "--json"], environment) == 0
    topics = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert {topic["state"] for topic in topics} == {"there"}
    assert deployment.topic("jobs.batch") in {topic["topic"] for topic in topics}


def test_a_file_of_both_kinds_is_sent_and_named_by_its_hash(
    deployment: Settings, environment: dict[str, str], tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(line) for line in (OPENAI, {"body": BODY}, {"dedline": 1, "body": BODY})))
    batch = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert run(["submit", str(path), "--tenant", "acme", "--ttl", "1h", "--json"], environment) == 1
    refused, summary = map(json.loads, capfdbinary.readouterr().out.splitlines())
    assert (refused["line"], refused["code"]) == (3, "unknown_field")
    assert summary == {"event": "submitted", "batch_id": batch, "jobs": 2, "refused": 1, "arrived_before": 0}
    sent = {record["id"]: record for record in records(deployment, "jobs.batch")}
    assert sent.keys() == {f"{batch}/request-1", f"{batch}/2"}
    assert sent[f"{batch}/request-1"]["metadata"] == {"custom_id": "request-1"}
    assert {record["tenant"] for record in sent.values()} == {"acme"}
    assert all(record["deadline"] for record in sent.values())


def test_a_line_whose_tag_is_not_allowed_is_not_sent_and_stops_no_other(
    deployment: Settings, environment: dict[str, str], tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (tmp_path / "aibroker.yaml").write_text('tenants: {"*": {tags: {team: [red]}}}\n')
    path = tmp_path / "jobs.jsonl"
    tagged = ({"id": team, "tags": {"team": team}, "body": BODY} for team in ("blue", "red"))
    path.write_bytes(b"\n".join(map(orjson.dumps, tagged)))
    assert run(["submit", str(path), "--estimate", "--json"], environment) == 1
    assert json.loads(capfdbinary.readouterr().out.splitlines()[0])["code"] == "tag_not_allowed"
    assert run(["submit", str(path), "--json"], environment) == 1
    refused, summary = map(json.loads, capfdbinary.readouterr().out.splitlines())
    assert (refused["line"], refused["code"], summary["jobs"]) == (1, "tag_not_allowed", 1)
    assert {record["id"] for record in records(deployment, "jobs.batch")} >= {"red"}


def test_a_topic_that_is_missing_is_a_missing_service(
    environment: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_bytes(orjson.dumps(OPENAI))
    assert run(["submit", str(path)], environment) == 3
    assert "aibroker topics" in capfd.readouterr().err


def test_results_of_an_openai_file_are_in_openais_format(
    collections: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    good = {"id": "b1/request-1", "batch_id": "b1", "metadata": {"custom_id": "request-1"}, "body": BODY}
    bad = {**good, "id": "b1/request-2", "metadata": {"custom_id": "request-2"}}
    plant(
        collections,
        "jobs",
        finished(good, output={"id": "chatcmpl-1", "choices": []}),
        finished(bad, "failed", code="provider_error", message="it failed"),
        finished({**good, "id": "other", "batch_id": "b2"}),
    )
    path = tmp_path / "out.jsonl"
    assert run(["results", "--batch", "b1", "-o", str(path)], environment) == 0
    lines = {line["custom_id"]: line for line in map(json.loads, path.read_bytes().splitlines())}
    assert lines["request-1"]["response"]["body"] == {"id": "chatcmpl-1", "choices": []}
    assert lines["request-1"]["error"] is None
    assert lines["request-2"]["response"] is None
    assert lines["request-2"]["error"] == {"code": "provider_error", "message": "it failed"}
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".out")] == []


def test_what_did_not_succeed_can_be_written_as_it_was_and_is_another_batch(
    collections: Settings, environment: dict[str, str], tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path, again = tmp_path / "jobs.jsonl", tmp_path / "again.jsonl"
    path.write_bytes(orjson.dumps(OPENAI) + b"\n")
    run(["submit", str(path), "--check", "--json"], environment)
    first = json.loads(capfdbinary.readouterr().out)["batch_id"]
    job = {"id": f"{first}/request-1", "batch_id": first, "metadata": {"custom_id": "request-1"}, "body": BODY}
    plant(collections, "jobs", finished(job, "failed", code="provider_error", message="it failed"))
    assert run(["results", "--batch", first, "--status", "failed", "--as-input", "-o", str(again)], environment) == 0
    assert json.loads(again.read_bytes()) == OPENAI
    capfdbinary.readouterr()
    assert run(["submit", str(again), "--check", "--json"], environment) == 0
    assert json.loads(capfdbinary.readouterr().out)["batch_id"] != first


def test_the_status_of_a_job_and_of_a_batch(
    collections: Settings, environment: dict[str, str], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    job = {"id": "inv-7", "batch_id": "b1", "body": BODY}
    plant(
        collections,
        "jobs",
        finished(job, "expired", code="expired", message="it is over"),
        {**finished({**job, "id": "inv-8"}), "state": "waiting", "why_waiting": "quota", "due_at": NOW},
    )
    assert run(["status", "inv-7", "--json"], environment) == 0
    status = json.loads(capfdbinary.readouterr().out)
    assert (status["state"], status["code"], status["finished_at"]) == (
        "expired",
        "expired",
        "2026-12-01T08:00:00.000Z",
    )
    assert run(["status", "--batch", "b1", "--json"], environment) == 0
    status = json.loads(capfdbinary.readouterr().out)
    assert status["states"] == {"expired": 1, "waiting": 1}
    assert status["codes"] == [{"state": "expired", "code": "expired", "jobs": 1}]
    assert run(["status", "inv-8"], environment) == 0
    assert b"quota is used up" in capfdbinary.readouterr().out
    assert run(["status", "inv-9"], environment) == 2
    assert run(["results", "--job", "inv-8"], environment) == 2
    assert b"waiting" in capfdbinary.readouterr().err


def row(number: int, tenant: str, cost: str, *, billed: bool = True) -> dict[str, Any]:
    """A row of the ledger."""
    return {
        "_id": f"u{number}/1/1.1",
        "at": NOW,
        "recorded_at": NOW,
        "tenant": tenant,
        "job_id": f"j{number}",
        "generation": 1,
        "priority": "batch",
        "operation": "chat",
        "provider": "openai",
        "credential": "simulator",
        "request_model": "gpt-4o-mini",
        "outcome": "succeeded",
        "input_tokens": 10,
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 0,
        "output_tokens": 5,
        "reasoning_output_tokens": 0,
        "queued_ms": 3,
        "provider_ms": 640,
        "cost_usd": Decimal128(cost),
        "price_id": "p",
        "billed": billed,
        "estimated": False,
        "incarnation": "w",
        "tags": {"team": "red"},
    }


def test_usage_is_summed_to_the_last_digit(
    collections: Settings, environment: dict[str, str], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    plant(
        collections,
        "usage",
        *(row(number, "acme", "0.0000001") for number in range(3)),
        row(3, "acme", "0.1", billed=False),
        row(4, "globex", "12345678901.0000000001"),
    )
    assert run(["usage", "--by", "tenant,day,tag:team", "--json"], environment) == 0
    first, second = map(json.loads, capfdbinary.readouterr().out.splitlines())
    assert (first["tenant"], first["cost_usd"]) == ("globex", "12345678901.0000000001")
    assert (second["day"], second["tag:team"]) == ("2026-12-01", "red")
    assert (second["calls"], second["jobs"], second["input_tokens"]) == (4, 3, 30)
    assert Decimal(second["cost_usd"]) == Decimal("0.0000003")
    assert Decimal(second["unbilled_usd"]) == Decimal("0.1")
    assert run(["usage", "--until", "2026-12-01", "--json"], environment) == 0
    assert capfdbinary.readouterr().out == b""
    assert run(["usage", "--by", "model"], environment) == 0
    assert b"12345678901.0000003001" in capfdbinary.readouterr().out


def test_an_estimate_says_tokens_and_cost_and_whether_the_limits_have_room_and_sends_nothing(
    collections: Settings, environment: dict[str, str], capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    plant(collections, "usage", *({**row(number, "acme", "0.1"), "output_tokens": 50} for number in range(30)))
    entry = {"requests": 3, "tokens": 100, "usd": Decimal128("0.75")}
    plant(collections, "quotas", {"_id": "tenant:acme/lifetime", "closed": entry, "grants": {}})
    settings = "limits: [{scope: tenant, of: acme, per: lifetime, usd: %s, requests: %d}]\n"
    (tmp_path / "aibroker.yaml").write_text(settings % ('"1"', 13))
    path = tmp_path / "jobs.jsonl"
    path.write_bytes(b"".join(orjson.dumps({"tenant": "acme", "body": BODY}) + b"\n" for _ in range(10)))
    assert run(["submit", str(path), "--estimate", "--json"], environment) == 0
    estimated, *limits, checked = map(json.loads, capfdbinary.readouterr().out.splitlines())
    assert (estimated["model"], estimated["jobs"], estimated["input_tokens"]) == ("gpt-4o-mini", 10, 50)
    assert (estimated["output_tokens_p50"], estimated["output_is"]) == (500, "learned")
    assert Decimal(estimated["cost_usd_p90"]) == 50 * Decimal("0.00000015") + 500 * Decimal("0.0000006")
    assert [(limit["unit"], Decimal(limit["left"]), limit["fits"]) for limit in limits] == [
        ("requests", 10, True),
        ("usd", Decimal("0.25"), True),
    ]
    assert checked["event"] == "checked"

    (tmp_path / "aibroker.yaml").write_text(settings % ('"0.7501"', 12))
    assert run(["submit", str(path), "--estimate"], environment) == 1
    assert b"tenant:acme" in capfdbinary.readouterr().out

    of_each_job = "{scope: job, per: lifetime, at_limit: reject, tokens: %d}"
    (tmp_path / "aibroker.yaml").write_text(f"limits: [{of_each_job % 55}]\n")
    assert run(["submit", str(path), "--estimate"], environment) == 0
    (tmp_path / "aibroker.yaml").write_text(f"limits: [{of_each_job % 54}]\n")
    assert run(["submit", str(path), "--estimate"], environment) == 1
    assert b"job:*" in capfdbinary.readouterr().out


def test_the_doctor_names_what_is_missing_and_the_remedy(
    environment: dict[str, str], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert run(["doctor", "--json"], environment) == 3
    findings = {found["subject"]: found for found in map(json.loads, capfdbinary.readouterr().out.splitlines())}
    assert findings["Kafka"]["verdict"] == "ok"
    assert findings["MongoDB"]["verdict"] == "ok"
    assert findings["topics"]["verdict"] == "missing"
    assert "aibroker topics" in findings["topics"]["found"]
    assert findings["collections"]["remedy"]
    assert findings["workers"]["verdict"] == "missing"
    assert findings["provider simulator"]["verdict"] == "ok"


@pytest.mark.parametrize(("command", "words"), [("usage", "MongoDB cannot be reached"), ("doctor", "")])
def test_services_that_do_not_answer_are_one_sentence_and_exit_code_3(command: str, words: str, tmp_path: Path) -> None:
    away = {
        "PATH": os.environ["PATH"],
        "AIBROKER_KAFKA": "127.0.0.1:1",
        "AIBROKER_MONGO": "mongodb://127.0.0.1:1/?replicaSet=x",
    }
    program = Path(sys.executable).parent / "aibroker"
    ended = subprocess.run([program, command], env=away, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 3
    assert words in ended.stderr.decode()
    assert b"Traceback" not in ended.stderr
