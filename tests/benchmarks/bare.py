"""The bare path of P3: a record in, two majority writes, a record out, each at once; nobody should run this either."""

import argparse
import asyncio
import sys
from typing import Any

import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from pymongo import AsyncMongoClient


async def serve(arguments: argparse.Namespace) -> None:
    """Serve for ever."""
    consumer = AIOKafkaConsumer(
        arguments.jobs, bootstrap_servers=arguments.kafka, group_id=arguments.jobs, auto_offset_reset="earliest"
    )
    producer = AIOKafkaProducer(bootstrap_servers=arguments.kafka, acks="all", enable_idempotence=True)
    mongo: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(arguments.mongo, w="majority")
    jobs = mongo[arguments.database]["bare"]
    await producer.start()
    await consumer.start()

    async def one(value: bytes) -> None:
        job = orjson.loads(value)
        await jobs.insert_one({"_id": job["id"], "payload": value, "state": "claimed"})
        result = {"job_id": job["id"], "status": "succeeded"}
        await jobs.update_one(
            {"_id": job["id"], "state": "claimed"}, {"$set": {"state": "succeeded", "result": result}}
        )
        await producer.send_and_wait(arguments.results, orjson.dumps(result), key=f"default/{job['id']}".encode())

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    async with asyncio.TaskGroup() as group:
        async for record in consumer:
            group.create_task(one(record.value))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("kafka", "mongo", "database", "jobs", "results"):
        parser.add_argument(f"--{name}", required=True)
    uvloop.run(serve(parser.parse_args()))
