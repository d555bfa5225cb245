"""Asks servers whether they can really do their work: a group can join, a primary takes a majority write, HTTP answers.

The one place in `local/` that speaks to Kafka and MongoDB.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from aiokafka import AIOKafkaConsumer
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import ApiVersionRequest
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError, ServerSelectionTimeoutError
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from broker.local.errors import ServerTooOld, ServerUnreachable
from broker.local.ports import HOST

OLDEST_KAFKA = "2.5"
OLDEST_MONGO = (6, 0)
_OFFSET_FETCH, _OFFSET_FETCH_VERSION = 9, 7  # the request and the version of it that Kafka has had since OLDEST_KAFKA
_ASK_S = 5.0
_NOT_INITIALIZED, _NOT_A_MEMBER = 94, 93  # MongoDB's NotYetInitialized and InvalidReplicaSetConfig


async def group_can_join(bootstrap: str, timeout_s: float = _ASK_S) -> bool:
    """Whether Kafka lets a consumer group form; a fresh one cannot for a second or two after its port is open."""
    with _quiet():
        consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap, group_id=f"aibroker-ready-{uuid.uuid4().hex}", enable_auto_commit=False
        )
        try:
            async with asyncio.timeout(timeout_s):
                await consumer.start()
                consumer.subscribe(pattern="^aibroker-no-such-topic$")
                await consumer.getmany(timeout_ms=1)  # returns once the group has an assignment, here an empty one
        except (KafkaError, OSError, TimeoutError):
            return False
        finally:
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                await asyncio.wait_for(consumer.stop(), timeout_s)
    return True


async def check_kafka(bootstrap: str) -> None:
    """Say what is wrong with a Kafka that was given by its address.

    Raises:
        ServerUnreachable: nobody answers there, or no group can join.
        ServerTooOld: it is older than what we can work with.
    """
    try:
        async with asyncio.timeout(_ASK_S):
            newest = await _newest_version(bootstrap, api_key=_OFFSET_FETCH)
    except (KafkaError, OSError, TimeoutError, ValueError, OverflowError) as error:
        raise ServerUnreachable(
            f"no Kafka answers at {bootstrap} ({type(error).__name__}): check the address given with --kafka (HOST:PORT), "
            "or leave it out to have one started here"
        ) from error
    if newest < _OFFSET_FETCH_VERSION:
        raise ServerTooOld(
            f"the Kafka at {bootstrap} is older than {OLDEST_KAFKA}: use a newer one, or leave --kafka out"
        )
    if not await group_can_join(bootstrap, timeout_s=4 * _ASK_S):
        raise ServerUnreachable(
            f"the Kafka at {bootstrap} answers, but lets no consumer group form: check that its brokers advertise "
            "addresses which this machine reaches, and that __consumer_offsets is healthy"
        )


async def _newest_version(bootstrap: str, api_key: int) -> int:
    host, _, port = bootstrap.split(",", maxsplit=1)[0].rpartition(":")
    with _quiet():
        connection = await create_conn(host.strip("[]"), int(port))
        try:
            answer = await connection.send(ApiVersionRequest())
        finally:
            connection.close()
    return max((highest for key, _, highest in answer.api_versions if key == api_key), default=-1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep aiokafka from logging every refused connection: while a server starts, that is no news."""
    logger = logging.getLogger("aiokafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


@asynccontextmanager
async def primary(port: int, replica_set: str) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """Give what makes the mongod on `port` the only member of its set and says whether it takes a majority write already.

    A mongod that comes back on another port does not find itself in its own configuration; it is told its new address.
    """
    host = f"{HOST}:{port}"
    async with _asking(f"mongodb://{host}/?directConnection=true", 2.0) as client:

        async def answers() -> bool:
            try:
                hello = await client.admin.command("hello")
                if hello.get("isWritablePrimary"):
                    return await _takes_majority_write(client)
                if "setName" not in hello:
                    await _configure(client, replica_set, host)
            except PyMongoError:
                return False
            return False

        yield answers


def _asking(url: str, timeout_s: float) -> AsyncMongoClient[dict[str, Any]]:
    """Return a client for a moment: polling, because a client that is closed while it opens its second monitor leaks that socket."""
    return AsyncMongoClient(url, serverSelectionTimeoutMS=int(timeout_s * 1000), serverMonitoringMode="poll")


async def _configure(client: AsyncMongoClient[dict[str, Any]], replica_set: str, host: str) -> None:
    try:
        await client.admin.command("replSetGetStatus")
    except OperationFailure as error:
        if error.code == _NOT_INITIALIZED:
            await client.admin.command("replSetInitiate", {"_id": replica_set, "members": [{"_id": 0, "host": host}]})
        elif error.code == _NOT_A_MEMBER:
            config = (await client.admin.command("replSetGetConfig"))["config"]
            config["members"][0]["host"] = host
            config["version"] += 1
            await client.admin.command("replSetReconfig", config, force=True)


async def _takes_majority_write(client: AsyncMongoClient[dict[str, Any]]) -> bool:
    """Delete what is not there: waits for the majority as any write does, and leaves nothing."""
    nothing = client["aibroker_ready"].get_collection(
        "nothing", write_concern=WriteConcern(w="majority", wtimeout=2000)
    )
    await nothing.delete_one({"_id": 0})
    return True


async def check_mongo(url: str, timeout_s: float = _ASK_S) -> None:
    """Say what is wrong with a MongoDB that was given by its URL.

    Raises:
        ServerUnreachable: nobody answers there, or there is no primary.
        ServerTooOld: it is older than what we can work with, or neither a replica set nor a sharded cluster.
    """
    shown = url.rpartition("@")[2].removeprefix("mongodb://")  # never the password
    try:
        if url.startswith("mongodb://") and not await _anybody_listens(parse_uri(url)["nodelist"]):
            raise ServerSelectionTimeoutError("refused")
        async with _asking(url, timeout_s) as client:
            hello = await client.admin.command("hello")
            version = (await client.admin.command("buildInfo"))["version"]
            if "setName" not in hello and hello.get("msg") != "isdbgrid":
                raise ServerTooOld(
                    f"the MongoDB at {shown} is no replica set, so it cannot promise that a write stays: start it with "
                    "--replSet and run rs.initiate() once, or leave --mongo out"
                )
            if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_MONGO:
                raise ServerTooOld(
                    f"the MongoDB at {shown} is {version}, and {'.'.join(map(str, OLDEST_MONGO))} or newer is needed: "
                    "use a newer one, or leave --mongo out"
                )
            await _takes_majority_write(client)
    except (PyMongoError, ValueError) as error:
        raise ServerUnreachable(
            f"no MongoDB takes writes at {shown} ({type(error).__name__}): check the URL given with --mongo "
            "(mongodb://HOST:PORT/?replicaSet=NAME), or leave it out to have one started here"
        ) from error


async def _anybody_listens(nodes: Iterable[tuple[str, int]]) -> bool:
    """Ask before PyMongo does: it would try for the whole time-out where one look is enough."""
    return any([await port_open(port, host) for host, port in nodes])


async def http_answers(url: str, path: str) -> bool:
    """Whether `GET path` is answered with 200."""
    at = urlsplit(url)
    try:
        async with asyncio.timeout(_ASK_S):
            reader, writer = await asyncio.open_connection(at.hostname, at.port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {at.netloc}\r\nConnection: close\r\n\r\n".encode())
            status = await reader.readline()
            writer.close()
    except (OSError, TimeoutError):
        return False
    return status.split(b" ")[1:2] == [b"200"]


async def port_open(port: int, host: str = HOST) -> bool:
    """Whether anybody listens: cheap, so it is asked before anything that costs more."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True
