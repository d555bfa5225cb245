"""Builders of what the worker's tests need: each call spells out only what matters to its test."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, cast

import orjson

from broker.codec import parse
from broker.errors import AibrokerError
from broker.events import Events
from broker.lanes import Record
from broker.outputs import Outputs
from broker.prices import Prices
from broker.sending import Sending
from broker.settings import Settings
from broker.telemetry import Telemetry
from broker.tokens import Ratios
from schemas.job import Job
from workers.admit import Admission
from workers.call import Caller
from workers.engine.failpoints import Failpoints
from workers.engine.halts import Halts
from workers.engine.hands import Hands
from workers.engine.leases import Leases
from workers.engine.publisher import Publisher
from workers.engine.ready import Ready, ReadyQueue
from workers.engine.registry import Registry
from workers.engine.topics import Topics
from workers.gates import Gates
from workers.guards.chain import Chain
from workers.guards.pii import Pii
from workers.outcome import Running
from workers.pipeline import Pipeline
from workers.providers.memory import MemoryProvider
from workers.providers.protocol import Provider
from workers.quota.holds import FreeHold
from workers.quota.protocol import Denied, Hold, Need
from workers.route import Router
from workers.stores.memory import MemoryDatabase, MemoryStore
from workers.stores.protocol import Address, Claim, NewJob, Store
from workers.transports.memory import MemoryTransport, Outcome
from workers.transports.protocol import Call, Reply

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
BOOK = "tenant:acme/day/2026-12-01T00:00Z"


def a_payload(**fields: Any) -> bytes:  # noqa: ANN401 any JSON value
    """A job record."""
    return orjson.dumps({"body": BODY, **fields})


def a_claim(**fields: Any) -> Claim:  # noqa: ANN401 a claim's fields; others go to the payload
    """A job that was just claimed."""
    names = Claim.__dataclass_fields__
    payload = a_payload(**{name: value for name, value in fields.items() if name not in names})
    known: dict[str, Any] = {
        "id": "acme/job",
        "uid": "uid",
        "generation": 1,
        "fence": 1,
        "tenant": "acme",
        "job_id": "job",
        "priority": "normal",
        "payload": payload,
        "arrived_at": datetime.now(UTC) - timedelta(seconds=1),
        "replies": (Address("results"),),
        "replies_n": 1,
    }
    return Claim(**(known | {name: value for name, value in fields.items() if name in names}))


def a_ready(claim: Claim | None = None, **fields: Any) -> Ready:  # noqa: ANN401 as `a_claim`
    """A job that may start, with a day left."""
    claim = claim or a_claim(**fields)
    parsed = parse(claim.payload, claim.arrived_at)
    deadline = parsed.job.deadline if parsed.job is not None else None
    deadline = deadline or datetime.now(UTC) + timedelta(days=1)
    return Ready(claim, parsed, 10.0, deadline.timestamp())


def a_running(**fields: Any) -> Running:  # noqa: ANN401 as `a_claim`
    """A job that was admitted."""
    ready = a_ready(**fields)
    return Running(
        ready, datetime.now(UTC), cast("Job", ready.parsed.job), ready.parsed.operation, ready.claim.attempts
    )


def a_new_job(name: str = "job", **fields: Any) -> NewJob:  # noqa: ANN401 fields of a new job
    """A job of acme as its reader inserts it."""
    known: dict[str, Any] = {
        "id": f"acme/{name}",
        "uid": name,
        "tenant": "acme",
        "job_id": name,
        "priority": "normal",
        "payload": a_payload(),
        "digest": b"",
        "reply": Address("results"),
        "arrived_at": datetime.now(UTC),
    }
    return NewJob(**(known | fields))


def some_hands(store: Store, clock: Callable[[], float], settings: Settings | None = None) -> Hands:
    """The empty hands of a worker whose lease runs by `clock`; it has to be started."""
    settings = settings or some_settings()
    return Hands(ReadyQueue(settings), Registry(), Leases(store, settings.lease_s, nothing_to_adopt, clock=clock))


async def nothing_to_adopt(_: Callable[[], bool]) -> None:
    """An audit that finds nothing."""


def an_answer(content: str = "hi", tokens: Sequence[int] | None = (10, 0, 0, 5, 0), tier: str | None = None) -> Reply:
    """A good reply of the memory provider."""
    message = {"role": "assistant", "content": content}
    output = {"id": "memory-1", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    wire: dict[str, Any] = {"output": output} if tokens is None else {"output": output, "tokens": list(tokens)}
    return Reply(200, {"x-request-id": "req-1"}, orjson.dumps({**wire, "service_tier": tier}))


def an_error(status: int, **headers: str) -> Reply:
    """A reply that is none; header names with underscores for hyphens."""
    body = orjson.dumps({"error": {"message": "no", "type": "error", "code": None}})
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def some_settings(**fields: Any) -> Settings:  # noqa: ANN401 settings
    """One provider `main` that serves `m` at a dollar a million tokens in and two out."""
    known = {
        "providers": {"main": {"base_url": "http://provider", "models": ["m"]}},
        "prices": [{"model": "m", "input": "1", "output": "2"}],
    }
    return Settings.model_validate(known | fields)


class Sent:
    """Stands where the sending task stands: acknowledges everything, keeps it in `records`."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def try_put_many(self, records: Sequence[Record]) -> "asyncio.Future[dict[int, AibrokerError]]":
        """Keep them; no failures."""
        self.records.extend(records)
        done: asyncio.Future[dict[int, AibrokerError]] = asyncio.get_running_loop().create_future()
        done.set_result({})
        return done

    async def put(self, record: Record) -> "asyncio.Future[None]":
        """Keep it."""
        self.records.append(record)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


