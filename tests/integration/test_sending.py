"""Sending on a real Kafka that refuses, and on one that is away."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker import kafka, topics
from broker.errors import ClientClosed, JobRefused, KafkaMissing
from broker.lanes import Record
from broker.local.processes import until
from broker.local.stack import Stack
from broker.sending import Sending
from broker.settings import Settings

WAIT_S = 60


@pytest.fixture
async def settings(stack: Stack, prefix: str) -> Settings:
    made = Settings(kafka=stack.addresses.kafka, prefix=prefix)
    await topics.ensure(made)
    return made


async def test_a_producer_whose_sequence_broke_is_replaced(settings: Settings) -> None:
    topic = settings.topic("usage")
    async with asyncio.timeout(WAIT_S), Sending(settings) as sending:
        await (await sending.put(Record(topic, b"1", partition=1)))
        first = sending._line._producer
        first._txn_manager._sequence_numbers[kafka.TopicPartition(topic, 1)] = 500
        with pytest.raises(KafkaMissing, match="OutOfOrderSequenceNumber"):
            await (await sending.put(Record(topic, b"2", partition=1)))
        sent = await (await sending.put(Record(topic, b"3", partition=1)))
        assert sending._line._producer is not first
    assert sent.offset == 1


async def test_a_record_that_its_topic_does_not_take_is_refused_and_the_next_is_sent(settings: Settings) -> None:
    async with asyncio.timeout(WAIT_S), Sending(settings) as sending:
        with pytest.raises(JobRefused, match="larger than its topic allows") as caught:
            await (await sending.put(Record(settings.topic("usage"), b"x" * 3_000_000, partition=0)))
        assert caught.value.code == "too_large"
        sent = await (await sending.put(Record(settings.topic("jobs.dead"), b"x" * 4_500_000)))
        again = await (await sending.put(Record(settings.topic("usage"), b"y", partition=0)))
    assert (sent.offset, again.offset) == (0, 0)


async def test_what_is_sent_while_kafka_is_away_arrives_once_when_it_is_back(stack: Stack, settings: Settings) -> None:
    topic = settings.topic("results")
    async with asyncio.timeout(WAIT_S), Sending(settings) as sending:
        await (await sending.put(Record(topic, b"before", partition=0)))
        async with _away(stack):
            futures = [await sending.put(Record(topic, b"%d" % n, partition=0)) for n in range(1_000)]
            assert not await sending.flush(0.5)
        offsets = [(await future).offset for future in futures]
    assert offsets == list(range(1, 1_001))


async def test_closing_while_kafka_is_away_takes_seconds_and_fails_what_is_left(
    stack: Stack, settings: Settings
) -> None:
    topic = settings.topic("results")
    sending = Sending(settings)
    await sending.start()
    await (await sending.put(Record(topic, b"before")))
    async with _away(stack):
        future = await sending.put(Record(topic, b"lost"))
        begun = time.monotonic()
        await sending.aclose(0.5)
        assert time.monotonic() - begun < 10
    with pytest.raises(ClientClosed):
        await future
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


@asynccontextmanager
async def _away(stack: Stack) -> AsyncIterator[None]:
    """Kafka stands still: each of its threads, which a signal on a busy machine reaches only when one of them has its turn."""
    pid = stack.addresses.pids.kafka
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        assert await until(lambda: _stopped(pid), WAIT_S)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _stopped(pid: int) -> bool:
    """Whether each thread is; its state is what Linux writes after its name in parentheses."""
    try:
        stats = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    except FileNotFoundError:  # one has just ended, so it was not stopped
        return False
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)
