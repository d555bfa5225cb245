"""The questions of `deploy/analysts.md`, as they stand there, against a real MongoDB with its validator and view."""

import json
import re
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from importlib import resources
from typing import Any

import pytest
from bson.decimal128 import Decimal128

from broker import mongo
from broker.usage.rollup import roll_up
from tests.integration.a_ledger import ledger_row

NOW = datetime.now(UTC).replace(microsecond=0)
_QUESTION = re.compile(
    r"^## ([^\n]+)\n(?:(?!^## ).)*?```js\ndb\.(\w+)\.aggregate\((.*?)\)\n```", re.DOTALL | re.MULTILINE
)
PAGE = resources.files("deploy").joinpath("analysts.md").read_text(encoding="utf-8")
QUESTIONS = {title: (collection, json.loads(pipeline)) for title, collection, pipeline in _QUESTION.findall(PAGE)}


def a_row(number: int, **fields: object) -> dict[str, Any]:
    ours = {"at": NOW, "recorded_at": NOW, "tenant": "acme", "batch_id": "b1", "tags": {"team": "red"}}
    return ledger_row(number, **{**ours, "provider_ms": 640 + number, **fields})


@pytest.fixture
async def database(mongo_url: str) -> AsyncIterator[mongo.Database]:
    """A database with a small ledger and its kept sums, a failed job and a waiting one."""
    client = mongo.connect(mongo_url)
    name = f"t{uuid.uuid4().hex[:10]}"
    try:
        await mongo.prepare(client[name])
        rows = [*(a_row(number) for number in range(3)), a_row(3, billed=False, cost_usd=Decimal128("0.5"))]
        await client[name]["usage"].insert_many([*rows, a_row(4, tenant="globex", tags={})])
        result = {
            "tenant": "acme",
            "job_id": "j9",
            "status": "failed",
            "code": "provider_error",
            "message": "it failed",
        }
        await client[name]["jobs"].insert_many(
            [
                {"_id": "acme/j9", "state": "failed", "result": result},
                {"_id": "acme/j8", "state": "waiting", "priority": "batch", "tenant": "acme", "due_at": NOW},
            ]
        )
        async for _ in roll_up(client[name]):
            pass
        yield client[name]
    finally:
        await client.drop_database(name)
        await mongo.close(client)


def test_the_page_has_a_question_under_every_heading() -> None:
    assert len(QUESTIONS) == PAGE.count("\n## ") == PAGE.count("```js")


@pytest.mark.parametrize("title", QUESTIONS)
async def test_a_question_has_an_answer(title: str, database: mongo.Database) -> None:
    collection, pipeline = QUESTIONS[title]
    assert await (await database[collection].aggregate(pipeline)).to_list()


async def test_sums_are_exact_and_kept_apart(database: mongo.Database) -> None:
    async def answer(title: str) -> list[dict[str, Any]]:
        collection, pipeline = QUESTIONS[title]
        return await (await database[collection].aggregate(pipeline)).to_list()

    (invoice,) = await answer("Does the provider's invoice agree?")
    assert invoice["not_estimated_usd"].to_decimal() == Decimal("0.5000004")
    assert invoice["billed_usd"].to_decimal() == Decimal("0.0000004")
    acme, globex = await answer("What does each tenant pay for each model and day?")
    assert (acme["jobs"], acme["cost_usd"].to_decimal()) == (3, Decimal("0.0000003"))
    assert globex["_id"]["tenant"] == "globex"
    (unbilled,) = await answer("What was spent and billed to nobody, and why?")
    assert unbilled["cost_usd"].to_decimal() == Decimal("0.5")
    (failure,) = await answer("Why did jobs not succeed?")
    assert failure["_id"] == {"tenant": "acme", "status": "failed", "code": "provider_error"}