class SomeQuota:
    """Answers every request for a hold with `answer`, or with a free one; keeps the holds."""

    def __init__(self, answer: Denied | None = None) -> None:
        self.answer = answer
        self.holds: list[SomeHold] = []

    def try_hold(self, need: Need, now: datetime) -> Hold | None:  # noqa: ARG002 the Protocol's
        """A hold, unless it is denied."""
        if self.answer is not None:
            return None
        self.holds.append(SomeHold(need.tokens, need.usd))
        return self.holds[-1]

    async def hold(self, need: Need, now: datetime) -> Hold | Denied:  # noqa: ARG002 the Protocol's
        """What was said at the beginning."""
        return self.answer or FreeHold()


class SomeHold:
    """A hold that remembers what became of it."""

    def __init__(self, tokens: int, usd: Decimal) -> None:
        self.held = (tokens, usd)
        self.used: tuple[int, Decimal] | None = None
        self.released = self.revoked = False
        self.keys = [BOOK]

    def settle(self, tokens: int, usd: Decimal) -> None:
        """Remember what was used."""
        self.used = (tokens, usd)

    def release(self) -> None:
        """Remember that it was given back."""
        self.released = self.used is None

    def revoke(self) -> None:
        """Remember that it was taken back."""
        self.revoked = True

    def __enter__(self) -> "SomeHold":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


Answers = Callable[[Call], Outcome | Awaitable[Outcome]]


@dataclass
class Bench:
    """A pipeline on a store in memory, a provider in memory and a transport that answers as told."""

    answers: Answers
    settings: Settings = field(default_factory=some_settings)
    quota: SomeQuota = field(default_factory=SomeQuota)
    partitions: dict[str, int] = field(default_factory=lambda: {"results": 8})
    seed: int = 7

    def __post_init__(self) -> None:
        self.database = MemoryDatabase()
        self.store = MemoryStore(self.database, "us")
        self.sent = Sent()
        self.transport = MemoryTransport(self.answers)
        self.under_way: dict[str, Running] = {}
        self.released: list[str] = []
        self.gates = Gates(Random(self.seed))
        self.leases = Leases(self.store, self.settings.lease_s, nothing_to_adopt)
        self.halts = Halts()
        failpoints = Failpoints("", Events("test"))
        self.publisher = Publisher(self.store, cast("Sending", self.sent), self.settings, failpoints)
        providers: dict[str, Provider] = {name: MemoryProvider() for name in self.settings.providers}
        self.caller = Caller(
            store=self.store,
            publisher=self.publisher,
            leases=self.leases,
            halts=self.halts,
            providers=providers,
            transport=self.transport,
            gates=self.gates,
            prices=Prices(self.settings.prices),
            ratios=Ratios(),
            outputs=Outputs(),
            estimates=self.settings.estimates,
            telemetry=Telemetry(self.settings.telemetry, "us", Random(self.seed)),
            failpoints=failpoints,
            release=self.released.append,
            events=Events("test"),
        )
        guards = Chain(self.settings.guards.pii_input, self.settings.guards.pii_output, [Pii()])
        router = Router(self.settings, Prices(self.settings.prices))
        self.pipeline = Pipeline(Admission(guards, Topics(self._topics)), router, self.quota, self.caller, "batch")

    async def claimed(self, **fields: Any) -> Ready:  # noqa: ANN401 as `a_claim`
        """A job that is in the store, claimed by us."""
        await self.leases.start({})
        claim = a_claim(**fields)
        new = NewJob(
            id=claim.id,
            uid=claim.uid,
            tenant=claim.tenant,
            job_id=claim.job_id,
            priority=claim.priority,
            payload=claim.payload,
            digest=b"",
            reply=claim.replies[0],
            arrived_at=claim.arrived_at,
        )
        await self.store.insert([new])
        return a_ready(claim)

    async def process(self, **fields: Any) -> Any:  # noqa: ANN401 a finish or a wait
        """Claim a job and bring it to its outcome."""
        return await self.pipeline.process(await self.claimed(**fields), self.under_way)

    def rows(self) -> list[dict[str, Any]]:
        """The ledger."""
        return list(self.database.usage.values())

    async def _topics(self) -> dict[str, int]:
        return self.partitions


def one_after_another(*outcomes: Outcome) -> Answers:
    """Answers in their order, the last one again and again."""
    left = list(outcomes)

    def answer(_: Call) -> Outcome:
        return left.pop(0) if len(left) > 1 else left[0]

    return answer
