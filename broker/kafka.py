"""The door to Kafka: producers, consumers and the administrator's client with the options that this product needs, and what there is to know.

Everybody else imports aiokafka's names from here. The options heed what the library does otherwise: it would commit by itself, skip what came
before a group's first start, read what was never committed, and hold every partition of a broker back for one that nobody reads.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener as RebalanceListener
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import CoordinatorNotAvailableError, KafkaError, MessageSizeTooLargeError, OffsetOutOfRangeError
from aiokafka.partitioner import murmur2
from aiokafka.protocol.admin import ApiVersionRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import OffsetAndMetadata

from broker.errors import KafkaMissing
from broker.settings import Settings

__all__ = [
    "AIOKafkaAdminClient",
    "AIOKafkaConsumer",
    "AIOKafkaProducer",
    "Cluster",
    "ConfigResource",
    "ConfigResourceType",
    "ConsumerRecord",
    "KafkaError",
    "MessageSizeTooLargeError",
    "NewTopic",
    "OffsetAndMetadata",
    "OffsetOutOfRangeError",
    "RebalanceListener",
    "RecordsToDelete",
    "TopicPartition",
    "admin",
    "backlog",
    "check",
    "consumer",
    "consumer_options",
    "heartbeat_s",
    "murmur2",
    "partition_counts",
    "producer",
    "producer_options",
    "reaching",
]

MAX_REQUEST_BYTES = 5_242_880
"""The largest record that is sent: a job record that was too large, on its way to `jobs.dead`."""
BATCH_BYTES = 262_144
OLDEST = "2.8"
"""The oldest Kafka that is served."""

_REBALANCE_MS = 60_000
_MAX_POLL_MS = 300_000
_PRODUCE_MS = 20_000
_ASK_MS = 10_000
_COORDINATOR_ASKS = 20
_COORDINATOR_PAUSE_S = 0.25
_SINCE = {60: "2.8", 65: "3.0", 71: "3.7", 75: "3.8", 80: "3.9", 76: "4.0", 88: "4.1"}
"""The version in which a request of Kafka's protocol came, by the request's number."""


@dataclass(slots=True, frozen=True)
class Cluster:
    """A Kafka that answers: its id, how many brokers it has, and the version that it has at least."""

    id: str
    brokers: int
    at_least: str


@contextmanager
def reaching(settings: Settings) -> Iterator[None]:
    """Turn what the library raises when Kafka does not answer into `KafkaMissing`."""
    try:
        yield
    except (KafkaError, OSError, ValueError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        detail = "" if "Unable to bootstrap" in why else f" ({why[:200]})"
        raise KafkaMissing(
            f"Kafka at {settings.kafka} does not answer{detail}: start it with `aibroker up`, or name yours in AIBROKER_KAFKA"
        ) from error


def producer_options(settings: Settings, *, linger_ms: int = 0) -> dict[str, Any]:
    """Options of a producer whose acknowledged records are on a majority of disks, each once."""
    return {
        "bootstrap_servers": settings.kafka,
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": linger_ms,
        "max_batch_size": BATCH_BYTES,
        "max_request_size": MAX_REQUEST_BYTES,
        "request_timeout_ms": _PRODUCE_MS,
    }


def producer(settings: Settings, *, linger_ms: int = 0) -> AIOKafkaProducer:
    """Return a producer that is not started. Use it through `broker.sending.Sending`: concurrent `send()` is quadratic."""
    return AIOKafkaProducer(**producer_options(settings, linger_ms=linger_ms))


def heartbeat_s(settings: Settings) -> float:
    """Seconds between two heartbeats of a member of a group."""
    return min(5.0, settings.session_timeout_s / 3)


def consumer_options(settings: Settings, *, fetch_max_wait_ms: int = 500) -> dict[str, Any]:
    """Options of a consumer that gives bytes, commits nothing by itself and skips nothing; without topics and group."""
    session_ms = int(settings.session_timeout_s * 1000)
    return {
        "bootstrap_servers": settings.kafka,
        "auto_offset_reset": "earliest",
        "isolation_level": "read_committed",
        "enable_auto_commit": False,
        "fetch_max_wait_ms": fetch_max_wait_ms,
        "consumer_timeout_ms": 1_000,  # how often it looks though nothing woke it; by default a fifth of that, a quarter of an idle worker's CPU
        "partition_assignment_strategy": (RoundRobinPartitionAssignor,),
        "session_timeout_ms": session_ms,
        "heartbeat_interval_ms": int(heartbeat_s(settings) * 1000),
        "rebalance_timeout_ms": _REBALANCE_MS,
        "max_poll_interval_ms": _MAX_POLL_MS,
        # a join waits until a member that died is given up: the request must not time out before
        "request_timeout_ms": max(40_000, session_ms + 15_000),
    }


def consumer(
    settings: Settings,
    topics: Sequence[str] = (),
    *,
    group: str | None = None,
    reset: str = "earliest",
    partition_bytes: int = 1_048_576,
) -> AIOKafkaConsumer:
    """Return a consumer that is not started.

    Args:
        settings: Where Kafka is, and the session's timeout.
        topics: To subscribe to, with the prefix; none for a consumer that is to `assign` partitions.
        group: The consumer group with the prefix, or None for a reader that belongs to none.
        reset: Where to go on where a position has expired: "earliest", or "none" to be told by an exception.
        partition_bytes: How much of a partition is fetched at a time, one batch at least.
    """
    options = consumer_options(settings) | {"auto_offset_reset": reset, "max_partition_fetch_bytes": partition_bytes}
    return AIOKafkaConsumer(*topics, group_id=group, **options)


@asynccontextmanager
async def admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Give an administrator's client.

    Raises:
        KafkaMissing: Kafka does not answer.
    """
    client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka, request_timeout_ms=_ASK_MS)
    try:
        with reaching(settings):
            await client.start()
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def _asking(settings: Settings) -> AsyncIterator[AIOKafkaClient]:
    with reaching(settings):
        client = AIOKafkaClient(bootstrap_servers=settings.kafka, request_timeout_ms=_ASK_MS)
        try:
            await client.bootstrap()
            yield client
        finally:
            await client.close()


