"""One real Kafka, mongod and simulator for the whole run of the integration tests; a prefix of its own for each test."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from broker.local.stack import Plan, Stack
from tests.integration.a_ledger import Ledger, opened
from tests.integration.deployment import new_prefix


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The servers that all integration tests share; it holds nothing of an event loop, so every test may use it."""
    plan = Plan(data=tmp_path_factory.mktemp("stack"), environment=dict(os.environ))
    async with Stack(plan) as running:
        yield running


@pytest.fixture
def prefix() -> str:
    """The prefix of this test alone."""
    return new_prefix()


@pytest.fixture(scope="module")
def shared_prefix() -> str:
    """The prefix of this module's tests, which keep apart by the ids of their jobs: Kafka makes 70 partitions for a new one."""
    return new_prefix()


@pytest.fixture
def ledger(
    mongo_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Ledger]:
    """An empty ledger, and the command on it in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    with opened(mongo_url, capsys) as made:
        yield made
