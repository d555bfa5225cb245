"""A worker's life: starts its parts in order, runs them until it is told to end, and takes them down in order."""

import asyncio
import gc
import os
import platform
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from broker.errors import MongoMissing
from broker.events import Events
from broker.settings import Settings
from workers.engine.activity import Activity
from workers.engine.batches import Batches
from workers.engine.control import Controller
from workers.engine.dispatcher import Dispatcher
from workers.engine.finisher import Finisher
from workers.engine.halts import Halting
from workers.engine.health import Health, Phase
from workers.engine.health_server import serving
from workers.engine.kafka_in import KafkaIn
from workers.engine.leases import Leases
from workers.engine.loop_lag import LoopLag
from workers.engine.pressure import Pressure
from workers.engine.publisher import Publisher
from workers.engine.reader import Reader
from workers.engine.taker import Taker
from workers.engine.watchdog import Watchdog
from workers.quota.alerting import Alerting
from workers.quota.ruling import Ruling
from workers.quota.tender import Tender
from workers.stores.mongo import MongoStore
from workers.stores.protocol import StoreUnknownError

FLUSH_S = 10.0


@dataclass(slots=True)
class Parts:
    """Everything that runs, and what has to be given back."""

    settings: Settings
    store: MongoStore
    kafka_in: KafkaIn
    readers: list[Reader]
    taker: Taker
    dispatcher: Dispatcher
    finisher: Finisher
    publisher: Publisher
    leases: Leases
    controller: Controller
    halting: Halting
    batches: Batches
    tender: Tender
    ruling: Ruling
    alerting: Alerting
    pressure: Pressure
    lag: LoopLag
    activity: Activity
    phase: Phase = Phase.STARTING
    since: float = 0.0

    def enter(self, phase: Phase) -> None:
        """Begin a part of this worker's life."""
        self.phase, self.since = phase, time.monotonic()

    def ticks(self) -> Mapping[str, float]:
        """When each loop ticked last, or was first expected to: some begin when the groups are joined, and end before the last calls do."""
        loops: dict[str, Any] = {"publisher": self.publisher, "leases": self.leases, "quota": self.tender}
        if self.phase is Phase.WORKING:
            loops |= {"taker": self.taker, "dispatcher": self.dispatcher}
            loops |= {"control": self.controller, "halts": self.halting, "batches": self.batches}
        return {name: max(loop.ticked_at, self.since) for name, loop in loops.items()}


@dataclass(slots=True, frozen=True)
class _Work:
    """The tasks that end before the others, and what cuts them short."""

    reading: list["asyncio.Task[None]"]
    taking: list["asyncio.Task[None]"]
    controlling: list["asyncio.Task[None]"]
    dispatching: "asyncio.Task[None]"
    hurried: "asyncio.Task[bool]"


async def run(parts: Parts, events: Events) -> None:
    """Run until SIGTERM or SIGINT, or until somebody asks for a drain.

    Raises:
        MongoMissing: The lease could not be taken.
        FencedError: Another worker declared this one dead.
    """
    settings, watchdog = parts.settings, Watchdog(parts.settings.worker.watchdog_s, parts.lag, parts.ticks)
    with _signals() as hurry, serving(settings.health, _health(parts, watchdog)) as address:
        await _take_lease(parts, address)
        async with asyncio.TaskGroup() as group:
            drained, hurried = (group.create_task(event.wait()) for event in (parts.leases.drain_asked, hurry))
            background = (parts.finisher, parts.publisher, parts.tender, parts.ruling, parts.alerting, watchdog)
            lasting = [group.create_task(part.run()) for part in background]
            lasting.append(group.create_task(parts.leases.run(parts.activity.told)))
            await parts.kafka_in.start()
            await parts.halting.begin()
            taking = [group.create_task(part.run()) for part in (parts.taker, parts.pressure)]
            watching = (parts.controller, parts.halting, parts.batches)
            controlling = [group.create_task(part.run()) for part in watching]
            reading = [group.create_task(reader.run(parts.kafka_in.attach(reader))) for reader in parts.readers]
            dispatching = group.create_task(parts.dispatcher.run())
            _tune_collector()
            parts.enter(Phase.WORKING)
            events.info("worker.ready", incarnation=parts.store.owner, slots=settings.worker.slots, health=address)
            await asyncio.wait([drained, hurried], return_when=asyncio.FIRST_COMPLETED)
            parts.enter(Phase.STOPPING if hurried.done() else Phase.DRAINING)
            events.info("worker.stopping", running=len(parts.dispatcher), phase=parts.phase)
            await _stop(parts, _Work(reading, taking, controlling, dispatching, hurried))
            for task in (*lasting, drained, hurried):
                task.cancel()
        await _within(FLUSH_S, parts.store.stop())
    events.info("worker.stopped")


def _health(parts: Parts, watchdog: Watchdog) -> Health:
    return Health(
        parts.settings,
        parts.store.owner,
        leases=parts.leases,
        readers=parts.readers,
        lag=parts.lag,
        stuck=watchdog.stuck,
        phase=lambda: parts.phase,
    )


async def _take_lease(parts: Parts, health: str | None) -> None:
    facts = {"host": platform.node(), "pid": os.getpid(), "version": version("aibroker"), "health": health}
    try:
        await parts.leases.start(facts)
    except StoreUnknownError as error:
        raise MongoMissing(
            f"MongoDB did not take this worker's lease in time ({error}): start the worker again"
        ) from None


async def _stop(parts: Parts, work: _Work) -> None:
    """Stop reading and taking, hand back what has not begun, wait for the last calls, flush, leave."""
    for reader in parts.readers:
        reader.stop()
    for task in work.taking:
        task.cancel()
    await asyncio.wait(work.reading, timeout=FLUSH_S)
    parts.dispatcher.hand_back()
    parts.dispatcher.stop()
    # Others are to read our partitions while our last calls last.
    await asyncio.gather(parts.kafka_in.stop(), _last_calls(parts, work))
    for task in (*work.reading, *work.controlling, work.dispatching):
        task.cancel()  # what still hangs on a database that is away is taken over by others
    parts.dispatcher.hand_back()  # what the audit has taken up since
    await _within(FLUSH_S, parts.finisher.flush())
    await _within(FLUSH_S, parts.publisher.flush())
    await _within(FLUSH_S, parts.tender.stop())
    await _within(FLUSH_S, parts.alerting.tell())


async def _last_calls(parts: Parts, work: _Work) -> None:
    """Wait for what runs: in a drain until it has ended, after a signal up to the grace; then tell the rest to stop."""
    await asyncio.wait([work.dispatching, work.hurried], return_when=asyncio.FIRST_COMPLETED)
    _, late = await asyncio.wait([work.dispatching], timeout=parts.settings.worker.grace_s)
    if late:
        parts.dispatcher.stop_jobs()
        await asyncio.wait(late, timeout=FLUSH_S)


async def _within(seconds: float, work: Any) -> None:  # noqa: ANN401 any coroutine
    try:
        async with asyncio.timeout(seconds):
            await work
    except (TimeoutError, StoreUnknownError) as error:
        Events("worker").warning("worker.not_flushed", reason=repr(error), seconds=seconds)


@contextmanager
def _signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM or SIGINT sets; the second signal ends the process at once."""
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()

    def stop(number: signal.Signals) -> None:
        if stopping.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    try:
        yield stopping
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _tune_collector() -> None:
    """A full collection stops the loop for 60 to 260 ms: what is here now lives for ever, and young objects are looked at less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
