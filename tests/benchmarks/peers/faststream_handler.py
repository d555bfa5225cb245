"""A FastStream handler that calls by `httpx.AsyncClient` and writes each result once; 200 workers."""

import asyncio
import json
from typing import Any

import httpx
from aiokafka import AIOKafkaProducer
from faststream.kafka import KafkaBroker
from measured import arguments, body, measured
from pymongo import AsyncMongoClient

asked = arguments()
kafka = KafkaBroker(asked.kafka, logger=None)
http = httpx.AsyncClient(base_url=asked.url, timeout=120, limits=httpx.Limits(max_connections=200))
results = AsyncMongoClient[dict[str, Any]](asked.mongo, w="majority")["p2_peer"]["results"]
done = 0
ended = asyncio.Event()


@kafka.subscriber(asked.topic, group_id="p2", auto_offset_reset="earliest", max_workers=200)
async def handle(job: dict[str, Any]) -> None:
    """One job."""
    global done  # noqa: PLW0603 a script
    answer = await http.post("/v1/chat/completions", json=job, headers={"authorization": "Bearer key"})
    await results.insert_one({"answer": answer.raise_for_status().json()})
    done += 1
    if done == asked.jobs:
        ended.set()


async def main() -> None:
    """Put the jobs into the topic, and serve them."""
    async with AIOKafkaProducer(bootstrap_servers=asked.kafka, linger_ms=5) as producer:
        for number in range(asked.jobs):
            await producer.send(asked.topic, json.dumps(body(number)).encode())

    async def serve() -> None:
        await kafka.start()
        await ended.wait()
        await kafka.stop()

    await measured(serve, asked.jobs, "faststream", "httpx", "pymongo")


asyncio.run(main())