async def check(settings: Settings) -> Cluster:
    """Say which Kafka there is.

    Raises:
        KafkaMissing: It does not answer, or is older than 2.8.
    """
    async with _asking(settings) as client:
        node = client.get_random_node()
        if node is None:
            raise KafkaError("it names no broker")
        versions = await client.send(node, ApiVersionRequest())
        about = (await client.send(node, MetadataRequest([]))).to_object()
    at_least = version({entry[0] for entry in versions.api_versions})
    if at_least is None:
        raise KafkaMissing(f"Kafka at {settings.kafka} is older than {OLDEST}: update it, or use another one")
    return Cluster(about["cluster_id"], len(about["brokers"]), at_least)


def version(requests: set[int]) -> str | None:
    """Return the version that a Kafka has at least that knows these requests, None if it is too old."""
    known = [since for number, since in _SINCE.items() if number in requests]
    return max(known, default=None) if 60 in requests else None


async def partition_counts(settings: Settings) -> dict[str, int]:
    """Return how many partitions each topic of this deployment has, by its name without the prefix.

    Raises:
        KafkaMissing: Kafka does not answer.
    """
    async with _asking(settings) as client:
        cluster = await client.fetch_all_metadata()
        before = settings.topic("")
        return {
            topic.removeprefix(before): len(cluster.partitions_for_topic(topic) or ())
            for topic in cluster.topics()
            if topic.startswith(before)
        }


async def backlog(settings: Settings) -> dict[str, int]:
    """Return how many records of each priority's topic its group has not committed.

    A group that has committed nothing yet has the whole topic before it. Markers of transactions count as records.

    Raises:
        KafkaMissing: Kafka does not answer.
    """
    counts = await partition_counts(settings)
    lag: dict[str, int] = {}
    reader = consumer(settings)
    async with admin(settings) as client:
        try:
            with reaching(settings):
                await reader.start()
                for priority in (priority.name for priority in settings.priorities):
                    topic = settings.topic(f"jobs.{priority}")
                    places = [TopicPartition(topic, n) for n in range(counts.get(f"jobs.{priority}", 0))]
                    done = await _committed(client, settings.group(priority))
                    lag[priority] = await _behind(reader, places, done) if places else 0
        finally:
            await reader.stop()
    return lag


async def _committed(client: AIOKafkaAdminClient, group: str) -> dict[TopicPartition, int]:
    for _ in range(_COORDINATOR_ASKS):
        try:
            offsets = await client.list_consumer_group_offsets(group)
            break
        except CoordinatorNotAvailableError:  # a Kafka that has just started is making the topic of its groups
            await asyncio.sleep(_COORDINATOR_PAUSE_S)
    else:
        offsets = await client.list_consumer_group_offsets(group)
    return {place: offset.offset for place, offset in offsets.items() if offset.offset >= 0}


async def _behind(reader: AIOKafkaConsumer, places: Sequence[TopicPartition], done: dict[TopicPartition, int]) -> int:
    ends, starts = await reader.end_offsets(places), await reader.beginning_offsets(places)
    return sum(max(0, ends[place] - max(done.get(place, 0), starts[place])) for place in places)
