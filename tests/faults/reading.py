"""Reads a run's history from Kafka, MongoDB and the simulator with plain clients; imports nothing of ours."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pymongo
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from pymongo.read_concern import ReadConcern

from tests.faults.history import History, Kill, Limit, Place, Record

PRIORITIES = ("interactive", "normal", "batch")
READ_S = 300.0


@dataclass(frozen=True)
class Services:
    """Where a run's data lies; the simulator's calls before number `first_call` belong to earlier runs."""

    kafka: str
    mongo: str
    database: str
    prefix: str
    simulator: str
    first_call: int = 0

    def topic(self, name: str) -> str:
        """A topic's name on the wire."""
        return f"{self.prefix}.{name}" if self.prefix else name

    def group(self, priority: str) -> str:
        """The readers' consumer group of a priority."""
        return f"{self.prefix or 'aibroker'}.{priority}"


async def read_history(
    services: Services, *, accepted: Sequence[Place] = (), kills: Sequence[Kill] = (), limits: Sequence[Limit] = ()
) -> History:
    """Read everything that there is; `accepted`, `kills` and `limits` are what only the caller knows."""
    records = await read_records(services)
    with pymongo.MongoClient[dict[str, Any]](services.mongo) as client:
        database = client.get_database(services.database, read_concern=ReadConcern("majority"))
        documents, ledger, quotas = (list(database[name].find()) for name in ("jobs", "usage", "quotas"))
    return History(
        accepted=accepted,
        records=[record for priority in PRIORITIES for record in records.get(f"jobs.{priority}", ())],
        dead=records.get("jobs.dead", ()),
        events=[record for topic, them in records.items() if topic.split(".")[0] == "results" for record in them],
        usage_events=records.get("usage", ()),
        documents=documents,
        ledger=ledger,
        quotas=quotas,
        calls=read_calls(services),
        committed=await read_committed(services),
        kills=kills,
        limits=limits,
        prefix=services.prefix,
    )


async def read_records(services: Services) -> dict[str, list[Record]]:
    """Every committed record of every topic of this deployment, by the topic's name without its prefix."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=services.kafka,
        isolation_level="read_committed",
        enable_auto_commit=False,
        fetch_max_wait_ms=100,
    )
    await consumer.start()
    try:
        return await _read_all(consumer, await _partitions(services), services.topic(""))
    finally:
        await consumer.stop()


@asynccontextmanager
async def _admin(services: Services) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=services.kafka)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def _partitions(services: Services) -> list[TopicPartition]:
    """Every partition of this deployment's topics."""
    async with _admin(services) as admin:
        start = services.topic("")
        names = [name for name in await admin.list_topics() if name.startswith(start) and not name.startswith("__")]
        return [
            TopicPartition(topic["topic"], partition["partition"])
            for topic in await admin.describe_topics(names)
            for partition in topic["partitions"]
        ]


async def _read_all(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], start: str
) -> dict[str, list[Record]]:
    ends = await consumer.end_offsets(partitions)
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    found: dict[str, list[Record]] = {partition.topic.removeprefix(start): [] for partition in partitions}
    left = {partition for partition in partitions if ends[partition]}
    async with asyncio.timeout(READ_S):
        while left:
            batches = await consumer.getmany(*left, timeout_ms=200)
            for partition, messages in batches.items():
                topic = partition.topic.removeprefix(start)
                found[topic] += [_record(topic, message) for message in messages]
            for partition in list(left):
                if await consumer.position(partition) >= ends[partition]:
                    left.remove(partition)
    return found


def _record(topic: str, message: Any) -> Record:  # noqa: ANN401 aiokafka publishes no types
    headers = tuple((name, content) for name, content in message.headers)
    return Record(topic, message.partition, message.offset, message.key, message.value, headers)


async def read_committed(services: Services) -> dict[tuple[str, int], int]:
    """The offsets that the readers' groups have committed."""
    async with _admin(services) as admin:
        start = services.topic("")
        return {
            (partition.topic.removeprefix(start), partition.partition): kept.offset
            for priority in PRIORITIES
            for partition, kept in (await admin.list_consumer_group_offsets(services.group(priority))).items()
        }


async def read_ends(services: Services) -> dict[tuple[str, int], int]:
    """Where the topics of jobs end now."""
    start = services.topic("")
    jobs = {services.topic(f"jobs.{priority}") for priority in PRIORITIES}
    consumer = AIOKafkaConsumer(bootstrap_servers=services.kafka, enable_auto_commit=False)
    await consumer.start()
    try:
        ends = await consumer.end_offsets([each for each in await _partitions(services) if each.topic in jobs])
    finally:
        await consumer.stop()
    return {(partition.topic.removeprefix(start), partition.partition): end for partition, end in ends.items()}


def read_calls(services: Services, last: int | None = None) -> list[dict[str, Any]]:
    """This run's part of the simulator's log, or its last so many calls: all that it was sent, in the order in which they were opened."""
    since = services.first_call if last is None else max(read_stats(services)["calls"] - last, services.first_call)
    return [json.loads(line) for line in _ask(services, f"/sim/calls?since={since}").splitlines()]


def read_stats(services: Services) -> dict[str, Any]:
    """The simulator's counts over all runs."""
    stats: dict[str, Any] = json.loads(_ask(services, "/sim/stats"))
    return stats


def _ask(services: Services, path: str) -> bytes:
    with urllib.request.urlopen(services.simulator + path, timeout=30) as answer:  # noqa: S310 the caller's own server
        content: bytes = answer.read()
        return content
