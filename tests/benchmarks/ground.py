"""What every benchmark stands on: its options, its entry of the table, a deployment with settings, records, and what a process has used."""

import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pymongo
from aiokafka import AIOKafkaProducer

from broker.local.processes import Child
from broker.local.stack import Stack
from tests.faults.reading import Services
from tests.integration.deployment import Deployment, deployed


@dataclass(frozen=True)
class Options:
    """How a run measures."""

    folder: Path
    """Where it may leave files until the run ends."""
    cache: Path
    """Where it may leave what the next run can use again."""
    floor: Path
    """The yardstick's script."""
    scale: float = 1.0
    """The share of the usual sizes; a figure with another than 1 says nothing about a target."""
    rounds: int | None = None
    """How often things are measured in turn, where it is not as usual."""

    def sized(self, usual: int) -> int:
        """A size at this run's scale, 1 at least."""
        return max(int(usual * self.scale), 1)


class Figure(NamedTuple):
    """One figure of a target: `comparison` is "<=" or ">="."""

    value: float
    comparison: str
    target: float

    @property
    def holds(self) -> bool:
        """Whether the target is reached."""
        return self.value <= self.target if self.comparison == "<=" else self.value >= self.target


@dataclass(frozen=True)
class Entry:
    """What the table says of one target: its figures by name ("" where there is but one), and under which conditions they were taken."""

    figures: Mapping[str, Figure]
    conditions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether every figure reaches its target."""
        return all(figure.holds for figure in self.figures.values())

    def document(self) -> dict[str, Any]:
        """What `bench.json` holds: `value` and `target` are mappings where there are several figures."""
        values = {name: round(figure.value, 4) for name, figure in self.figures.items()}
        targets = {name: f"{figure.comparison} {figure.target:g}" for name, figure in self.figures.items()}
        return {
            "value": values.get("", values),
            "target": targets.get("", targets),
            "holds": self.holds,
            "conditions": dict(self.conditions),
        }


@asynccontextmanager
async def fresh(
    stack: Stack, options: Options, settings: str = "", behaviour: Mapping[str, Any] | None = None
) -> AsyncIterator[Deployment]:
    """A deployment of its own, whose workers read `settings` (YAML); its database is dropped at the end."""
    prefix = f"b{uuid.uuid4().hex[:10]}"
    file = options.folder / f"{prefix}.yaml"
    file.write_text(settings)
    async with deployed(stack, prefix, behaviour) as deployment:
        environment = {**deployment.environment, "AIBROKER_SETTINGS": str(file)}
        try:
            yield replace(deployment, environment=environment)
        finally:
            deployment.mongo.drop_database(deployment.services.database)


class Record(NamedTuple):
    """A record as a foreign producer sends it; the topic is named without prefix."""

    topic: str
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()


async def produce(services: Services, records: Iterable[Record]) -> None:
    """Send records; back when all are acknowledged."""
    producer = AIOKafkaProducer(
        bootstrap_servers=services.kafka, acks="all", linger_ms=5, max_batch_size=262_144, max_request_size=1_048_576
    )
    await producer.start()
    try:
        for record in records:
            await producer.send(services.topic(record.topic), record.value, headers=list(record.headers))
        await producer.flush()
    finally:
        await producer.stop()


def counted(server: "pymongo.MongoClient[dict[str, Any]]") -> Mapping[str, int]:
    """The operations that the server has counted since it began, by kind."""
    counters: Mapping[str, int] = server.admin.command("serverStatus", repl=0, metrics=0, locks=0)["opcounters"]
    return {kind: count for kind, count in counters.items() if kind != "deprecated"}


def cpu_s(child: Child) -> float:
    """Seconds of CPU, user and system, that a whole process has used."""
    times = psutil.Process(child.pid).cpu_times()
    return float(times.user + times.system)


def rss_bytes(child: Child) -> int:
    """The resident memory of a process."""
    return int(psutil.Process(child.pid).memory_info().rss)
