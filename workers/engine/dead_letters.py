"""Keeps in `jobs.dead`, byte for byte, what is not a job; what Kafka does not acknowledge is sent again until it does."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from broker.codec import NotAJob
from broker.errors import AibrokerError
from broker.events import Events
from broker.lanes import Record as Outgoing
from broker.lanes import Sent
from broker.outgoing import dead_headers
from broker.sending import Sending
from broker.settings import Settings
from workers.engine.insistence import acknowledged
from workers.engine.persistence import LONGEST_RETRY_S
from workers.engine.record import Record


class Burial(NamedTuple):
    """A record on its way to `jobs.dead`."""

    record: Record
    why: NotAJob
    sent: "asyncio.Future[Sent]"


class DeadLetters:
    """The way to `jobs.dead`: a record's offset is done when `keep` or `kept` is back, not before."""

    def __init__(self, settings: Settings, sending: Sending) -> None:
        self._topic = settings.topic("jobs.dead")
        self._sending = sending
        self._events = Events("worker.dead_letters")

    async def keep(self, record: Record, why: NotAJob) -> None:
        """Bury one and wait until it is there."""
        await self.kept([await self.bury(record, why)])

    async def bury(self, record: Record, why: NotAJob) -> Burial:
        """Hand a record over to Kafka, with the reason in its headers."""
        self._events.warning("record.dead", code=why.code, **_where(record))
        return Burial(record, why, await self._send(record, why))

    async def kept(self, burials: Iterable[Burial]) -> None:
        """Wait until `jobs.dead` has them all."""
        for record, why, sent in burials:
            await acknowledged(sent, partial(self._send, record, why), partial(self._failed, record))

    def _failed(self, record: Record, error: AibrokerError) -> None:
        self._events.warning(
            "record.dead_unacknowledged", reason=str(error), again_in_s=LONGEST_RETRY_S, **_where(record)
        )

    async def _send(self, record: Record, why: NotAJob) -> "asyncio.Future[Sent]":
        headers = dead_headers(record.headers, why, record.place, datetime.now(UTC))
        return await self._sending.put(Outgoing(self._topic, record.value, record.key, headers))


def _where(record: Record) -> dict[str, Any]:
    place = record.place
    return {"topic": place.topic, "partition": place.partition, "offset": place.offset}
