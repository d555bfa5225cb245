"""A ledger of a test's own on the real mongod: its collections, rows as workers write them, and the command on it."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pymongo
import pytest
from bson.decimal128 import Decimal128
from pymongo.database import Database

from broker import mongo
from broker.cli.application import run
from tests.integration.deployment import new_prefix

AT = datetime(2026, 11, 1, 8, tzinfo=UTC)


def ledger_row(number: int, **fields: object) -> dict[str, Any]:
    """A row as a worker writes it; one a minute."""
    at = AT + timedelta(minutes=number)
    return {
        "_id": f"u{number}/1/1.1",
        "at": at,
        "recorded_at": at,
        "tenant": "acme" if number % 2 else "globex",
        "job_id": f"j{number}",
        "generation": 1,
        "batch_id": None,
        "priority": "batch",
        "operation": "chat",
        "provider": "openai",
        "credential": "main",
        "request_model": "gpt-4o-mini",
        "response_model": "gpt-4o-mini-2024-07-18",
        "response_id": f"chatcmpl-{number}",
        "request_id": f"req-{number}",
        "region": None,
        "service_tier": "default",
        "outcome": "succeeded",
        "finish_reasons": ["stop"],
        "input_tokens": 10,
        "cache_read_input_tokens": 4,
        "cache_creation_input_tokens": 0,
        "output_tokens": 5,
        "reasoning_output_tokens": 0,
        "cost_usd": Decimal128("0.0000001"),
        "price_id": "p",
        "billed": True,
        "estimated": False,
        "incarnation": "w",
        "held_tokens": 20,
        "quota_keys": [],
        "queued_ms": 3,
        "provider_ms": 640,
        "tags": {},
        **fields,
    }


@dataclass
class Ledger:
    """The ledger, and the command that is asked of it."""

    database: Database[dict[str, Any]]
    environment: dict[str, str]
    capsys: pytest.CaptureFixture[str]

    def add(self, *rows: dict[str, Any]) -> None:
        """Write rows."""
        self.database["usage"].insert_many(rows)

    def usage(self, *arguments: str, expected: int = 0) -> list[dict[str, Any]]:
        """Run `aibroker usage` with --json; return its lines."""
        code = run(["usage", *arguments, "--json"], self.environment)
        said = self.capsys.readouterr()
        assert code == expected, said.err
        return [json.loads(line) for line in said.out.splitlines()]


async def _prepare(url: str, name: str) -> None:
    client = mongo.connect(url)
    try:
        await mongo.prepare(client[name])
    finally:
        await mongo.close(client)


@contextmanager
def opened(url: str, capsys: pytest.CaptureFixture[str]) -> Iterator[Ledger]:
    """An empty ledger, dropped at the end."""
    name = new_prefix()
    asyncio.run(_prepare(url, name))
    with pymongo.MongoClient[dict[str, Any]](url, tz_aware=True) as client:
        try:
            yield Ledger(client[name], {"AIBROKER_MONGO": url, "AIBROKER_PREFIX": name}, capsys)
        finally:
            client.drop_database(name)
