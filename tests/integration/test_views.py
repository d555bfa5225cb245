"""The views for analysts on a real MongoDB, and the role that may read them and nothing else."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pymongo
import pytest
from bson.decimal128 import Decimal128
from pymongo.errors import OperationFailure

from broker import mongo
from broker.cli.application import run
from broker.local.mongod import Mongod, find
from broker.local.processes import Children
from broker.usage.views import VIEWS
from tests.integration.a_ledger import Ledger, ledger_row

NOW = datetime.now(UTC).replace(microsecond=0)


def recent(number: int, **fields: object) -> dict[str, Any]:
    at = NOW - timedelta(seconds=number)
    return ledger_row(number, **{"at": at, "recorded_at": at, "tenant": "acme", **fields})


def view(ledger: Ledger, name: str, **match: object) -> list[dict[str, Any]]:
    return list(ledger.database[name].find(match))


def test_every_view_answers_on_an_empty_ledger_and_on_a_small_one(ledger: Ledger) -> None:
    assert [list(ledger.database[name].find()) for name in VIEWS] == [[]] * len(VIEWS)
    ledger.add(recent(0, tags={"team": "red"}), recent(1, billed=False, outcome="failed"))
    ledger.usage("rollup")
    assert all(list(ledger.database[name].find()) for name in VIEWS)


async def test_making_the_views_again_changes_none(mongo_url: str) -> None:
    client = mongo.connect(mongo_url)
    database = client[f"t{secrets.token_hex(5)}"]
    try:
        await mongo.prepare(database)
        listed = await database.command("listCollections", cursor={"batchSize": 1_000})
        there = {entry["name"]: entry["options"] for entry in listed["cursor"]["firstBatch"]}
        assert {name: (there[name]["viewOn"], there[name]["pipeline"]) for name in VIEWS} == VIEWS
    finally:
        await client.drop_database(database.name)
        await mongo.close(client)


def test_costs_are_exact_by_day_model_and_tag_and_a_job_has_a_price(ledger: Ledger) -> None:
    ledger.add(*(recent(number, tags={"team": "red"}) for number in range(3)))
    ledger.add(recent(3, tags={"team": "blue", "stage": "prod"}, operation="embeddings"))
    ledger.usage("rollup")
    costs = view(ledger, "costs_daily")
    assert sum(row["cost_usd"].to_decimal() for row in costs) == Decimal("0.0000004")
    by_tag = {(row["tag"], row["value"]): row["cost_usd"].to_decimal() for row in view(ledger, "costs_by_tag")}
    assert by_tag == {
        ("team", "red"): Decimal("0.0000003"),
        ("team", "blue"): Decimal("0.0000001"),
        ("stage", "prod"): Decimal("0.0000001"),
    }
    (embedding,) = view(ledger, "unit_costs", operation="embeddings")
    assert embedding["usd_per_job"].to_decimal() == Decimal("0.0000001")


def test_percentiles_are_within_two_percent_of_the_calls(ledger: Ledger) -> None:
    ledger.add(*(recent(number, provider_ms=number + 1) for number in range(1_000)))
    (found,) = view(ledger, "latencies")
    assert found["calls"] == 1_000
    assert found["longest_ms"] == 1_000
    assert 500 <= found["p50_ms"] <= 510
    assert 950 <= found["p95_ms"] <= 970


def test_what_was_spent_for_nothing_is_told_by_its_outcome(ledger: Ledger) -> None:
    ledger.add(recent(0), recent(1, billed=False), recent(2, billed=False, outcome="sent_unknown", estimated=True))
    ledger.usage("rollup")
    found = {row["outcome"]: row for row in view(ledger, "spent_for_nothing")}
    assert found["succeeded"]["unbilled_calls"] == 1
    assert found["sent_unknown"]["failed_usd"].to_decimal() == Decimal("0.0000001")


def test_the_forecast_is_what_is_spent_and_the_last_weeks_pace_until_the_months_end(ledger: Ledger) -> None:
    week = [NOW - timedelta(days=days) for days in range(1, 8)]
    ledger.add(*(recent(n, at=at, recorded_at=at, cost_usd=Decimal128("1")) for n, at in enumerate(week)))
    ledger.usage("rollup")
    (found,) = view(ledger, "forecast")
    assert found["usd_a_day"].to_decimal() == Decimal(1)
    begin = NOW.replace(day=1, hour=0, minute=0, second=0)
    assert found["spent_usd"].to_decimal() == sum(at >= begin for at in week)
    end = (begin + timedelta(days=32)).replace(day=1)
    expected = found["spent_usd"].to_decimal() + Decimal((end - NOW).total_seconds()) / 86_400
    assert abs(found["forecast_usd"].to_decimal() - expected) < Decimal("0.01")


def test_the_inexact_views_hold_doubles_and_the_ledger_does_not(ledger: Ledger) -> None:
    ledger.add(recent(0))
    ledger.usage("rollup")
    assert [type(row["cost_usd"]) for row in view(ledger, "usage_inexact")] == [float]
    assert [type(row["unbilled_usd"]) for row in view(ledger, "usage_daily_inexact")] == [float]
    assert [type(row["cost_usd"]) for row in view(ledger, "usage")] == [Decimal128]


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[str]:
    """The address, with an administrator's name, of a mongod that asks for passwords."""
    environment = {"PATH": "/usr/bin:/bin"}
    key = tmp_path / "key"
    key.write_text(secrets.token_hex(64))
    key.chmod(0o600)
    password = secrets.token_hex(8)
    with Children(tmp_path / "logs") as children:
        mongod = Mongod(tmp_path / "data", children, environment=environment)
        await mongod.start(lambda _: None)
        with pymongo.MongoClient[dict[str, Any]](mongod.url) as client:
            client.admin.command("createUser", "root", pwd=password, roles=["root"])
        await mongod.stop()
        arguments = [str(find(environment)), *mongod._arguments(), "--auth", "--keyFile", str(key)]
        child = children.start("mongod-guarded", arguments, environment)
        url = mongod.url.replace("mongodb://", f"mongodb://root:{password}@") + "&authSource=admin"
        with pymongo.MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=30_000) as client:
            client.admin.command("ping")
        yield url
        await child.stop(20)


async def test_an_analyst_reads_the_ledger_and_its_views_and_can_do_nothing_else(
    guarded: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {"AIBROKER_MONGO": guarded, "AIBROKER_PREFIX": "guarded"}
    await asyncio.to_thread(run, ["usage", "analyst", "--user", "alice"], environment)
    password = capsys.readouterr().out.strip()
    with pymongo.MongoClient[dict[str, Any]](guarded) as client:
        client["guarded"]["usage"].insert_one(recent(0))
        client["guarded"]["jobs"].insert_one(
            {"_id": "acme/secret", "state": "succeeded", "result": {"output": "secret"}}
        )
    host = guarded.partition("@")[2].partition("/")[0]
    url = f"mongodb://alice:{password}@{host}/guarded?replicaSet=aibroker"
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        database = client["guarded"]
        assert len(list(database["usage"].find())) == len(list(database["usage_inexact"].find())) == 1
        for name in VIEWS:
            list(database[name].find())
        for name in ("jobs", "results", "quotas"):
            with pytest.raises(OperationFailure, match="not authorized"):
                list(database[name].find())
        with pytest.raises(OperationFailure, match="not authorized"):
            database["usage"].insert_one(recent(1))
        with pytest.raises(OperationFailure, match="not authorized"):
            database["usage"].update_one({}, {"$set": {"billed": False}})
    assert await asyncio.to_thread(run, ["usage", "analyst"], environment) == 0
