"""A deployment of one test on the shared servers: its settings, its workers, and what lies in its topics and collections."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import orjson
import pymongo
from aiokafka import AIOKafkaProducer

from broker import topics
from broker.local.processes import Child
from broker.local.stack import Stack
from broker.settings import Settings, load
from tests.faults.reading import Services, read_calls, read_stats


def new_prefix() -> str:
    """What keeps topics, groups and a database apart from all others'."""
    return f"t{uuid.uuid4().hex[:10]}"


@dataclass(frozen=True)
class Deployment:
    """Everything a test needs to know of its deployment."""

    stack: Stack
    services: Services
    environment: Mapping[str, str]
    settings: Settings
    mongo: pymongo.MongoClient[dict[str, Any]]

    async def workers(self, count: int = 1, **extra: str) -> list[Child]:
        """Start workers, with more variables in their environment."""
        return await self.stack.start_workers(count, {**self.environment, **extra})

    async def send(self, jobs: Sequence[Mapping[str, Any] | bytes], priority: str = "normal") -> None:
        """Send records as a foreign producer does: bytes, no headers."""
        producer = AIOKafkaProducer(bootstrap_servers=self.services.kafka, acks="all")
        await producer.start()
        try:
            topic = self.services.topic(f"jobs.{priority}")
            for job in jobs:
                await producer.send(topic, job if isinstance(job, bytes) else orjson.dumps(job))
            await producer.flush()
        finally:
            await producer.stop()

    def documents(self, query: Mapping[str, Any], collection: str = "jobs") -> list[dict[str, Any]]:
        """Find documents."""
        return list(self.mongo[self.services.database][collection].find(dict(query)))

    def count(self, query: Mapping[str, Any], collection: str = "jobs") -> int:
        """Count documents."""
        return self.mongo[self.services.database][collection].count_documents(dict(query))

    async def until(self, condition: Callable[[], bool | Awaitable[bool]], within_s: float = 30) -> None:
        """Wait for a condition that nothing announces; fail where it does not come."""
        give_up = time.monotonic() + within_s
        while time.monotonic() < give_up:
            holds = condition()
            if holds if isinstance(holds, bool) else await holds:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"not within {within_s} s")

    async def until_count(
        self, wanted: int, query: Mapping[str, Any], within_s: float = 30, *, collection: str = "jobs"
    ) -> None:
        """Wait until so many documents are as the query says."""
        await self.until(lambda: self.count(query, collection) == wanted, within_s)

    def calls(self) -> list[dict[str, Any]]:
        """The simulator's log of this test's calls."""
        return read_calls(self.services)

    async def behave(self, behaviour: Mapping[str, Any]) -> None:
        """Have the simulator behave otherwise from now on."""
        await _behave(self.services.simulator, behaviour)

    async def stop(self, *workers: Child) -> None:
        """Stop workers as an operator does; each has to end well."""
        await asyncio.gather(*(self.stack.stop_worker(worker) for worker in workers))
        ended = {
            worker.name: (worker.exit_code, worker.output()[-2_000:]) for worker in workers if worker.exit_code != 0
        }
        assert not ended, ended


@asynccontextmanager
async def deployed(stack: Stack, prefix: str, behaviour: Mapping[str, Any] | None = None) -> AsyncIterator[Deployment]:
    """A deployment with topics of its own; whatever workers are left at the end are killed, and the simulator is as before."""
    assert stack.simulator is not None
    services = Services(stack.kafka_url, stack.mongo_url, prefix, prefix, stack.simulator.url)
    services = replace(services, first_call=read_stats(services)["calls"])
    environment = {
        "AIBROKER_KAFKA": services.kafka,
        "AIBROKER_MONGO": services.mongo,
        "AIBROKER_PREFIX": prefix,
        "AIBROKER_PROVIDERS_SIM_BASE_URL": f"{services.simulator}/v1",
        "AIBROKER_PROVIDERS_SIM_API_KEY": "key",
    }
    settings = load(environment)
    await topics.ensure(settings)
    await _behave(services.simulator, behaviour or {})
    before = set(stack.workers)
    try:
        with pymongo.MongoClient[dict[str, Any]](services.mongo) as client:  # connecting costs more than asking
            yield Deployment(stack, services, environment, settings, client)
    finally:
        for worker in stack.workers:
            if worker not in before:
                await stack.kill_worker(worker)
        await _behave(services.simulator, {})


async def _behave(simulator: str, behaviour: Mapping[str, Any]) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.put(f"{simulator}/sim/behaviour", json=dict(behaviour))
    assert answer.status_code == 200, answer.text


def chat(job_id: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 any field of a job
    """A small chat job."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"say {job_id}"}]}
    return {"id": job_id, "body": body, **fields}
