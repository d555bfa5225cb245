"""Sends the records of a file to its priority's topic in constant memory, spread over all partitions."""

import secrets
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from broker import kafka
from broker.cli.arrived import Ends
from broker.client.submission import Flow, acknowledged
from broker.control import control_record
from broker.errors import TopicMissing
from broker.lanes import Record
from broker.sending import Sending
from broker.settings import Settings

_RUN = 250  # records that go to one partition before the next has its turn
_ROOM_BYTES = 8_000_000
_ROOM_RECORDS = 5_000
_ACKNOWLEDGED_S = 120.0


class Upload:
    """The way to a priority's topic; get one by `Upload.to`."""

    def __init__(self, settings: Settings, sending: Sending, priority: str, partitions: int) -> None:
        self._settings = settings
        self._sending = sending
        self._topic = settings.topic(f"jobs.{priority}")
        self._partitions = partitions
        self._sent = secrets.randbelow(partitions) * _RUN  # spreads load where many send short files

    @classmethod
    @asynccontextmanager
    async def to(cls, settings: Settings, priority: str) -> AsyncIterator["Upload"]:
        """Open the way.

        Raises:
            KafkaMissing: Kafka does not answer.
            TopicMissing: The topic is not there.
        """
        name = f"jobs.{priority}"
        partitions = (await kafka.partition_counts(settings)).get(name)
        if not partitions:
            raise TopicMissing(f"there is no topic {settings.topic(name)}: make it with `aibroker topics`")
        async with Sending(settings, max_bytes=_ROOM_BYTES, max_records=_ROOM_RECORDS) as sending:
            yield cls(settings, sending, priority, partitions)

    async def send(self, values: Iterable[bytes]) -> None:
        """Send records and wait until all are acknowledged; the next is taken only while there is room.

        Raises:
            KafkaMissing: Kafka did not acknowledge some, tried again.
        """
        flow = Flow(self._sending, _ACKNOWLEDGED_S, _ROOM_RECORDS, _itself)
        async for _ in flow.through(values, self._record):
            pass

    async def seal(self, tenant: str, batch_id: str, total: int) -> None:
        """Say that a batch is complete."""
        message = {"action": "seal", "tenant": tenant, "batch_id": batch_id, "total": total}
        record = control_record(self._settings, message, event_id=str(uuid.uuid4()), now=datetime.now(UTC))
        await acknowledged(self._sending, [record], _ACKNOWLEDGED_S)

    async def ends(self) -> Ends:
        """Where the topic ends now: who has read up to there has read all that was sent."""
        return await ends_of(self._settings, [self._topic])

    def _record(self, value: Any) -> Record:  # noqa: ANN401 the bytes that `send` was given
        # Runs go round the partitions, so that all workers read of one file.
        partition = self._sent // _RUN % self._partitions
        self._sent += 1
        return Record(self._topic, value, partition=partition)


def _itself(record: Record) -> Record:
    return record


async def ends_of(settings: Settings, topics: Sequence[str]) -> Ends:
    """Where topics (by their full names) end now."""
    counts = await kafka.partition_counts(settings)
    before = settings.topic("")
    numbers = {topic: range(counts.get(topic.removeprefix(before), 0)) for topic in topics}
    places = [kafka.TopicPartition(topic, number) for topic, found in numbers.items() for number in found]
    reader = kafka.consumer(settings)
    try:
        with kafka.reaching(settings):
            await reader.start()
            ends: dict[kafka.TopicPartition, int] = await reader.end_offsets(places)
    finally:
        await reader.stop()
    return ends
