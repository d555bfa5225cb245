"""The composition root: builds every part of a worker out of the settings."""

import uuid
from dataclasses import dataclass
from random import Random

from broker import kafka, mongo, topics
from broker.errors import MongoMissing
from broker.events import Events
from broker.limits import Rulebook
from broker.prices import Prices
from broker.sending import Sending
from broker.settings import Settings, effective
from broker.telemetry import Telemetry
from broker.tokens import Ratios
from workers.admit import Admission
from workers.call import Caller
from workers.engine.activity import Activity
from workers.engine.audit import Audit
from workers.engine.batches import Batches
from workers.engine.control import Controller
from workers.engine.dead_letters import DeadLetters
from workers.engine.dispatcher import Dispatcher
from workers.engine.failpoints import Failpoints
from workers.engine.finisher import Finisher
from workers.engine.halts import Halting
from workers.engine.hands import Hands
from workers.engine.homing import Homing
from workers.engine.inlet import Inlet
from workers.engine.intake import Intake
from workers.engine.kafka_in import KafkaIn
from workers.engine.leases import Leases
from workers.engine.loop_lag import LoopLag
from workers.engine.pressure import Pressure
from workers.engine.publisher import Publisher
from workers.engine.reader import Poll, Reader
from workers.engine.ready import ReadyQueue
from workers.engine.registry import Registry
from workers.engine.taker import Taker
from workers.engine.topics import Topics
from workers.gates import Gates
from workers.guards.chain import Chain
from workers.guards.pii import Pii
from workers.life import Parts, run
from workers.pipeline import Pipeline
from workers.providers.registry import REGISTRY
from workers.quota.alerting import Alerting, Announcer
from workers.quota.holds import Holds
from workers.quota.mongo import MongoBooks
from workers.quota.ruling import Ruling
from workers.quota.tender import Tender
from workers.route import Router
from workers.stores.mongo import MongoStore
from workers.stores.protocol import StoreUnknownError
from workers.transports.registry import TRANSPORTS

RELEASE_AT_ONCE = 500
"""How many jobs that waited for a credential come back with its first good answer; the others follow when they are due."""


@dataclass(slots=True, frozen=True)
class Around:
    """What a worker has around it: where it reports, the id of its Kafka, the books of quotas, and the limits at its start."""

    telemetry: Telemetry
    cluster: str
    books: MongoBooks
    rules: Rulebook


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
            books = MongoBooks(database)
            around = Around(telemetry, cluster.id, books, await _rules(settings, books))
            parts = _build(settings, store, sending, around)
            await run(parts, events)
        telemetry.close()
    finally:
        await mongo.close(client)


async def _rules(settings: Settings, books: MongoBooks) -> Rulebook:
    try:
        return settings.rulebook(await books.limits(0))
    except StoreUnknownError as error:
        raise MongoMissing(f"the limits that were set by command cannot be read ({error}): start it again") from None


def _build(settings: Settings, store: MongoStore, sending: Sending, around: Around) -> Parts:
    failpoints, registry = Failpoints(settings.fail_at, Events("worker.failpoints")), Registry()
    ready, known = ReadyQueue(settings), Topics(lambda: kafka.partition_counts(settings))
    publisher = Publisher(store, sending, settings, failpoints)
    finisher = Finisher(store, publisher, registry, ready=ready, failpoints=failpoints)
    leases = Leases(store, settings.lease_s, Audit(store, registry, ready).run)
    hands, dead_letters = Hands(ready, registry, leases), DeadLetters(settings, sending)
    taker = Taker(store, [priority.name for priority in settings.priorities], hands)
    holds = Holds(around.rules, around.books, store.owner, lowest=ready.priorities[-1])
    guards = Chain(settings.guards.pii_input, settings.guards.pii_output, [Pii()])
    prices = Prices(settings.prices)
    caller = _caller(settings, store, publisher, prices, hands, failpoints, around)
    admission, router = Admission(guards, known, settings.tagging()), Router(settings, prices)
    pipeline = Pipeline(admission, router, holds, caller, ready.priorities[-1])
    dispatcher = Dispatcher(
        pipeline.process, settings.worker, hands=hands, finisher=finisher, telemetry=around.telemetry
    )
    inlet = Inlet(store, publisher, dead_letters, known)
    halting = Halting(store, hands.halts, (dispatcher.heed_halts, taker.nudge))
    batches, homing = Batches(store, sending, settings, halting.hurry), Homing(settings, sending, known)
    controller = Controller(inlet, homing, dispatcher=dispatcher, halting=halting, sealed=batches.nudge)
    intake = Intake(inlet, hands=hands, taker=taker, failpoints=failpoints)
    readers = _readers(settings, intake, around.cluster, failpoints)
    pressure, lag = Pressure(settings, store, readers, ready), LoopLag()
    around.telemetry.watch(pressure.gauges, lag.worst_s)
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
        halting=halting,
        batches=batches,
        tender=Tender(holds, store.release),
        ruling=Ruling(holds, settings.rulebook, store.release),
        alerting=Alerting(holds.entries, Announcer(sending, settings, failpoints).send),
        pressure=pressure,
        lag=lag,
        activity=Activity(ready, dispatcher),
    )


def _readers(settings: Settings, intake: Intake, cluster: str, failpoints: Failpoints) -> list[Reader]:
    names = [priority.name for priority in settings.priorities]
    poll = Poll(settings.worker.read_records, settings.worker.read_mb * 1_000_000)
    return [Reader(name, intake, cluster=cluster, poll=poll, failpoints=failpoints) for name in names]


def _caller(  # noqa: PLR0917 what the stage that spends money depends on
    settings: Settings,
    store: MongoStore,
    publisher: Publisher,
    prices: Prices,
    hands: Hands,
    failpoints: Failpoints,
    around: Around,
) -> Caller:
    return Caller(
        store=store,
        publisher=publisher,
        leases=hands.leases,
        halts=hands.halts,
        providers={
            name: REGISTRY[provider.kind](
                provider.base_url, provider.api_key, service_tier=provider.service_tier, http2=provider.http2
            )
            for name, provider in settings.providers.items()
        },
        transport=TRANSPORTS[settings.transport](),
        gates=Gates(Random()),  # noqa: S311 jitter is no secret
        prices=prices,
        ratios=Ratios(),
        outputs=hands.ready.outputs,
        estimates=settings.estimates,
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
