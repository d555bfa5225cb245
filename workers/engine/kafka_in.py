"""The way in: FastStream owns connection, life and control topic; the hot path reads its consumers directly.

FastStream's acknowledgement commits the fetch position of every assigned partition, so job topics are subscribed without a handler: starting the
broker starts their consumers, which still appear in AsyncAPI, and the readers commit what is durable themselves.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage

from broker.codec import Place
from broker.events import Events
from broker.kafka import KafkaError, RebalanceListener, consumer_options
from broker.settings import Settings
from workers.engine.reader import LATEST_MS, Reader
from workers.engine.record import Record

FETCH_WAIT_MS = 1_000
"""How long a broker waits with its answer where it has nothing new: each answer costs an idle worker a millisecond of CPU, and a record ends the
wait at once. It holds up what is asked over the same connection, so the first records after a rebalance come so much later at most."""
STOP_S = 5.0
HANDLING_S = 3.0
"""How long stopping waits for the control record that is in hand."""


class Assignments(RebalanceListener):  # type: ignore[misc]  # aiokafka publishes no types
    """Tells which partitions of a priority this worker is given and loses, and lets their reader commit before they go to somebody else."""

    def __init__(self, priority: str) -> None:
        self._priority = priority
        self._events = Events("worker.reader")
        self.reader: Reader | None = None

    async def on_partitions_revoked(self, revoked: Any) -> None:  # noqa: ANN401 aiokafka's
        """Commit what is durable."""
        if revoked:  # nothing is, before the first assignment
            self._events.info("reader.revoked", priority=self._priority, partitions=_numbers(revoked))
        if self.reader is not None:
            await self.reader.revoked()

    async def on_partitions_assigned(self, assigned: Any) -> None:  # noqa: ANN401 aiokafka's
        """Only tell: reading goes on at the committed position."""
        self._events.info("reader.assigned", priority=self._priority, partitions=_numbers(assigned))


class KafkaIn:
    """Every consumer of a worker.

    Args:
        settings: Topics, groups, timeouts.
        control: Handles one record of the control topic; back when it is durable.
    """

    def __init__(self, settings: Settings, control: Callable[[Record], Awaitable[None]]) -> None:
        options = consumer_options(settings, fetch_max_wait_ms=FETCH_WAIT_MS)
        request_timeout_ms = options.pop("request_timeout_ms")
        options.pop("enable_auto_commit")  # the acknowledgement policy says it
        servers = options.pop("bootstrap_servers")
        self._kafka = KafkaBroker(
            servers,
            acks="all",
            enable_idempotence=True,
            allow_auto_create_topics=False,
            request_timeout_ms=request_timeout_ms,
            logger=None,
            graceful_timeout=HANDLING_S,
        )
        self._control = control
        self._events = Events("worker.kafka")
        self._listeners = {priority.name: Assignments(priority.name) for priority in settings.priorities}
        self._jobs = {
            priority.name: self._kafka.subscriber(
                settings.topic(f"jobs.{priority.name}"),
                group_id=settings.group(priority.name),
                ack_policy=AckPolicy.MANUAL,
                listener=self._listeners[priority.name],
                **options,
            )
            for priority in settings.priorities
        }
        subscriber = self._kafka.subscriber(
            settings.topic("jobs.control"),
            group_id=settings.group("control"),
            ack_policy=AckPolicy.MANUAL,
            decoder=_as_it_is,
            **options,
        )
        subscriber(self._handle)

    async def start(self) -> None:
        """Join the groups."""
        await self._kafka.start()

    def attach(self, reader: Reader) -> Any:  # noqa: ANN401 aiokafka publishes no types
        """Have a reader told before its partitions are revoked; return its started consumer."""
        self._listeners[reader.priority].reader = reader
        return self._jobs[reader.priority].consumer

    async def stop(self) -> None:
        """Leave the groups, within a few seconds."""
        try:
            async with asyncio.timeout(STOP_S):
                await self._kafka.stop()
        except (TimeoutError, KafkaError, ExceptionGroup) as error:  # the session's timeout does what we could not
            self._events.warning("kafka.not_left", reason=repr(error))

    async def _handle(self, message: KafkaMessage) -> None:
        """One at a time and in order, so that committing the position commits just what is durable."""
        raw: Any = message.raw_message
        timestamp = datetime.fromtimestamp(min(max(raw.timestamp, 0), LATEST_MS) / 1000, UTC)
        place = Place("", raw.topic, raw.partition, raw.offset, timestamp)
        await self._control(Record(place, raw.key, raw.value, raw.headers))
        await message.ack()


def _numbers(partitions: Iterable[Any]) -> list[int]:
    return sorted(each.partition for each in partitions)


async def _as_it_is(message: Any) -> Any:  # noqa: ANN401 FastStream's
    return message.body
