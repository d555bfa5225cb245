"""What becomes of a record whose job is known already."""

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

import orjson

from broker.codec import Place
from broker.events import Events
from broker.sending import Sending
from tests.builders import BODY, Sent, some_hands, some_settings
from workers.engine.dead_letters import DeadLetters
from workers.engine.failpoints import Failpoints
from workers.engine.inlet import Inlet
from workers.engine.intake import Intake
from workers.engine.publisher import Publisher
from workers.engine.record import Record
from workers.engine.taker import Taker
from workers.engine.topics import Topics
from workers.stores.memory import MemoryDatabase, MemoryStore
from workers.stores.protocol import Address


class _Worker:
    """A worker that reads, on a store in memory."""

    def __init__(self) -> None:
        settings, failpoints, sending = some_settings(), Failpoints("", Events("test")), cast("Sending", Sent())
        self.store = MemoryStore(MemoryDatabase(), "us")
        self.hands = some_hands(self.store, asyncio.get_running_loop().time, settings)
        self.taker = Taker(self.store, ["normal"], self.hands)
        inlet = Inlet(
            store=self.store,
            publisher=Publisher(self.store, sending, settings, failpoints),
            dead_letters=DeadLetters(settings, sending),
            topics=Topics(self._topics),
        )
        self.intake = Intake(inlet, hands=self.hands, taker=self.taker, failpoints=failpoints)

    async def _topics(self) -> dict[str, int]:
        return {"results": 8, "results.a": 8, "results.b": 8}

    async def read(self, offset: int, **fields: Any) -> None:  # noqa: ANN401 any JSON value
        """One record of job `1` of acme."""
        place = Place("cluster", "jobs.normal", 0, offset, datetime.now(UTC))
        value = orjson.dumps({"id": "1", "tenant": "acme", "body": BODY, **fields})
        await self.intake.keep("normal", [Record(place, None, value, [])])

    async def take_and_forget(self) -> None:
        """A take whose answer, and the answer of the look after it, are lost: claimed by us, and nobody here knows."""
        await self.store.take(["acme/1"], "token", datetime.now(UTC))


async def orphan() -> _Worker:
    """A worker that has claimed a job without knowing it; its producer awaits it on `results.a`."""
    worker = _Worker()
    await worker.read(0, reply_to="results.a", metadata="first")  # before the lease: it waits
    await worker.hands.leases.start({})
    await worker.take_and_forget()
    return worker


async def test_a_duplicate_takes_up_what_a_lost_answer_left_claimed() -> None:
    worker = await orphan()
    await worker.read(1, reply_to="results.a")
    ready = worker.hands.ready.pop()
    assert ready is not None
    assert (ready.claim.id, ready.claim.fence) == ("acme/1", 2)


async def test_a_duplicate_that_takes_a_job_up_adds_its_own_reply_address() -> None:
    worker = await orphan()
    await worker.read(1, reply_to="results.b")
    ready = worker.hands.ready.pop()
    assert ready is not None
    assert set(ready.claim.replies) == {Address("results.a"), Address("results.b")}


async def test_a_job_that_a_duplicate_takes_up_runs_as_it_was_submitted_first() -> None:
    worker = await orphan()
    await worker.read(1, reply_to="results.a", metadata="second")
    ready = worker.hands.ready.pop()
    assert ready is not None
    assert ready.parsed.metadata == "first"


async def test_a_duplicate_with_another_body_takes_nothing_up() -> None:
    worker = await orphan()
    await worker.read(1, body={**BODY, "temperature": 1})
    assert len(worker.hands.ready) == 0
    assert len(worker.hands.registry) == 0  # the audit finds the job that is there
