"""What the tests of several folders share: one real mongod for the whole run, started when the first test asks for it."""

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from broker.local.mongod import Mongod
from broker.local.processes import Children

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")  # how fast a machine is says nothing of what it runs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What may take longest begins first, so that short tests fill the gaps where several processes share the work."""
    items.sort(key=_patience_s, reverse=True)


def _patience_s(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker is not None else 0.0


class MongodWithFaults(Mongod):
    """A mongod that takes `configureFailPoint`, so that a test can lose an answer."""

    def _arguments(self) -> list[str]:
        return [*super()._arguments(), "--setParameter", "enableTestCommands=1"]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mongo_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The connection string of a real replica set of one; every test uses a database of its own, or cleans up."""
    folder = tmp_path_factory.mktemp("mongo")
    with Children(folder / "logs") as children:
        mongod = MongodWithFaults(folder / "data", children, environment=dict(os.environ))
        await mongod.start(lambda _: None)
        yield mongod.url
        await mongod.stop()
