"""What becomes of a record whose job is known already, or shall not run now."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import orjson
import pytest

from broker.codec import Place
from broker.events import Events
from broker.sending import Sending
from schemas.codes import Code
from tests.builders import BODY, Sent, some_hands, some_settings
from workers.engine.dead_letters import DeadLetters
from workers.engine.failpoints import Failpoints
from workers.engine.inlet import Inlet
from workers.engine.intake import DUPLICATES_AT_ONCE, Intake
from workers.engine.publisher import Publisher
from workers.engine.record import Record
from workers.engine.taker import Taker
from workers.engine.topics import Topics
from workers.stores.control import EVERYTHING, NEVER, Halt, HaltKind
from workers.stores.memory import MemoryDatabase, MemoryStore
from workers.stores.protocol import Address


class _Worker:
    """A worker that reads, on a store in memory."""

    def __init__(self, store: MemoryStore | None = None, **settings_of: Any) -> None:  # noqa: ANN401 settings
        settings, failpoints, sending = (
            some_settings(**settings_of),
            Failpoints("", Events("test")),
            cast("Sending", Sent()),
        )
        self.store = store or MemoryStore(MemoryDatabase(), "us")
        self.hands = some_hands(self.store, asyncio.get_running_loop().time, settings)
        self.taker = Taker(self.store, ["normal"], self.hands)
        inlet = Inlet(
            store=self.store,
            publisher=Publisher(self.store, sending, settings, failpoints),
            dead_letters=DeadLetters(settings, sending),
            topics=Topics(self._topics),
        )
        self.intake = Intake(inlet, hands=self.hands, taker=self.taker, failpoints=failpoints)

    async def _topics(self) -> dict[str, int]:
        return {"results": 8, "results.a": 8, "results.b": 8}

    async def read(self, offset: int, **fields: Any) -> None:  # noqa: ANN401 any JSON value
        """One record of job `1` of acme."""
        place = Place("cluster", "jobs.normal", 0, offset, datetime.now(UTC))
        value = orjson.dumps({"id": "1", "tenant": "acme", "body": BODY, **fields})
        await self.intake.keep("normal", [Record(place, None, value, [])])

    async def read_many(self, count: int, **fields: Any) -> None:  # noqa: ANN401 any JSON value
        """Records of so many jobs of acme, in one batch."""
        records = [
            Record(
                Place("cluster", "jobs.normal", 0, number, datetime.now(UTC)),
                None,
                orjson.dumps({"id": str(number), "tenant": "acme", "body": BODY, **fields}),
                [],
            )
            for number in range(count)
        ]
        await self.intake.keep("normal", records)

    async def take_and_forget(self) -> None:
        """A take whose answer, and the answer of the look after it, are lost: claimed by us, and nobody here knows."""
        await self.store.take(["acme/1"], "token", datetime.now(UTC))


async def orphan() -> _Worker:
    """A worker that has claimed a job without knowing it; its producer awaits it on `results.a`."""
    worker = _Worker()
    await worker.read(0, reply_to="results.a", metadata="first")  # before the lease: it waits
    await worker.hands.leases.start({})
    await worker.take_and_forget()
    return worker


async def test_a_duplicate_takes_up_what_a_lost_answer_left_claimed() -> None:
    worker = await orphan()
    await worker.read(1, reply_to="results.a")
    ready = worker.hands.ready.pop()
    assert ready is not None
    assert (ready.claim.id, ready.claim.fence) == ("acme/1", 2)


async def test_a_duplicate_that_takes_a_job_up_adds_its_own_reply_address() -> None:
    worker = await orphan()
    await worker.read(1, reply_to="results.b")
    ready = worker.hands.ready.pop()
    assert ready is not None
    assert set(ready.claim.replies) == {Address("results.a"), Address("results.b")}


async def test_a_job_that_a_duplicate_takes_up_runs_as_it_was_submitted_first() -> None:
    worker = await orphan()
    await worker.read(1, reply_to="results.a", metadata="second")
    ready = worker.hands.ready.pop()
    assert ready is not None
    assert ready.parsed.metadata == "first"


class _Counting(MemoryStore):
    """A store that counts how many replies are being added at the same time."""

    adding = most = 0

    async def add_reply(self, job_id: str, reply: Address, token: str) -> bool:
        self.adding += 1
        self.most = max(self.most, self.adding)
        await asyncio.sleep(0)
        self.adding -= 1
        return await super().add_reply(job_id, reply, token)


async def test_a_crowd_of_duplicates_leaves_connections_for_the_lease() -> None:
    store = _Counting(MemoryDatabase(), "us")
    worker = _Worker(store)
    await worker.read_many(100, reply_to="results.a")
    await worker.read_many(100, reply_to="results.b")
    assert store.most == DUPLICATES_AT_ONCE


async def test_a_duplicate_with_another_body_takes_nothing_up() -> None:
    worker = await orphan()
    await worker.read(1, body={**BODY, "temperature": 1})
    assert len(worker.hands.ready) == 0
    assert len(worker.hands.registry) == 0  # the audit finds the job that is there


SCHEDULED = "2099-01-01T00:00:00Z"
TOMORROW = (datetime.now(UTC) + timedelta(days=1)).isoformat()


@pytest.mark.parametrize(
    ("scope", "kind", "fields", "waits"),
    [
        (EVERYTHING, HaltKind.PAUSED, {}, ("paused", False, None)),
        ("acme", HaltKind.PAUSED, {}, ("paused", False, None)),
        ("acme/b", HaltKind.PAUSED, {"batch_id": "b"}, ("paused", True, "paused:acme/b")),
        ("acme/b", HaltKind.PAUSED, {"batch_id": "b", "not_before": TOMORROW}, ("scheduled", False, None)),
        ("acme/b", HaltKind.PAUSED, {}, None),
        ("acme/b", HaltKind.CANCELLED, {"batch_id": "b", "not_before": TOMORROW}, None),
    ],
)
async def test_a_job_that_arrives_under_a_halt_waits_or_is_ready_to_be_ended(
    scope: str, kind: HaltKind, fields: dict[str, Any], waits: tuple[str, bool, str | None] | None
) -> None:
    worker = _Worker()
    await worker.hands.leases.start({})
    worker.hands.halts.learn([Halt(scope, kind, 1, "", datetime.now(UTC))])
    await worker.read(0, **fields)
    document = worker.store.database.jobs["acme/1"]
    assert len(worker.hands.ready) == (0 if waits else 1)
    if waits is not None:
        found = document["state"], document["why_waiting"], document["due_at"] == NEVER, document.get("wait_key")
        assert found == ("waiting", *waits)


async def test_a_job_that_was_announced_and_arrives_under_a_pause_is_merged_and_waits() -> None:
    worker = _Worker()
    await worker.hands.leases.start({})
    await worker.store.add_reply("acme/1", Address("results.a"), "t")
    worker.hands.halts.learn([Halt("acme", HaltKind.PAUSED, 1, "", datetime.now(UTC))])
    await worker.read(0)
    document = worker.store.database.jobs["acme/1"]
    assert (document["state"], document["why_waiting"]) == ("waiting", "paused")
    assert len(worker.hands.registry) == 0


async def test_a_job_that_waits_knows_its_deadline() -> None:
    worker = _Worker()
    await worker.hands.leases.start({})
    await worker.read(0, not_before=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    document = worker.store.database.jobs["acme/1"]
    assert document["why_waiting"] == "scheduled"
    assert document["deadline"] == document["due_at"] + timedelta(days=1)


async def test_a_schedule_beyond_the_time_for_which_jobs_are_kept_does_not_wait_to_be_refused() -> None:
    worker = _Worker()
    await worker.hands.leases.start({})
    await worker.read(0, not_before=SCHEDULED)
    ready = worker.hands.ready.pop()
    assert ready is not None
    assert ready.parsed.refusal is not None
    assert ready.parsed.refusal.code == Code.SCHEDULED_TOO_LATE


async def test_a_noisy_tenant_leaves_room_for_others_and_its_jobs_stay_in_their_order() -> None:
    worker = _Worker(worker={"ready": 64})  # 16 for one tenant of one priority
    await worker.hands.leases.start({})
    place = Place("cluster", "jobs.normal", 0, 0, datetime.now(UTC))

    async def read(tenant: str, first: int, count: int) -> None:
        values = [orjson.dumps({"id": str(n), "tenant": tenant, "body": BODY}) for n in range(first, first + count)]
        await worker.intake.keep(
            "normal", [Record(place._replace(offset=n), None, v, []) for n, v in enumerate(values)]
        )

    await read("noisy", 0, 50)
    await read("quiet", 0, 3)
    while worker.hands.ready.pop() is not None:
        pass
    await read("noisy", 50, 1)  # there is room now, but others of it wait
    await read("quiet", 3, 1)
    states = {name: job["state"] for name, job in worker.store.database.jobs.items()}
    assert [name for name, state in states.items() if state == "claimed"] == [
        *(f"noisy/{number}" for number in range(16)),
        *(f"quiet/{number}" for number in range(4)),
    ]
    assert worker.hands.ready.is_behind("normal", "noisy")
    assert not worker.hands.ready.is_behind("normal", "quiet")


async def test_what_would_not_fit_by_its_size_waits_in_the_store() -> None:
    worker = _Worker(worker={"payload_mb": 2})
    await worker.hands.leases.start({})
    text = "x" * 700_000
    for offset in range(4):
        await worker.read(offset, id=str(offset), body={**BODY, "messages": [{"role": "user", "content": text}]})
    states = {job["job_id"]: job.get("why_waiting") for job in worker.store.database.jobs.values()}
    assert states == {"0": None, "1": None, "2": "queued", "3": "queued"}
    assert worker.hands.ready.room_bytes("normal") < 700_000
