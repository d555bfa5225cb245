"""A worker's life: starts its parts in order, runs them until it is told to end, and takes them down in order."""

import asyncio
import gc
import platform
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from broker.errors import MongoMissing
from broker.events import Events
from broker.settings import Settings
from workers.engine.batches import Batches
from workers.engine.control import Controller
from workers.engine.dispatcher import Dispatcher
from workers.engine.finisher import Finisher
from workers.engine.halts import Halting
from workers.engine.kafka_in import KafkaIn
from workers.engine.leases import Leases
from workers.engine.loop_lag import LoopLag
from workers.engine.pressure import Pressure
from workers.engine.publisher import Publisher
from workers.engine.reader import Reader
from workers.engine.taker import Taker
from workers.engine.watchdog import Watchdog
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
    pressure: Pressure
    lag: LoopLag

    def ticks(self, *, working: bool) -> Mapping[str, float]:
        """When each loop ticked last; a worker that is ending takes and starts nothing, however long its calls last."""
        loops: dict[str, Any] = {"publisher": self.publisher, "leases": self.leases, "quota": self.tender}
        if working:
            loops |= {"taker": self.taker, "dispatcher": self.dispatcher}
            loops |= {"control": self.controller, "halts": self.halting, "batches": self.batches}
        return {name: loop.ticked_at for name, loop in loops.items()}


async def run(parts: Parts, events: Events) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        MongoMissing: The lease could not be taken.
        FencedError: Another worker declared this one dead.
    """
    with _signals() as stopping:
        watchdog = Watchdog(
            parts.settings.worker.watchdog_s, parts.lag, lambda: parts.ticks(working=not stopping.is_set())
        )
        await _take_lease(parts)
        await parts.halting.begin()
        async with asyncio.TaskGroup() as group:
            lasting = (
                parts.leases.run(),
                parts.finisher.run(),
                parts.publisher.run(),
                parts.tender.run(),
                watchdog.run(),
            )
            tasks = [group.create_task(work) for work in lasting]
            await parts.kafka_in.start()
            starting = (parts.taker, parts.controller, parts.halting, parts.batches, parts.pressure)
            working = [group.create_task(part.run()) for part in starting]
            reading = [group.create_task(reader.run(parts.kafka_in.attach(reader))) for reader in parts.readers]
            dispatching = group.create_task(parts.dispatcher.run())
            _tune_collector()
            events.info("worker.ready", incarnation=parts.store.owner, slots=parts.settings.worker.slots)
            await stopping.wait()
            events.info("worker.stopping", running=len(parts.dispatcher))
            await _stop(parts, reading, working, dispatching)
            for task in tasks:
                task.cancel()
        await _within(FLUSH_S, parts.store.stop())
    events.info("worker.stopped")


async def _take_lease(parts: Parts) -> None:
    try:
        await parts.leases.start({"host": platform.node(), "version": version("aibroker")})
    except StoreUnknownError as error:
        raise MongoMissing(
            f"MongoDB did not take this worker's lease in time ({error}): start the worker again"
        ) from None


async def _stop(
    parts: Parts,
    reading: list["asyncio.Task[None]"],
    working: list["asyncio.Task[None]"],
    dispatching: "asyncio.Task[None]",
) -> None:
    """Stop reading and taking, hand back what has not begun, wait for calls up to the grace, stop the rest, flush, leave."""
    for reader in parts.readers:
        reader.stop()
    for task in working:
        task.cancel()
    await asyncio.wait(reading, timeout=FLUSH_S)
    parts.dispatcher.hand_back()
    parts.dispatcher.stop()
    _, late = await asyncio.wait([dispatching], timeout=parts.settings.worker.grace_s)
    if late:
        parts.dispatcher.stop_jobs()
        await asyncio.wait(late, timeout=FLUSH_S)
    for task in (*reading, dispatching):
        task.cancel()  # what still hangs on a database that is away is taken over by others
    await _within(FLUSH_S, parts.finisher.flush())
    await _within(FLUSH_S, parts.publisher.flush())
    await _within(FLUSH_S, parts.tender.stop())
    await parts.kafka_in.stop()


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
