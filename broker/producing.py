"""One producer after the other: started, asked, replaced when it has broken, and stopped in bounded time, whatever Kafka does meanwhile."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from broker.errors import KafkaMissing
from broker.events import Events
from broker.kafka import AIOKafkaProducer, KafkaError, reaching
from broker.lanes import Batch
from broker.settings import Settings

STOP_S = 5.0
_START_S = 30.0
_GIVE_UP_S = 0.5
_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 5.0

_events = Events("sending")


class Line:
    """The way to Kafka: the producer of now.

    Args:
        settings: Where Kafka is.
        make: Makes a producer that is not started.
    """

    def __init__(self, settings: Settings, make: Callable[[Settings], AIOKafkaProducer]) -> None:
        self._settings, self._make = settings, make
        self._producer: Any = None

    async def start(self) -> None:
        """Connect.

        Raises:
            KafkaMissing: Kafka does not answer within 30 s.
        """
        made = self._make(self._settings)
        try:
            with reaching(self._settings):
                async with asyncio.timeout(_START_S):
                    await made.start()
        except BaseException:
            await _stop(made, STOP_S)
            raise
        self._producer = made

    async def stop(self, patience_s: float = STOP_S) -> None:
        """Stop after waiting `patience_s` for what the producer holds; the rest, which it would try to send for ever, is forgotten."""
        if self._producer is not None:
            await _stop(self._producer, patience_s)
            self._producer = None

    async def replace(self, topics: Iterable[str]) -> None:
        """Put a new producer that knows `topics` in the place of the stopped one, however long that takes."""
        pause_s = _PAUSE_S
        while True:
            try:
                await self.start()
                break
            except KafkaMissing as error:
                _events.warning("producer.missing", why=str(error))
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        for topic in topics:
            with suppress(KafkaError):  # a topic that was deleted meanwhile must not stop the others
                await self._introduce(topic)

    def new_batch(self) -> Batch:
        """Return an empty batch; it may be sent by a later producer."""
        batch: Batch = self._producer.create_batch()
        return batch

    async def send(self, batch: Batch, topic: str, partition: int) -> asyncio.Future[Any]:
        """Send a batch to a topic that was counted, one at a time for each partition; return the library's future."""
        future: asyncio.Future[Any] = await self._producer.send_batch(batch, topic, partition=partition)
        return future

    async def count(self, topics: Iterable[str]) -> dict[str, int]:
        """Ask how many partitions topics have, 0 for one that does not exist, and have the producer know them.

        Raises:
            KafkaError: Kafka did not say.
        """
        cluster = await self._producer.client.fetch_all_metadata()  # of all: asking for one by name may make it
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        for topic, partitions in counts.items():
            if partitions:
                await self._introduce(topic)
        return counts

    async def _introduce(self, topic: str) -> None:
        """Have the producer know a topic, so that it does not wait for it in the middle of sending."""
        client = self._producer.client
        await client.add_topic(topic)
        if not client.cluster.partitions_for_topic(topic):
            await client.force_metadata_update()
        if not client.cluster.partitions_for_topic(topic):
            raise KafkaError(f"the partitions of {topic} are not known yet")


async def _stop(producer: AIOKafkaProducer, patience_s: float) -> None:
    try:
        async with asyncio.timeout(patience_s):
            await producer.flush()
    except TimeoutError:
        await _abandon(producer)
        return
    try:
        await producer.stop()
    except (KafkaError, OSError) as error:
        _events.debug("producer.stopped_badly", why=repr(error))


async def _abandon(producer: AIOKafkaProducer) -> None:
    """Have a producer forget what it holds, which its own `stop()` would try to send for ever."""
    task = producer._sender.sender_task  # noqa: SLF001 there is no public way to give up
    if task is not None:
        task.cancel()
        await producer.client.close()  # ends the requests whose answers it waits for
        done, _ = await asyncio.wait({task}, timeout=_GIVE_UP_S)
        if not done:  # it waits for news of a cluster that it has no connection to
            task.cancel()
            await asyncio.wait({task})
    await producer.client.close()
    producer._closed = True  # noqa: SLF001 the same
