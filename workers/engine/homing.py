"""Has control messages about the same job, batch or tenant lie in one partition, whoever sent them.

Their offsets say which of them is later, and offsets of two partitions say nothing. Clients differ: Kafka's own hash a key by murmur2, librdkafka's
by CRC32 unless told otherwise, and a message without a key lies anywhere.
"""

from functools import partial

from broker.errors import AibrokerError
from broker.events import Events
from broker.kafka import murmur2
from broker.lanes import Record as Outgoing
from broker.lanes import home
from broker.sending import Sending
from broker.settings import Settings
from workers.engine.insistence import acknowledged
from workers.engine.record import Record
from workers.engine.topics import Topics

TOPIC = "jobs.control"


class Homing:
    """Sends a message that lies elsewhere to its key's partition, where its turn comes after what is there already."""

    def __init__(self, settings: Settings, sending: Sending, topics: Topics) -> None:
        self._topic = settings.topic(TOPIC)
        self._sending = sending
        self._topics = topics
        self._events = Events("worker.control")

    async def moved(self, record: Record, key: str) -> bool:
        """Back once Kafka has the message where it belongs; False: it is there, or no topic takes it again. A death in between may move it twice."""
        partitions = await self._topics.partitions(TOPIC)
        place = home(murmur2(key.encode()), partitions) if partitions else record.place.partition
        if record.place.partition == place:
            return False
        self._events.info("control.moved", partition=record.place.partition, offset=record.place.offset)
        outgoing = Outgoing(self._topic, record.value, key.encode(), record.headers, place)
        send = partial(self._sending.put, outgoing)
        try:
            await acknowledged(await send(), send, self._failed)
        except AibrokerError:  # what cannot be sent as it is, is heeded where it lies
            return False
        return True

    def _failed(self, error: AibrokerError) -> None:
        self._events.warning("control.not_moved", reason=str(error))
        if not error.retryable:
            raise error
