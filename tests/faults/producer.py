"""A foreign producer: plain bytes with a plain Kafka client, and what it was told was acknowledged."""

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer

from tests.faults.history import Place
from tests.faults.reading import Services
from tests.faults.workload import Sending

BATCH_BYTES = 900_000
"""What a partition has room for while the broker is away."""


async def send(services: Services, sendings: Sequence[Sending], over_s: float) -> list[Place]:
    """Send all of them, spread over so many seconds; returns the places of those that were acknowledged (all, or it raises)."""
    producer = AIOKafkaProducer(
        bootstrap_servers=services.kafka,
        acks="all",
        enable_idempotence=True,
        linger_ms=5,
        max_batch_size=BATCH_BYTES,
    )
    await producer.start()
    try:
        loop = asyncio.get_running_loop()
        began, futures = loop.time(), []
        for number, sending in enumerate(sendings):
            if (ahead := began + over_s * number / len(sendings) - loop.time()) > 0:
                await asyncio.sleep(ahead)  # the pace of arrival is part of the run
            futures.append(
                await producer.send(
                    services.topic(sending.topic), sending.value, key=sending.key, headers=list(sending.headers)
                )
            )
        kept = await asyncio.gather(*futures)
    finally:
        await producer.stop()
    places = [(sent.topic, record.partition, record.offset) for sent, record in zip(sendings, kept, strict=True)]
    return [(str(topic), int(partition), int(offset)) for topic, partition, offset in places]
