"""Everything that a deployment on one machine needs, started together and stopped together."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from broker.local import folder as data_folder
from broker.local import readiness
from broker.local.errors import LocalError
from broker.local.folder import Addresses, Pids
from broker.local.kafka import HEAP_MB, Kafka
from broker.local.mongod import Mongod
from broker.local.processes import Child, Children
from broker.local.provider import Simulator

_WORKER_START_S = 120
_READY = '"worker.ready"'

Server = Kafka | Mongod | Simulator


@dataclass(frozen=True)
class Plan:
    """What a stack consists of. Ports of 0 mean any free one."""

    data: Path
    environment: Mapping[str, str]
    """The environment of all children: ours, given by whoever may read it."""
    kafka: str | None = None
    """The address of a Kafka to use; None starts one."""
    mongo: str | None = None
    """The URL of a MongoDB to use; None starts one."""
    database: str = "aibroker"
    simulator: bool = True
    kafka_port: int = 0
    mongo_port: int = 0
    simulator_port: int = 0
    simulator_arguments: tuple[str, ...] = ()
    """Added to its command line, e.g. `--behaviour FILE`."""
    kafka_heap_mb: int = HEAP_MB
    kafka_proxy_port: int | None = None
    """The port of a proxy that leads to Kafka's second listener, for tests that break the line; None: there is but one listener."""
    worker_command: tuple[str, ...] = (sys.executable, "-m", "workers")
    worker_grace_s: float = 35.0


class Stack:
    """The servers and workers of one data folder; `async with` starts the servers and stops everything.

    Leaving the block stops workers, then the simulator, then Kafka and mongod. If our process is killed, all are killed too.
    """

    def __init__(self, plan: Plan, progress: Callable[[str], None] = lambda _: None) -> None:
        """`progress` is called with a short sentence when something takes its time."""
        self._plan = plan
        self._progress = progress
        self._exit = AsyncExitStack()
        self._children: Children | None = None
        self._made_workers = 0
        self._workers: list[Child] = []
        self.kafka: Kafka | None = None
        self.mongod: Mongod | None = None
        self.simulator: Simulator | None = None

    async def __aenter__(self) -> Self:
        """Start all servers side by side and wait until each can do its work.

        Raises:
            LocalError: one of them cannot; nothing of ours runs then.
        """
        async with AsyncExitStack() as begun:
            data = self.folder
            lock = await begun.enter_async_context(data_folder.locked(data))
            data_folder.check_space(data)
            data_folder.remove(data)
            self._children = begun.enter_context(Children(data / "logs", held=(lock,)))
            self._make_servers(data, self._children)
            begun.push_async_callback(self._stop)
            await self._start_servers()
            self._write()
            self._exit = begun.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exit.aclose()

    @property
    def folder(self) -> Path:
        """The data folder, where `stack.json` and `logs/` are."""
        return self._plan.data.absolute()

    @property
    def kafka_url(self) -> str:
        """Kafka's bootstrap servers."""
        return self._plan.kafka or (self.kafka.url if self.kafka else "")

    @property
    def mongo_url(self) -> str:
        """MongoDB's connection string."""
        return self._plan.mongo or (self.mongod.url if self.mongod else "")

    @property
    def addresses(self) -> Addresses:
        """What `stack.json` holds now."""
        return Addresses(
            kafka=self.kafka_url,
            mongo=self.mongo_url,
            database=self._plan.database,
            simulator=self.simulator.url if self.simulator else None,
            pids=Pids(
                kafka=_pid(self.kafka),
                mongod=_pid(self.mongod),
                simulator=_pid(self.simulator),
                workers=[worker.pid for worker in self._workers],
            ),
        )

    @property
    def workers(self) -> tuple[Child, ...]:
        """The workers that were started and not stopped, in the order of their start."""
        return tuple(self._workers)

    async def start_workers(self, count: int, environment: Mapping[str, str]) -> list[Child]:
        """Start `count` workers side by side and return when all are ready.

        `environment` goes on top of the plan's; it holds at least AIBROKER_KAFKA and AIBROKER_MONGO.

        Raises:
            LocalError: one of them ended first, or was not ready within two minutes; those of this call are stopped again.
        """
        children = self._children
        if children is None:
            raise LocalError("the stack does not run: start workers inside `async with Stack(...)`")
        started = [self._start_worker(children, {**self._plan.environment, **environment}) for _ in range(count)]
        self._write()
        try:
            await _side_by_side(worker.ready(_says_ready(worker), _WORKER_START_S) for worker in started)
        except BaseException:
            for worker in started:
                worker.kill()
            self._forget(*started)
            raise
        return started

    async def stop_worker(self, worker: Child) -> None:
        """Ask a worker to finish what it does, for as long as the plan's grace; kill it if it does not."""
        await worker.stop(self._plan.worker_grace_s)
        self._forget(worker)

    async def kill_worker(self, worker: Child) -> None:
        """Kill a worker as a crash would, and wait until it is gone."""
        worker.kill()
        await worker.ended(10)
        self._forget(worker)

    async def restart(self, server: Server) -> None:
        """Start a server again on its port and data; one that still runs is stopped first."""
        await server.stop()
        await server.start(self._progress)
        self._write()

    def _make_servers(self, data: Path, children: Children) -> None:
        plan = self._plan
        if plan.kafka is None:
            self.kafka = Kafka(
                data / "kafka",
                children,
                environment=plan.environment,
                port=plan.kafka_port,
                heap_mb=plan.kafka_heap_mb,
                proxy_port=plan.kafka_proxy_port,
            )
        if plan.mongo is None:
            self.mongod = Mongod(data / "mongo", children, environment=plan.environment, port=plan.mongo_port)
        if plan.simulator:
            self.simulator = Simulator(
                children,
                environment=plan.environment,
                port=plan.simulator_port,
                arguments=("--calls", str(data / "calls.jsonl"), *plan.simulator_arguments),
            )

    async def _start_servers(self) -> None:
        own = [server.start(self._progress) for server in (self.kafka, self.mongod, self.simulator) if server]
        given = []
        if self._plan.kafka is not None:
            given.append(readiness.check_kafka(self._plan.kafka))
        if self._plan.mongo is not None:
            given.append(readiness.check_mongo(self._plan.mongo))
        await _side_by_side([*own, *given])

    async def _stop(self) -> None:
        """Stop in the order in which one needs the other; the data folder is free afterwards."""
        async with asyncio.TaskGroup() as group:
            for worker in self._workers:
                group.create_task(worker.stop(self._plan.worker_grace_s))
        for server in (self.simulator, self.kafka, self.mongod):
            if server:
                await server.stop()
        data_folder.remove(self.folder)

    def _start_worker(self, children: Children, environment: Mapping[str, str]) -> Child:
        self._made_workers += 1
        worker = children.start(f"worker-{self._made_workers}", self._plan.worker_command, environment)
        self._workers.append(worker)
        return worker

    def _forget(self, *workers: Child) -> None:
        self._workers = [worker for worker in self._workers if worker not in workers]
        self._write()

    def _write(self) -> None:
        data_folder.write(self.folder, self.addresses)


def _pid(server: Server | None) -> int | None:
    return server.child.pid if server and server.child else None


def _says_ready(worker: Child) -> Callable[[], Awaitable[bool]]:
    async def ready() -> bool:
        return any(_READY in line for line in worker.output().splitlines())

    return ready


async def _side_by_side(starts: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all at once; the first that fails stops the others, and its error is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for start in starts:
                group.create_task(start)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
