"""Sends control messages, and waits until a worker has done what they ask."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from broker import mongo
from broker.cli import database, queries
from broker.client.submission import acknowledged
from broker.control import control_record
from broker.errors import ControlRefused
from broker.lanes import Sent
from broker.sending import Sending
from broker.settings import Settings
from schemas.codes import MEANING, Code

_SENT_S = 60.0
_DONE_S = 5.0
_LOOK_S = 0.1

Message = Mapping[str, object]


@dataclass(slots=True, frozen=True)
class Desk:
    """Where workers are asked; get one by `desk`."""

    settings: Settings
    sending: Sending
    opened: mongo.Database

    async def ask(self, message: Message) -> Sent:
        """Send one message; return where it stands.

        Raises:
            UsageError: It asks for nothing that there is.
            KafkaMissing: Kafka did not take it.
        """
        record = control_record(self.settings, message, event_id=str(uuid.uuid4()), now=datetime.now(UTC))
        async with asyncio.timeout(_SENT_S):
            return await (await self.sending.put(record))

    async def ask_all(self, messages: Iterable[Message]) -> None:
        """Send many messages; back when Kafka has them all."""
        now = datetime.now(UTC)
        records = [control_record(self.settings, message, event_id=str(uuid.uuid4()), now=now) for message in messages]
        await acknowledged(self.sending, records, _SENT_S)

    async def done(self, collection: str, key: str, sent: Sent) -> bool:
        """Whether a worker has done what was asked, within a few seconds: it keeps the message's offset."""
        field = "control_seq" if collection == "jobs" else "seq"
        give_up = time.monotonic() + _DONE_S
        while time.monotonic() < give_up:
            if await self.opened[collection].find_one({"_id": key, field: {"$gte": sent.offset}}, {"_id": 1}):
                return True
            await asyncio.sleep(_LOOK_S)
        return False

    async def check_batch(self, tenant: str, batch: str, hint: str = "") -> None:
        """Make sure that a tenant has a batch; `hint` says what else may be done.

        Raises:
            ControlRefused: `unknown_batch`.
        """
        states = await database.state_counts(self.opened, queries.batch_counts([(tenant, batch)]))
        if not states and not await self.opened["batches"].find_one({"_id": f"{tenant}/{batch}"}, {"_id": 1}):
            raise refused(Code.UNKNOWN_BATCH, f"the batch {batch} of the tenant {tenant}", hint)


@asynccontextmanager
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    """Open the way to workers, and to what they have done.

    Raises:
        KafkaMissing: Kafka does not answer.
        MongoMissing: MongoDB does not.
    """
    async with database.opened(settings) as opened, Sending(settings) as sending:
        yield Desk(settings, sending, opened)


def refused(code: Code, subject: str, hint: str = "") -> ControlRefused:
    """The error of what cannot be done: about what, why, what else may be done, and the code that never changes."""
    return ControlRefused(code.value, f"{subject}: {MEANING[code]}{hint and ' ' + hint} ({code.value})")


BEFORE_READ = "With --unread it is asked for all the same, for when one is."
"""The hint where a batch that nobody has seen may be meant."""


UNREAD = "no worker has read it yet: Kafka keeps it until one does (`aibroker doctor` shows whether any is alive)"
"""What is said where nothing was done within a few seconds."""
