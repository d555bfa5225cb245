"""Sends records at moments that are given, and notes when each was sent and when its result came."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.benchmarks.ground import Record
from tests.faults.reading import Services


async def send_at(services: Services, moments: Iterable[tuple[float, Record]]) -> list[float]:
    """Send each record so many seconds from now, in their order; return when each was sent, by `time.perf_counter`."""
    producer = AIOKafkaProducer(bootstrap_servers=services.kafka, acks="all")
    await producer.start()
    sent: list[float] = []
    try:
        started = time.perf_counter()
        for moment, record in moments:
            wait_s = started + moment - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            sent.append(time.perf_counter())
            await producer.send(services.topic(record.topic), record.value, headers=list(record.headers))
        await producer.flush()
    finally:
        await producer.stop()
    return sent


@asynccontextmanager
async def arrivals(services: Services, topic: str) -> AsyncIterator[dict[str, float]]:
    """The moment at which each result on a topic came, by its record's key, from now on."""
    consumer = AIOKafkaConsumer(
        services.topic(topic), bootstrap_servers=services.kafka, auto_offset_reset="latest", fetch_max_wait_ms=100
    )
    await consumer.start()
    await consumer.seek_to_end()
    came: dict[str, float] = {}
    reading = asyncio.create_task(_note(consumer, came))
    try:
        yield came
    finally:
        reading.cancel()
        await asyncio.wait({reading})
        await consumer.stop()


async def _note(consumer: AIOKafkaConsumer, came: dict[str, float]) -> None:
    async for record in consumer:
        came.setdefault((record.key or b"").decode(), time.perf_counter())
