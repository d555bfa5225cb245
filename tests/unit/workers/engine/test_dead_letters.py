"""What is not a job is in `jobs.dead` before its record counts as done, also when Kafka fails at that moment."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from broker.codec import NotAJob, Place
from broker.errors import KafkaMissing
from broker.lanes import Record as Outgoing
from broker.lanes import Sent
from broker.sending import Sending
from broker.settings import Settings
from schemas.codes import Code
from tests.virtual_time import VirtualLoop, run
from workers.engine.control import Controller
from workers.engine.dead_letters import DeadLetters
from workers.engine.inlet import Inlet
from workers.engine.kafka_in import KafkaIn
from workers.engine.record import Record

UNREADABLE = NotAJob(Code.UNDECODABLE, "it is none")


class Kafka:
    """Stands where the sending task stands: the first sends fail, the others are acknowledged when it is told to."""

    def __init__(self, failing: int) -> None:
        self.failing = failing
        self.records: list[Outgoing] = []
        self.under_way: list[asyncio.Future[Sent]] = []
        self.put_thrice = asyncio.Event()

    async def put(self, record: Outgoing) -> "asyncio.Future[Sent]":
        """Take a record."""
        self.records.append(record)
        if len(self.records) == 3:
            self.put_thrice.set()
        future: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
        if len(self.records) <= self.failing:
            future.set_exception(KafkaMissing("planted"))
        else:
            self.under_way.append(future)
        return future

    def acknowledge(self) -> None:
        """Have all that is under way on a majority of disks."""
        for future in self.under_way:
            future.set_result(Sent("jobs.dead", 0, 0))


class Message:
    """A record as FastStream hands it over."""

    def __init__(self, value: bytes) -> None:
        self.raw_message = SimpleNamespace(
            timestamp=0, topic="jobs.control", partition=3, offset=7, key=b"k", value=value, headers=[("a", b"b")]
        )
        self.acknowledged = False

    async def ack(self) -> None:
        """Commit the position."""
        self.acknowledged = True


def controlled(kafka: Kafka) -> tuple[Message, Coroutine[Any, Any, None]]:
    """A control record that cannot be read, and what is done with it."""
    nothing = cast("Any", None)
    letters = DeadLetters(Settings(), cast("Sending", kafka))
    controller = Controller(
        Inlet(nothing, nothing, letters, nothing), nothing, dispatcher=nothing, halting=nothing, sealed=nothing
    )
    message = Message(b"cancel, please")
    return message, KafkaIn(Settings(), controller.handle)._handle(cast("Any", message))


def test_a_control_record_that_cannot_be_read_is_acknowledged_only_after_it_is_kept_also_when_the_first_send_fails() -> (
    None
):
    loop, kafka = VirtualLoop(), Kafka(failing=2)
    asyncio.set_event_loop(loop)
    try:
        message, handling = controlled(kafka)
        task = loop.create_task(handling)
        loop.pass_time(60)
        assert (len(kafka.records), message.acknowledged, task.done()) == (3, False, False)
        kafka.acknowledge()
        loop.settle()
        assert message.acknowledged
        assert task.done()
    finally:
        asyncio.set_event_loop(None)
        loop.end()
    assert {(record.topic, record.key, record.value) for record in kafka.records} == {
        ("jobs.dead", b"k", b"cancel, please")
    }
    headers = dict(kafka.records[0].headers)
    assert (headers["a"], headers["aibroker-reason"]) == (b"b", b"undecodable")
    assert (headers["aibroker-topic"], headers["aibroker-offset"]) == (b"jobs.control", b"7")


def test_of_many_only_what_was_not_acknowledged_is_sent_again_and_the_log_names_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def life() -> list[bytes | None]:
        kafka = Kafka(failing=1)
        letters = DeadLetters(Settings(), cast("Sending", kafka))
        places = [Place("", "jobs.normal", 0, offset, datetime.now(UTC)) for offset in (7, 8)]
        records = [Record(*of) for of in zip(places, (None, None), (b"first", b"second"), ((), ()), strict=True)]
        burials = [await letters.bury(record, UNREADABLE) for record in records]
        task = asyncio.create_task(letters.kept(burials))
        async with asyncio.timeout(60):
            await kafka.put_thrice.wait()
        kafka.acknowledge()
        await task
        return [record.value for record in kafka.records]

    assert run(life()) == [b"first", b"second", b"first"]
    fields = [cast("Any", record).event_fields for record in caplog.records if "unack" in record.getMessage()]
    assert [(each["topic"], each["partition"], each["offset"]) for each in fields] == [("jobs.normal", 0, 7)]
