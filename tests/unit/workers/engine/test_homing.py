"""Messages about the same lie in one partition, whichever client sent them; one that is moved is lost by no failure of Kafka."""

import asyncio
from datetime import UTC, datetime
from typing import cast

import pytest

from broker.codec import Place
from broker.errors import AibrokerError, JobRefused, KafkaMissing
from broker.kafka import murmur2
from broker.lanes import Record as Outgoing
from broker.lanes import Sent, home
from broker.sending import Sending
from broker.settings import Settings
from schemas.codes import Code
from tests.virtual_time import run
from workers.engine.homing import Homing
from workers.engine.record import Record
from workers.engine.topics import Topics

PARTITIONS = 8
HOME = home(murmur2(b"acme"), PARTITIONS)


class Kafka:
    """Stands where the sending task stands: the first sends fail."""

    def __init__(self, failing: int = 0, error: AibrokerError | None = None) -> None:
        self.failing, self.error = failing, error or KafkaMissing("planted")
        self.records: list[Outgoing] = []

    async def put(self, record: Outgoing) -> "asyncio.Future[Sent]":
        """Take a record."""
        self.records.append(record)
        future: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
        if len(self.records) <= self.failing:
            future.set_exception(self.error)
        else:
            future.set_result(Sent("jobs.control", HOME, 0))
        return future


def moved(kafka: Kafka, partition: int, partitions: int = PARTITIONS) -> bool:
    async def topics() -> dict[str, int]:
        return {"jobs.control": partitions}

    async def life() -> bool:
        homing = Homing(Settings(), cast("Sending", kafka), Topics(topics))
        place = Place("", "jobs.control", partition, 7, datetime.now(UTC))
        return await homing.moved(Record(place, None, b"pause", [("ce_type", b"aibroker.control.v1")]), "acme")

    return run(life())


def test_a_message_in_the_partition_of_its_key_stays_there() -> None:
    kafka = Kafka()
    assert not moved(kafka, HOME)
    assert not moved(kafka, 0, partitions=1)
    assert not kafka.records


@pytest.mark.parametrize("failing", [0, 2])
def test_any_other_is_sent_there_as_it_is_until_kafka_has_it(failing: int) -> None:
    kafka = Kafka(failing)
    assert moved(kafka, (HOME + 1) % PARTITIONS)
    assert kafka.records == [
        Outgoing("jobs.control", b"pause", b"acme", [("ce_type", b"aibroker.control.v1")], HOME)
    ] * (failing + 1)


def test_what_kafka_will_not_take_again_is_heeded_where_it_lies() -> None:
    kafka = Kafka(failing=9, error=JobRefused(Code.TOO_LARGE, "planted"))
    assert not moved(kafka, (HOME + 1) % PARTITIONS)
    assert len(kafka.records) == 1
