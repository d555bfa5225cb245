"""Which topics exist is asked of Kafka seldom, by one for all, and an outage refuses nobody."""

import asyncio
from collections.abc import Mapping

import pytest

from broker.errors import KafkaMissing
from tests.virtual_time import run
from workers.engine.topics import MAX_AGE_S, REFRESH_S, Topics


class _Kafka:
    """Answers after a second; away while `away`."""

    def __init__(self, **counts: int) -> None:
        self.counts = counts
        self.asked = 0
        self.away = False

    async def fetch(self) -> Mapping[str, int]:
        self.asked += 1
        await asyncio.sleep(1)
        if self.away:
            raise KafkaMissing("Kafka does not answer")
        return dict(self.counts)


def topics(kafka: _Kafka) -> Topics:
    return Topics(kafka.fetch, clock=asyncio.get_running_loop().time)


@pytest.mark.parametrize(
    ("topic", "partition", "known"),
    [
        ("results", None, True),
        ("results", 0, True),
        ("results", 7, True),
        ("results", 8, False),
        ("results.nobody", None, False),
        ("results.nobody", 0, False),
    ],
)
def test_a_place_is_known_where_kafka_has_it(topic: str, partition: int | None, known: bool) -> None:
    async def ask() -> bool:
        return await topics(_Kafka(results=8)).knows(topic, partition)

    assert run(ask()) is known


def test_what_is_known_is_not_asked_again_for_a_minute() -> None:
    async def life() -> None:
        kafka = _Kafka(results=8)
        known = topics(kafka)
        for _ in range(50):
            assert await known.knows("results", 3)
            await asyncio.sleep(1)
        assert kafka.asked == 1
        await asyncio.sleep(MAX_AGE_S)
        assert await known.knows("results", 3)
        assert kafka.asked == 2

    run(life())


def test_a_topic_that_was_just_made_is_found() -> None:
    async def life() -> None:
        kafka = _Kafka(results=8)
        known = topics(kafka)
        assert not await known.knows("results.new", None)
        kafka.counts["results.new"] = 1
        await asyncio.sleep(REFRESH_S + 0.1)
        assert await known.knows("results.new", None)

    run(life())


def test_unknown_names_make_us_ask_seldom() -> None:
    async def life() -> None:
        kafka = _Kafka(results=8)
        known = topics(kafka)
        loop = asyncio.get_running_loop()
        while loop.time() < 30:
            assert not await known.knows("results.nobody", None)
            await asyncio.sleep(0.01)
        assert kafka.asked <= 30 / REFRESH_S

    run(life())


def test_one_asks_for_all() -> None:
    async def life() -> None:
        kafka = _Kafka(results=8)
        known = topics(kafka)
        assert all(await asyncio.gather(*(known.knows("results", None) for _ in range(1_000))))
        assert kafka.asked == 1

    run(life())


def test_what_was_known_stays_known_while_kafka_is_away() -> None:
    async def life() -> None:
        kafka = _Kafka(results=8)
        known = topics(kafka)
        assert await known.knows("results", 7)
        kafka.away = True
        for _ in range(10):
            await asyncio.sleep(MAX_AGE_S)
            assert await known.knows("results", 7)

    run(life())


def test_only_one_waits_for_a_new_answer_about_what_was_known() -> None:
    async def life() -> None:
        kafka = _Kafka(results=8)
        known = topics(kafka)
        loop = asyncio.get_running_loop()
        assert await known.knows("results", 7)
        await asyncio.sleep(MAX_AGE_S + 1)
        began = loop.time()
        first = asyncio.create_task(known.knows("results", 7))
        await asyncio.sleep(0)
        assert await known.knows("results", 7)
        assert loop.time() == began
        assert await first

    run(life())


def test_who_asks_for_something_unknown_waits_until_kafka_is_back() -> None:
    async def life() -> None:
        kafka = _Kafka(results=8)
        kafka.away = True
        known = topics(kafka)
        asking = asyncio.create_task(known.knows("results", 7))
        refused = asyncio.create_task(known.knows("results.nobody", None))
        await asyncio.sleep(500)
        assert not asking.done()
        assert not refused.done()
        kafka.away = False
        assert await asking
        assert not await refused

    run(life())
