"""How MongoDB is connected to and checked; what needs a real one is in the stores' contract."""

import asyncio
import gc
import socket
import warnings
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from pymongo.errors import OperationFailure

from broker.errors import MongoMissing
from broker.mongo import Client, check, close, connect

URL = "mongodb://127.0.0.1:27017/?replicaSet=aibroker"
GOOD = {"setName": "aibroker", "isWritablePrimary": True}


@pytest.fixture(params=["pymongo", "motor"])
def driver(request: pytest.FixtureRequest) -> Literal["pymongo", "motor"]:
    chosen: Literal["pymongo", "motor"] = request.param
    return chosen


@pytest.fixture
async def client(driver: Literal["pymongo", "motor"]) -> AsyncIterator[Client]:
    made = connect(f"{URL}&w=1&readConcernLevel=local&maxPoolSize=7", driver)
    yield made
    await close(made)


def answering(hello: dict[str, Any], version: str = "6.0.5") -> Any:  # noqa: ANN401 a stand-in for a client
    """A client whose server answers so."""

    async def command(name: str, **_: object) -> dict[str, Any]:
        if "code" in hello:
            raise OperationFailure("Authentication failed", hello["code"])
        return hello if name == "hello" else {"version": version}

    return SimpleNamespace(admin=SimpleNamespace(command=command))


async def test_writes_and_reads_are_majority_ones_whatever_the_url_says(client: Client) -> None:
    assert client.write_concern.document == {"w": "majority"}
    assert client.read_concern.document == {"level": "majority"}
    assert client.codec_options.tz_aware
    assert client.options.retry_writes


async def test_the_url_may_set_the_size_of_the_pool(client: Client) -> None:
    assert client.options.pool_options.max_pool_size == 7


@pytest.mark.parametrize("url", ["http://127.0.0.1", "mongodb://", "mongodb://u:p@ss@host/"])
def test_a_wrong_address_is_told_without_its_password(url: str, driver: Literal["pymongo", "motor"]) -> None:
    with pytest.raises(MongoMissing, match="address of MongoDB is wrong") as told:
        connect(url, driver)
    assert "p@ss" not in str(told.value)


async def test_a_server_that_cannot_be_reached_is_missing(driver: Literal["pymongo", "motor"]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        client = connect(f"mongodb://127.0.0.1:{free.getsockname()[1]}", driver)
        with pytest.raises(MongoMissing, match=r"cannot be reached: 127\.0\.0\.1") as told:
            await check(client, within_s=0.3)
    assert "Topology" not in str(told.value)
    await abandon(client)


async def abandon(client: Client) -> None:
    """Close a client whose monitor may be in the middle of a connect: PyMongo then leaves the socket to the collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        await close(client)
        async with asyncio.timeout(5):
            await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)
        gc.collect()


async def test_a_primary_or_a_router_of_6_0_passes() -> None:
    await check(answering(GOOD, "6.0.0"))
    await check(answering({"msg": "isdbgrid", "isWritablePrimary": True}, "8.0.1-rc0"))


@pytest.mark.parametrize(
    ("hello", "version", "sentence"),
    [
        (GOOD, "5.0.31", "version 5.0.31; 6.0 or newer is needed"),
        ({"isWritablePrimary": True}, "6.0.5", "without a replica set"),
        ({**GOOD, "isWritablePrimary": False}, "6.0.5", "has no primary that takes writes"),
        ({"code": 18}, "6.0.5", "does not answer as it should: Authentication failed"),
    ],
)
async def test_a_server_that_does_not_serve_is_refused_with_a_sentence(
    hello: dict[str, Any], version: str, sentence: str
) -> None:
    with pytest.raises(MongoMissing, match=sentence):
        await check(answering(hello, version))
