"""Each bad record ends where the list says, and none of them is in the way of a good one."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaProducer

from broker import topics
from broker.local.stack import Stack
from broker.settings import Settings
from tests.data.bad_records import ALL, NOT_JOBS, BadRecord, written
from tests.faults.checker import check
from tests.faults.history import History, Place, Record
from tests.faults.reading import Services, read_history, read_stats
from tests.faults.waiting import until_ended

GOOD = 1_000
PRIORITIES = ("interactive", "normal", "batch")
TOLD = {"reason", "message", "topic", "partition", "offset", "at"}
End = tuple[str, str | None, str | None]
"""Place, status, code."""


@pytest.fixture
def services(stack: Stack, prefix: str) -> Services:
    assert stack.simulator is not None
    services = Services(stack.kafka_url, stack.mongo_url, prefix, prefix, stack.simulator.url)
    return replace(services, first_call=read_stats(services)["calls"])


async def send_all(services: Services) -> dict[str, Place]:
    """Send bad and good records, mixed; returns the place of each bad one."""
    producer = AIOKafkaProducer(bootstrap_servers=services.kafka, acks="all", max_request_size=4_000_000)
    mixed: list[BadRecord | int] = [*ALL, *range(GOOD)]
    random.Random(5).shuffle(mixed)
    places: dict[str, Place] = {}
    await producer.start()
    try:
        for number, record in enumerate(mixed):
            topic = f"jobs.{PRIORITIES[number % 3]}"
            if isinstance(record, int):
                await producer.send(services.topic(topic), written(id=f"good-{record}"))
                continue
            if record.first is not None:
                await producer.send_and_wait(services.topic(topic), record.first, partition=3)
            sent = await producer.send_and_wait(
                services.topic(topic),
                record.value,
                key=record.name.encode(),
                partition=3 if record.first is not None else None,
                headers=list(record.headers),
            )
            places[record.name] = topic, sent.partition, sent.offset
        await producer.flush()
    finally:
        await producer.stop()
    return places


def results(history: History) -> dict[tuple[str, str], tuple[str, str | None]]:
    """Status and code by (topic, key), of generation 1."""
    told: dict[tuple[str, str], tuple[str, str | None]] = {}
    for event in history.events:
        if event.content["generation"]:
            told[event.topic, (event.key or b"").decode()] = event.content["status"], event.content.get("code")
    return told


def ends(history: History, places: Mapping[str, Place]) -> dict[str, End]:
    """Where each bad record ended."""
    letters = {origin(letter): letter for letter in history.dead}
    told = results(history)
    found: dict[str, End] = {}
    for record in ALL:
        letter = letters.get(places[record.name])
        if letter is not None:
            found[record.name] = "dead", None, letter.header("aibroker-reason")
        else:
            found[record.name] = ("result", *told.get((record.reply, record.key), ("nothing", None)))
    return found


def origin(letter: Record) -> Place:
    topic = (letter.header("aibroker-topic") or "").partition(".")[2]
    return topic, int(letter.header("aibroker-partition") or -1), int(letter.header("aibroker-offset") or -1)


def untouched(history: History, places: Mapping[str, Place]) -> Sequence[str]:
    """Names of the records whose dead letter is not what they were."""
    letters = {origin(letter): letter for letter in history.dead}
    wrong = []
    for record in NOT_JOBS:
        letter = letters[places[record.name]]
        ours = {name.removeprefix("aibroker-") for name, _ in letter.headers if name.startswith("aibroker-")}
        theirs = tuple((name, value) for name, value in letter.headers if not name.startswith("aibroker-"))
        if (letter.key, letter.value, theirs, ours) != (record.name.encode(), record.value, record.headers, TOLD):
            wrong.append(record.name)
    return wrong


async def test_each_bad_record_ends_where_the_list_says_and_all_good_jobs_succeed(
    stack: Stack, services: Services
) -> None:
    await topics.ensure(Settings(kafka=services.kafka, prefix=services.prefix))
    environment = {
        "AIBROKER_KAFKA": services.kafka,
        "AIBROKER_MONGO": services.mongo,
        "AIBROKER_PREFIX": services.prefix,
        "AIBROKER_PROVIDERS_OPENAI_BASE_URL": f"{services.simulator}/v1",
        "AIBROKER_PROVIDERS_OPENAI_API_KEY": "key",
    }
    [worker] = await stack.start_workers(1, environment)
    try:
        places = await send_all(services)
        assert await until_ended(services, 60)
    finally:
        await stack.stop_worker(worker)
    history = await read_history(services)

    assert worker.exit_code == 0
    assert ends(history, places) == {
        record.name: (record.end, None if record.end == "dead" else record.status, record.code) for record in ALL
    }
    assert not untouched(history, places)
    assert len(history.dead) == len(NOT_JOBS)
    good = [status for (_, key), (status, _) in results(history).items() if key.startswith("default/good-")]
    assert Counter(good) == {"succeeded": GOOD}
    refused = [event for event in history.events if event.content["generation"] == 0]
    assert [event.content["code"] for event in refused] == ["id_conflict"]
    assert not [problem for problems in check(history).values() for problem in problems]
