"""The composition root: builds every part of a worker out of the settings, runs them, and takes them down in order."""

import asyncio
import gc
import platform
import signal
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from random import Random
from typing import Any

from broker import kafka, mongo, topics
from broker.errors import MongoMissing
from broker.events import Events
from broker.prices import Prices
from broker.sending import Sending
from broker.settings import Settings, effective
from broker.telemetry import Telemetry
from broker.tokens import Ratios
from workers.admit import Admission
from workers.call import Caller
from workers.engine.audit import Audit
from workers.engine.control import Controller
from workers.engine.dead_letters import DeadLetters
from workers.engine.dispatcher import Dispatcher
from workers.engine.failpoints import Failpoints
from workers.engine.finisher import Finisher
from workers.engine.hands import Hands
from workers.engine.intake import Intake
from workers.engine.kafka_in import KafkaIn
from workers.engine.leases import Leases
from workers.engine.pressure import Pressure
from workers.engine.publisher import Publisher
from workers.engine.reader import Reader
from workers.engine.ready import ReadyQueue
from workers.engine.registry import Registry
from workers.engine.taker import Taker
from workers.engine.topics import Topics
from workers.engine.watchdog import Watchdog
from workers.gates import Gates
from workers.guards.chain import Chain
from workers.guards.pii import Pii
from workers.pipeline import Pipeline
from workers.providers.registry import REGISTRY
from workers.quota.holds import Holds
from workers.quota.mongo import MongoBooks
from workers.quota.tender import Tender
from workers.route import Router
from workers.stores.mongo import MongoStore
from workers.stores.protocol import StoreUnknownError
from workers.transports.registry import TRANSPORTS

RELEASE_AT_ONCE = 500
"""How many jobs that waited for a credential come back with its first good answer; the others follow when they are due."""
FLUSH_S = 10.0


@dataclass(slots=True, frozen=True)
class Around:
    """What a worker has around it: where it reports, the id of its Kafka, and the books of quotas."""

    telemetry: Telemetry
    cluster: str
    books: MongoBooks


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
    tender: Tender
    pressure: Pressure

    def ticks(self) -> Mapping[str, float]:
        """When each loop ticked last."""
        loops: dict[str, Any] = {
            "taker": self.taker,
            "dispatcher": self.dispatcher,
            "publisher": self.publisher,
            "leases": self.leases,
            "control": self.controller,
            "quota": self.tender,
        }
        return {name: loop.ticked_at for name, loop in loops.items()}


async def serve(settings: Settings) -> None:
    """Run one worker until SIGTERM or SIGINT.

    Raises:
        AibrokerError: A service is missing, a topic or a setting is wrong.
        FencedError: Another worker declared this one dead.
    """
    events = Events("worker")
    events.info("worker.starting", settings=effective(settings))
    incarnation = str(uuid.uuid4())
    client = mongo.connect(settings.mongo.get_secret_value(), settings.driver)
    try:
        await mongo.check(client)
        cluster = await kafka.check(settings)
        await topics.check(settings)
        database = client[settings.database]
        await mongo.prepare(database)
        telemetry = Telemetry(settings.telemetry, incarnation, Random())  # noqa: S311 sampling is no secret
        async with Sending(settings) as sending:
            store = MongoStore(database, incarnation)
            parts = _build(settings, store, sending, Around(telemetry, cluster.id, MongoBooks(database)))
            await _run(parts, events)
        telemetry.close()
    finally:
        await mongo.close(client)


def _build(settings: Settings, store: MongoStore, sending: Sending, around: Around) -> Parts:
    failpoints, registry = Failpoints(settings.fail_at, Events("worker.failpoints")), Registry()
    ready = ReadyQueue(settings)
    known = Topics(lambda: kafka.partition_counts(settings))
    publisher = Publisher(store, sending, settings, failpoints)
    finisher = Finisher(store, publisher, registry, ready=ready, failpoints=failpoints)
    leases = Leases(store, settings.lease_s, Audit(store, registry, ready).run)
    hands, dead_letters = Hands(ready, registry, leases), DeadLetters(settings, sending)
    taker = Taker(store, [priority.name for priority in settings.priorities], hands)
    holds = Holds(settings.quotas, around.books, store.owner)
    guards = Chain(settings.guards.pii_input, settings.guards.pii_output, [Pii()])
    caller = _caller(settings, store, publisher, leases, failpoints, around)
    pipeline = Pipeline(Admission(guards, known), Router(settings, Prices(settings.prices)), holds, caller)
    dispatcher = Dispatcher(
        pipeline.process, settings.worker, hands=hands, finisher=finisher, telemetry=around.telemetry
    )
    intake = Intake(
        store,
        dead_letters=dead_letters,
        publisher=publisher,
        hands=hands,
        taker=taker,
        topics=known,
        failpoints=failpoints,
    )
    controller = Controller(store, dead_letters=dead_letters, publisher=publisher, topics=known, dispatcher=dispatcher)
    readers = _readers(settings, intake, around.cluster, failpoints)
    pressure = Pressure(settings, store, readers, ready)
    around.telemetry.watch(pressure.gauges)
    return Parts(
        settings=settings,
        store=store,
        kafka_in=KafkaIn(settings, controller.handle),
        readers=readers,
        taker=taker,
        dispatcher=dispatcher,
        finisher=finisher,
        publisher=publisher,
        leases=leases,
        controller=controller,
        tender=Tender(holds, store.release),
        pressure=pressure,
    )


def _readers(settings: Settings, intake: Intake, cluster: str, failpoints: Failpoints) -> list[Reader]:
    names = [priority.name for priority in settings.priorities]
    records = settings.worker.read_records
    return [Reader(name, intake, cluster=cluster, records=records, failpoints=failpoints) for name in names]


def _caller(  # noqa: PLR0917 what the stage that spends money depends on
    settings: Settings, store: MongoStore, publisher: Publisher, leases: Leases, failpoints: Failpoints, around: Around
) -> Caller:
    return Caller(
        store=store,
        publisher=publisher,
        leases=leases,
        providers={
            name: REGISTRY[provider.kind](provider.base_url, provider.api_key, service_tier=provider.service_tier)
            for name, provider in settings.providers.items()
        },
        transport=TRANSPORTS[settings.transport](),
        gates=Gates(Random()),  # noqa: S311 jitter is no secret
        ratios=Ratios(),
        telemetry=around.telemetry,
        failpoints=failpoints,
        release=lambda key: publisher.start(_released(store, key)),
        events=Events("worker.call"),
    )


async def _released(store: MongoStore, key: str) -> None:
    try:
        await store.release(key, RELEASE_AT_ONCE)
    except StoreUnknownError:
        return  # they are due by themselves a little later


async def _run(parts: Parts, events: Events) -> None:
    watchdog = Watchdog(parts.settings.worker.watchdog_s, parts.ticks)
    with _signals() as stopping:
        await _take_lease(parts)
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
            working = [group.create_task(part.run()) for part in (parts.taker, parts.controller, parts.pressure)]
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
