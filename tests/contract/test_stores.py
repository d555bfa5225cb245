"""What every store promises: the protocol of a job document, on dictionaries and on a real MongoDB by both drivers."""

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import pymongo
import pytest
from bson.decimal128 import Decimal128
from bson.raw_bson import RawBSONDocument

from broker.cli.queries import drain
from broker.mongo import check, close, connect, prepare
from broker.mongo_layout import INDEXES, RESULTS_VIEW, USAGE_VALIDATOR
from schemas.codes import Code
from workers.stores.control import (
    EVERYTHING,
    NEVER,
    ControlStore,
    Halt,
    HaltKind,
    Seal,
    Sealed,
)
from workers.stores.memory import MemoryDatabase, MemoryStore
from workers.stores.mongo import MongoStore
from workers.stores.mongo_halts import HALTED
from workers.stores.mongo_wire import Written
from workers.stores.protocol import (
    Address,
    Backlog,
    Claim,
    Fate,
    Finish,
    Insertion,
    Lease,
    NewJob,
    Published,
    Row,
    Standing,
    State,
    StoreUnknownError,
    Waiting,
)

NOW = datetime(2026, 12, 1, 8, tzinfo=UTC)
PAST = NOW - timedelta(hours=1)
LATER = datetime(2100, 1, 1, tzinfo=UTC)
EXPIRY = datetime(2100, 2, 1, tzinfo=UTC)
HERE = Address("results")
THERE = Address("results.other", 3)

Document = dict[str, Any]


class MemoryWorld:
    """Workers that share a `MemoryDatabase`."""

    def __init__(self) -> None:
        self.database = MemoryDatabase()

    def store(self, owner: str) -> ControlStore:
        """A worker's store."""
        return MemoryStore(self.database, owner)

    async def document(self, id_: str) -> Document:
        """What is stored of a job; empty when nothing is."""
        return dict(self.database.jobs.get(id_, {}))

    async def ask_to_drain(self, owner: str) -> None:
        """Mark an incarnation as `aibroker drain` does."""
        self.database.workers[owner]["drain"] = NOW

    async def ledger(self) -> set[str]:
        """The ids of the ledger's rows."""
        return set(self.database.usage)

    async def lease(self, owner: str) -> Document:
        """What is stored of a worker; empty when nothing is."""
        return dict(self.database.workers.get(owner, {}))

    async def forget(self, owner: str) -> None:
        """Remove a lease as the server does."""
        del self.database.workers[owner]

    @contextmanager
    def losing(self, store: ControlStore, verb: str, *, executed: bool) -> Iterator[None]:
        """The next answer to `verb` is lost."""
        assert isinstance(store, MemoryStore)
        store.lose_next(verb, executed=executed)
        yield


COMMANDS = {"insert": "insert", "ledger": "insert", "adopt": "findAndModify", "merge": "findAndModify"}
COMMANDS |= {"cancel": "findAndModify"}


class MongoWorld:
    """Workers that share a real MongoDB; a second client plants faults and looks at documents."""

    def __init__(self, url: str, driver: Literal["pymongo", "motor"]) -> None:
        self.client = connect(url, driver)
        self.plain: pymongo.MongoClient[Document] = pymongo.MongoClient(url, tz_aware=True)
        self.name = f"contract_{driver}"

    def store(self, owner: str) -> MongoStore:
        """A worker's store."""
        return MongoStore(self.client[self.name], owner)

    async def document(self, id_: str) -> Document:
        """What is stored of a job; empty when nothing is."""
        return self.plain[self.name]["jobs"].find_one({"_id": id_}) or {}

    async def ask_to_drain(self, owner: str) -> None:
        """Mark an incarnation as `aibroker drain` does."""
        self.plain[self.name]["workers"].update_one(*drain([owner]))

    async def ledger(self) -> set[str]:
        """The ids of the ledger's rows."""
        return {row["_id"] for row in self.plain[self.name]["usage"].find({}, {"_id": 1})}

    async def lease(self, owner: str) -> Document:
        """What is stored of a worker; empty when nothing is."""
        return self.plain[self.name]["workers"].find_one({"_id": owner}) or {}

    async def forget(self, owner: str) -> None:
        """Remove a lease as the server does."""
        self.plain[self.name]["workers"].delete_one({"_id": owner})

    @contextmanager
    def losing(self, _: ControlStore, verb: str, *, executed: bool) -> Iterator[None]:
        """The answers to `verb` are lost: the majority never acknowledges, or the line is cut before."""
        lost = {"writeConcernError": {"code": 64, "errmsg": "planted"}} if executed else {"closeConnection": True}
        data = {"failCommands": [COMMANDS.get(verb, "update")], **lost}
        self.plain.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=data)
        try:
            yield
        finally:
            self.plain.admin.command("configureFailPoint", "failCommand", mode="off")
            self.plain[self.name]["batches"].update_one({"_id": "settled"}, {"$inc": {"n": 1}}, upsert=True)  # majority

    async def aclose(self) -> None:
        """Empty the database and give back connections."""
        for name in ("jobs", "usage", "workers", "halts", "batches"):
            self.plain[self.name][name].delete_many({})
        self.plain.close()
        await close(self.client)


World = MemoryWorld | MongoWorld


@pytest.fixture(params=["pymongo", "motor"])
async def mongo(request: pytest.FixtureRequest, mongo_url: str) -> AsyncIterator[MongoWorld]:
    made = MongoWorld(mongo_url, request.param)
    await prepare(made.client[made.name])
    yield made
    await made.aclose()


@pytest.fixture(params=["memory", "pymongo", "motor"])
def kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The adapter, and the MongoDB that it needs."""
    return request.param, "" if request.param == "memory" else request.getfixturevalue("mongo_url")


@pytest.fixture
async def world(kind: tuple[Any, str]) -> AsyncIterator[World]:
    driver, url = kind
    if driver == "memory":
        yield MemoryWorld()
        return
    made = MongoWorld(url, driver)
    await prepare(made.client[made.name])
    yield made
    await made.aclose()


def job(id_: str = "acme/1", **changed: Any) -> NewJob:  # noqa: ANN401 fields
    tenant, _, job_id = id_.partition("/")
    new = NewJob(
        id=id_,
        uid=f"uid of {id_}",
        tenant=tenant,
        job_id=job_id,
        priority="normal",
        payload=b'{"body": {}}',
        digest=b"digest",
        reply=HERE,
        arrived_at=NOW,
    )
    return replace(new, **changed)


def waiting_job(id_: str = "acme/1", **changed: Any) -> NewJob:  # noqa: ANN401 fields
    return job(id_, **{"due_at": PAST, "why_waiting": "queued", **changed})


def put_back(id_: str = "acme/1", fence: int = 1, **changed: Any) -> Waiting:  # noqa: ANN401 fields
    return replace(Waiting(id_, fence, due_at=PAST, why_waiting="throttled", attempts=2), **changed)


def outcome(id_: str = "acme/1", fence: int = 1, **changed: Any) -> Finish:  # noqa: ANN401 fields
    done = Finish(id_, fence, "succeeded", {"status": "succeeded", "output": "first"}, None, keep_payload=False)
    return replace(done, **changed)


def row(id_: str = "uid/1/1.1", **changed: Any) -> Row:  # noqa: ANN401 fields
    plain = {"tenant": "acme", "job_id": "1", "priority": "normal", "operation": "chat", "provider": "openai"}
    numbers = {"generation": 1, "cost_usd": Decimal128("0.0002076"), "input_tokens": 812}
    facts = {"at": NOW, "recorded_at": NOW, "billed": True, "estimated": False, "incarnation": "us"}
    return Row({"_id": id_, **plain, **numbers, **facts, **changed})


async def take(store: ControlStore, *ids: str) -> list[Claim]:
    return await store.take(ids, "a token", NOW)


async def finished(store: ControlStore, id_: str = "acme/1", outbox: str = "t1") -> None:
    assert await store.insert([job(id_)]) == [Insertion.INSERTED]
    assert await store.finish([outcome(id_)], outbox) == [Fate.DONE]


async def expired(watcher: ControlStore, owner: str) -> Lease:
    """Wait until the server's clock says that the owner's lease has run out."""
    give_up = time.monotonic() + 5
    while time.monotonic() < give_up:
        for lease in await watcher.expired_leases():
            if lease.incarnation == owner:
                return lease
        await asyncio.sleep(0.01)
    raise AssertionError("the lease does not run out")


async def dead(world: World, owner: str, watcher: ControlStore) -> ControlStore:
    """A store whose incarnation has been declared dead."""
    store = world.store(owner)
    await store.start(0.6, {})
    await store.renew(0.01)
    assert await watcher.fence(await expired(watcher, owner))
    return store


# -- insert and duplicates --------------------------------------------------------------------------------------------


async def test_an_inserted_job_is_claimed_by_its_reader(world: World) -> None:
    store = world.store("us")
    assert await store.insert([job(batch_id="b", trace="00-1")]) == [Insertion.INSERTED]
    known = (await store.read(["acme/1", "acme/absent"]))["acme/1"]
    assert (known.state, known.owner, known.fence, known.generation) == (State.CLAIMED, "us", 1, 1)
    assert (known.digest, known.replies, known.outbox, known.cancel) == (b"digest", (HERE,), None, None)
    assert "acme/absent" not in await store.read(["acme/1", "acme/absent"])


async def test_a_job_that_is_not_due_is_inserted_as_waiting(world: World) -> None:
    store = world.store("us")
    await store.insert([job(due_at=LATER, why_waiting="scheduled")])
    known = (await store.read(["acme/1"]))["acme/1"]
    assert (known.state, known.owner, known.fence) == (State.WAITING, None, 0)
    document = await world.document("acme/1")
    assert (document["due_at"], document["why_waiting"]) == (LATER, "scheduled")


async def test_a_known_id_is_a_duplicate_and_what_is_stored_stays(world: World) -> None:
    store = world.store("us")
    await store.insert([job(payload=b"first")])
    again = [job("acme/0"), job(payload=b"second"), job("acme/2"), job("acme/2")]
    assert await world.store("others").insert(again) == [
        Insertion.INSERTED,
        Insertion.DUPLICATE,
        Insertion.INSERTED,
        Insertion.DUPLICATE,
    ]
    assert (await world.document("acme/1"))["payload"] == b"first"
    assert (await store.read(["acme/1"]))["acme/1"].owner == "us"


@pytest.mark.parametrize(
    "bad",
    [{"trace": "\ud800"}, {"payload": b"x" * 17_000_000}, {"payload": b"x" * 12_000_000}],
    ids=["text", "17MB", "12MB"],
)
async def test_one_job_that_cannot_be_stored_is_refused_alone(world: World, bad: Document) -> None:
    jobs = [job(f"acme/{n}") for n in range(10)]
    jobs[3] = job("acme/3", **bad)
    outcomes = await world.store("us").insert(jobs)
    assert outcomes == [*[Insertion.INSERTED] * 3, Insertion.REFUSED, *[Insertion.INSERTED] * 6]
    assert set(await world.store("us").read([one.id for one in jobs])) == {f"acme/{n}" for n in range(10) if n != 3}


async def test_a_batch_larger_than_one_message_is_inserted_whole(world: World) -> None:
    jobs = [job(f"acme/{n}", payload=bytes([n]) * 11_000_000) for n in range(5)]
    assert await world.store("us").insert([*jobs, job("acme/2")]) == [*[Insertion.INSERTED] * 5, Insertion.DUPLICATE]
    assert (await world.document("acme/4"))["payload"][:1] == b"\x04"


async def test_an_insert_whose_answer_was_lost_is_found_as_a_duplicate_of_ours_and_adopted(world: World) -> None:
    store = world.store("us")
    with world.losing(store, "insert", executed=True), pytest.raises(StoreUnknownError):
        await store.insert([job(), job("acme/2")])
    assert await store.insert([job(), job("acme/2")]) == [Insertion.DUPLICATE] * 2
    known = (await store.read(["acme/1"]))["acme/1"]
    assert (known.owner, known.fence) == ("us", 1)
    claim = await store.adopt("acme/1", known.fence)
    assert claim is not None
    assert (claim.fence, claim.payload) == (2, b'{"body": {}}')


async def test_an_insert_that_was_not_executed_is_unknown_and_leaves_nothing(world: World) -> None:
    store = world.store("us")
    with world.losing(store, "insert", executed=False), pytest.raises(StoreUnknownError):
        await store.insert([job()])
    assert await store.read(["acme/1"]) == {}


# -- adopt ------------------------------------------------------------------------------------------------------------


async def test_a_job_is_adopted_once_under_one_fence(world: World) -> None:
    store = world.store("us")
    await store.insert([job()])
    await world.store("others").insert([job("acme/theirs")])
    assert await store.unheld(10) == [("acme/1", 1)]
    claim = await store.adopt("acme/1", 1)
    assert claim is not None
    assert claim.fence == 2
    assert await store.adopt("acme/1", 1) is None
    assert await store.adopt("acme/theirs", 1) is None
    assert await store.adopt("acme/absent", 1) is None


async def test_an_adoption_fences_the_task_that_held_the_job(world: World) -> None:
    store = world.store("us")
    await store.insert([job()])
    await store.adopt("acme/1", 1)
    assert await store.mark_called("acme/1", 1) == Fate.FENCED
    assert await store.wait([put_back()]) == [Fate.FENCED]
    assert await store.finish([outcome()], "t") == [Fate.FENCED]
    assert await store.finish([outcome(fence=2)], "t") == [Fate.DONE]


async def test_an_adoption_whose_answer_was_lost_leaves_the_job_to_the_next_audit(world: World) -> None:
    store = world.store("us")
    await store.insert([job()])
    with world.losing(store, "adopt", executed=True), pytest.raises(StoreUnknownError):
        await store.adopt("acme/1", 1)
    [(id_, fence)] = await store.unheld(10)
    assert fence > 1
    assert await store.adopt(id_, fence) is not None


# -- due and take -----------------------------------------------------------------------------------------------------


async def test_whether_anything_is_due_is_one_question_for_all_priorities_and_tenants(world: World) -> None:
    store = world.store("us")
    await store.insert([waiting_job("late/1", due_at=LATER), job("claimed/1")])
    assert not await store.any_due(NOW)
    await store.cancel("claimed/1", 1, "")
    await store.cancel("nobody/1", 1, "")
    assert not await store.any_due(datetime.now(UTC))
    await store.insert([waiting_job("other/1", priority="batch")])
    assert await store.any_due(NOW)


async def test_a_cancel_of_a_job_that_waits_for_later_makes_something_due(world: World) -> None:
    store = world.store("us")
    await store.insert([waiting_job("late/1", due_at=LATER)])
    await store.cancel("late/1", 1, "")
    assert await store.any_due(datetime.now(UTC) + timedelta(seconds=1))


async def test_only_tenants_with_due_jobs_of_the_priority_are_named(world: World) -> None:
    store = world.store("us")
    await store.insert(
        [
            waiting_job("beta/1"),
            waiting_job("acme/1"),
            waiting_job("acme/2", due_at=LATER),
            waiting_job("late/1", due_at=LATER),
            waiting_job("other/1", priority="batch"),
            job("claimed/1"),
        ]
    )
    assert await store.due_tenants("normal", NOW) == ["acme", "beta"]


async def test_what_waits_is_counted_up_to_a_limit_with_the_moment_when_the_first_was_due(world: World) -> None:
    store = world.store("us")
    long_ago = PAST - timedelta(days=1)
    waiting = [waiting_job("beta/1"), waiting_job("acme/1", due_at=LATER), waiting_job("zeta/1", due_at=long_ago)]
    await store.insert([*waiting, waiting_job("other/1", priority="batch"), job("claimed/1")])
    assert await store.waiting("normal", 100) == Backlog(3, long_ago, 3 * len(job().payload))
    assert (await store.waiting("normal", 2)).documents == 2
    assert await store.waiting("interactive", 100) == Backlog(0, None)


async def test_due_jobs_come_oldest_first_up_to_the_limit(world: World) -> None:
    store = world.store("us")
    await store.insert([waiting_job(f"acme/{n}", due_at=PAST - timedelta(minutes=n)) for n in range(5)])
    await store.insert([waiting_job("beta/1"), waiting_job("acme/late", due_at=LATER)])
    assert await store.due("normal", "acme", NOW, 3) == ["acme/4", "acme/3", "acme/2"]
    assert await store.due("normal", "acme", NOW, 10) == [f"acme/{n}" for n in (4, 3, 2, 1, 0)]


async def test_a_take_claims_only_what_waits_and_is_due_and_raises_the_fence(world: World) -> None:
    store, others = world.store("us"), world.store("others")
    await store.insert([waiting_job("acme/1"), waiting_job("acme/late", due_at=LATER)])
    await others.insert([job("acme/theirs")])
    [claim] = await take(store, "acme/1", "acme/late", "acme/theirs", "acme/absent")
    assert (claim.id, claim.fence, claim.tenant, claim.job_id) == ("acme/1", 1, "acme", "1")
    assert (claim.payload, claim.replies, claim.arrived_at) == (b'{"body": {}}', (HERE,), NOW)
    assert "why_waiting" not in await world.document("acme/1")
    assert (await store.read(["acme/theirs"]))["acme/theirs"].fence == 1
    assert await take(others, "acme/1") == []


async def test_what_two_workers_take_at_once_goes_to_one_of_them(world: World) -> None:
    ids = [f"acme/{n}" for n in range(50)]
    await world.store("us").insert([waiting_job(id_) for id_ in ids])
    mine, theirs = await asyncio.gather(
        world.store("us").take(ids, "t1", NOW), world.store("others").take(ids, "t2", NOW)
    )
    assert sorted([claim.id for claim in [*mine, *theirs]]) == sorted(ids)


async def test_what_a_take_with_a_lost_answer_claimed_is_found_by_the_audit(world: World) -> None:
    store = world.store("us")
    await store.insert([waiting_job()])
    with world.losing(store, "take", executed=True), suppress(StoreUnknownError):
        assert len(await take(store, "acme/1")) <= 1  # what the majority has by then
    assert await store.unheld(10) == [("acme/1", 1)]
    assert await store.adopt("acme/1", 1) is not None


# -- wait -------------------------------------------------------------------------------------------------------------


async def test_a_job_that_is_put_back_waits_with_its_reason(world: World) -> None:
    store = world.store("us")
    await store.insert([job()])
    assert await store.wait([put_back(due_at=LATER)]) == [Fate.DONE]
    document = await world.document("acme/1")
    assert (document["state"], document["owner"], document["fence"]) == (State.WAITING, None, 1)
    assert (document["due_at"], document["why_waiting"], document["attempts"]) == (LATER, "throttled", 2)
    assert await take(store, "acme/1") == []


async def test_a_job_that_is_put_back_may_wait_in_another_priority(world: World) -> None:
    store = world.store("us")
    await store.insert([job("acme/1"), job("acme/2")])
    assert await store.wait([put_back(priority="batch"), put_back("acme/2")]) == [Fate.DONE, Fate.DONE]
    assert [(await world.document(id_))["priority"] for id_ in ("acme/1", "acme/2")] == ["batch", "normal"]


async def test_a_delayed_wait_does_not_take_the_job_from_a_later_claim_of_the_same_worker(world: World) -> None:
    store = world.store("us")
    await store.insert([job()])
    assert await store.wait([put_back()]) == [Fate.DONE]
    assert [claim.fence for claim in await take(store, "acme/1")] == [2]
    assert await store.wait([put_back()]) == [Fate.FENCED]
    known = (await store.read(["acme/1"]))["acme/1"]
    assert (known.state, known.owner, known.fence) == (State.CLAIMED, "us", 2)


async def test_a_wait_that_is_repeated_after_a_lost_answer_is_done(world: World) -> None:
    store = world.store("us")
    await store.insert([job()])
    with world.losing(store, "wait", executed=True), pytest.raises(StoreUnknownError):
        await store.wait([put_back()])
    assert (await world.document("acme/1"))["state"] == State.WAITING
    assert await store.wait([put_back()]) == [Fate.DONE]


async def test_a_wait_that_was_not_executed_is_done_by_the_same_again(world: World) -> None:
    store = world.store("us")
    await store.insert([job()])
    with world.losing(store, "wait", executed=False), pytest.raises(StoreUnknownError):
        await store.wait([put_back()])
    assert (await world.document("acme/1"))["state"] == State.CLAIMED
    assert await store.wait([put_back()]) == [Fate.DONE]


async def test_a_cancelled_job_never_goes_to_wait(world: World) -> None:
    store = world.store("us")
    await store.insert([job(), job("acme/2")])
    await store.cancel("acme/1", 7, "enough")
    assert await store.wait([put_back(), put_back("acme/2")]) == [Fate.MARKED, Fate.DONE]
    known = (await store.read(["acme/1"]))["acme/1"]
    assert (known.state, known.owner, known.cancel) == (State.CLAIMED, "us", "enough")


async def test_one_wait_that_cannot_be_stored_is_refused_alone(world: World) -> None:
    store = world.store("us")
    await store.insert([job(), job("acme/2")])
    fates = await store.wait([put_back(why_waiting="\ud800"), put_back("acme/2")])
    assert fates == [Fate.REFUSED, Fate.DONE]


async def test_called_is_taken_back_only_when_surely_nothing_was_sent(world: World) -> None:
    store = world.store("us")
    await store.insert([job(), job("acme/2")])
    assert await store.mark_called("acme/1", 1) == Fate.DONE
    assert await store.mark_called("acme/1", 1) == Fate.DONE
    await store.mark_called("acme/2", 1)
    await store.wait([put_back(nothing_sent=False), put_back("acme/2")])
    assert {claim.id: claim.called for claim in await take(store, "acme/1", "acme/2")} == {
        "acme/1": True,
        "acme/2": False,
    }


async def test_a_wait_keeps_the_code_of_the_last_failure_until_another_one_has_one(world: World) -> None:
    store = world.store("us")
    await store.insert([job()])
    for fence, failure in enumerate(("rate_limited", None, "not_sent", None), 1):
        assert await store.wait([put_back(fence=fence, last_failure=failure)]) == [Fate.DONE]
        [claim] = await take(store, "acme/1")
        assert claim.last_failure == ("not_sent" if fence > 2 else "rate_limited")


async def test_what_waits_on_a_key_is_released_oldest_first_up_to_the_limit(world: World) -> None:
    store = world.store("us")
    await store.insert([job(f"acme/{n}") for n in range(4)])
    waits = [put_back(f"acme/{n}", due_at=LATER + timedelta(minutes=n), wait_key="quota:acme") for n in range(3)]
    await store.wait([*waits, put_back("acme/3", due_at=LATER, wait_key="quota:beta")])
    assert await store.release("quota:acme", 2) == 2
    soon = datetime.now(UTC) + timedelta(seconds=5)
    assert sorted(await store.due("normal", "acme", soon, 10)) == ["acme/0", "acme/1"]
    assert len(await store.take(["acme/0", "acme/1"], "t", soon)) == 2
    assert await store.release("quota:acme", 2) == 1
    assert await store.release("quota:acme", 2) == 0
    assert await store.release("quota:absent", 2) == 0


# -- finish -----------------------------------------------------------------------------------------------------------


async def test_a_finish_stores_the_outcome_with_an_outbox_and_drops_the_payload_of_a_success(world: World) -> None:
    store = world.store("us")
    await store.insert([job(trace="00-1"), job("acme/2")])
    failed = outcome("acme/2", state="failed", result={"status": "failed"}, keep_payload=True)
    assert await store.finish([outcome(row=row()), failed], "t1") == [Fate.DONE, Fate.DONE]
    [first, second] = sorted(await store.outboxes(["acme/1", "acme/2", "acme/3"]), key=lambda one: one.id)
    assert (first.id, first.uid, first.fence, first.generation) == ("acme/1", "uid of acme/1", 1, 1)
    assert (first.token, first.trace, first.replies, first.replies_n) == ("t1", "00-1", (HERE,), 1)
    assert (first.result, first.row) == ({"status": "succeeded", "output": "first"}, row())
    assert (second.result, second.row) == ({"status": "failed"}, None)
    succeeded, kept = await world.document("acme/1"), await world.document("acme/2")
    assert (succeeded["state"], succeeded["owner"]) == ("succeeded", "us")
    assert "payload" not in succeeded
    assert kept["payload"] == b'{"body": {}}'
    assert "expire_at" not in succeeded


async def test_a_finish_repeated_after_a_lost_answer_is_done_and_keeps_what_is_stored(world: World) -> None:
    store = world.store("us")
    await store.insert([job()])
    with world.losing(store, "finish", executed=True), pytest.raises(StoreUnknownError):
        await store.finish([outcome()], "t1")
    other = outcome(result={"status": "succeeded", "output": "second"})
    assert await store.finish([other], "t1") == [Fate.DONE]
    [stored] = await store.outboxes(["acme/1"])
    assert stored.result["output"] == "first"


async def test_a_finish_repeated_after_its_outbox_was_cleared_is_done_and_makes_no_new_outbox(world: World) -> None:
    store = world.store("us")
    await finished(store)
    await store.published([Published("acme/1", "t1", 1)], EXPIRY)
    assert await store.finish([outcome()], "t1") == [Fate.DONE]
    assert await store.outboxes(["acme/1"]) == []


async def test_a_finish_that_was_not_executed_is_done_by_the_same_again(world: World) -> None:
    store = world.store("us")
    await store.insert([job()])
    with world.losing(store, "finish", executed=False), pytest.raises(StoreUnknownError):
        await store.finish([outcome()], "t1")
    assert (await store.read(["acme/1"]))["acme/1"].state == State.CLAIMED
    assert await store.finish([outcome()], "t1") == [Fate.DONE]


async def test_the_finish_of_a_fenced_worker_changes_nothing_while_its_neighbours_are_finished(world: World) -> None:
    us, zombie = world.store("us"), world.store("zombie")
    await us.start(30, {})
    await zombie.insert([job()])
    assert await us.sweep() == 1
    assert await zombie.finish([outcome()], "t1") == [Fate.FENCED]
    soon = datetime.now(UTC) + timedelta(seconds=5)
    assert len(await us.take(["acme/1"], "t", soon)) == 1
    await zombie.insert([job("acme/2")])
    assert await zombie.finish([outcome(), outcome("acme/2"), outcome("acme/absent")], "t1") == [
        Fate.FENCED,
        Fate.DONE,
        Fate.FENCED,
    ]
    known = (await us.read(["acme/1"]))["acme/1"]
    assert (known.state, known.owner, known.fence) == (State.CLAIMED, "us", 2)


def nested(levels: int) -> Document:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return {"output": value}


@pytest.mark.parametrize(
    "result",
    [
        {"output": "\ud800"},
        {"output": 1 << 63},
        {"output": {"a\x00b": 1}},
        {"output": "x" * 17_000_000},
        {"output": "x" * 12_000_000},
        nested(185),
        nested(300),
        nested(20_000),
    ],
    ids=["text", "int", "key", "17MB", "12MB", "185-levels", "300-levels", "20000-levels"],
)
async def test_one_result_that_cannot_be_stored_is_refused_alone_and_can_be_finished_otherwise(
    world: World, result: Document
) -> None:
    store = world.store("us")
    ids = [f"acme/{n}" for n in range(10)]
    await store.insert([job(id_) for id_ in ids])
    outcomes = [outcome(id_) for id_ in ids]
    outcomes[3] = outcome("acme/3", result=result)
    assert await store.finish(outcomes, "t1") == [*[Fate.DONE] * 3, Fate.REFUSED, *[Fate.DONE] * 6]
    assert (await store.read(["acme/3"]))["acme/3"].state == State.CLAIMED
    assert await store.finish([outcome("acme/3", state="failed")], "t2") == [Fate.DONE]


async def test_a_result_comes_back_as_it_was_stored(world: World) -> None:
    schema = {"$ref": "#/$defs/a", "$id": "x", "other": [{"$ref": 5, "$id": {"$ref": "b", "$id": 1}}]}
    output = {"$set": {"a.b": 1}, "": [schema], "$db": None, "text": "\x00 é 漢", "n": 1.5, "deep": nested(150)}
    result = {"output": output, "cost_usd": Decimal128("0.0002076"), "finished_at": NOW.replace(microsecond=123_000)}
    store = world.store("us")
    await store.insert([job()])
    assert await store.finish([outcome(result=result)], "t1") == [Fate.DONE]
    [stored] = await store.unpublished(1, of_the_dead=False)
    assert stored.result == result


# -- ledger, publishing -----------------------------------------------------------------------------------------------


async def test_a_row_that_is_there_already_is_done(world: World) -> None:
    store = world.store("us")
    assert await store.ledger([row("a"), row("b")]) == [Insertion.INSERTED] * 2
    assert await store.ledger([row("b"), row("c")]) == [Insertion.DUPLICATE, Insertion.INSERTED]
    assert await world.ledger() == {"a", "b", "c"}


async def test_a_row_stays_as_it_was_with_its_job_and_one_made_of_it_is_another(world: World) -> None:
    store, billed = world.store("us"), row("a")
    assert await store.insert([job("acme/1")]) == [Insertion.INSERTED]
    assert await store.finish([outcome(row=billed)], "t1") == [Fate.DONE]
    [stored] = await store.unpublished(1, of_the_dead=False)
    assert stored.row == billed
    assert await store.ledger([{**billed, "billed": False, "untold": True}]) == [Insertion.INSERTED]
    assert await store.untold(1, of_the_dead=False) == [{**billed, "billed": False}]


async def test_rows_whose_answer_was_lost_are_written_again_without_harm(world: World) -> None:
    store = world.store("us")
    with world.losing(store, "ledger", executed=True), pytest.raises(StoreUnknownError):
        await store.ledger([row("a")])
    assert await store.ledger([row("a")]) == [Insertion.DUPLICATE]


async def test_one_row_that_the_ledger_does_not_take_is_refused_alone(world: World) -> None:
    store = world.store("us")
    rows = [row("a"), row("b", cost_usd=0.1), row("c", input_tokens=1 << 70), row("d")]
    outcomes = [Insertion.INSERTED, Insertion.REFUSED, Insertion.REFUSED, Insertion.INSERTED]
    assert await store.ledger(rows) == outcomes
    assert await world.ledger() == {"a", "d"}


async def test_a_row_is_untold_until_its_mark_is_taken_away(world: World) -> None:
    store = world.store("us")
    rows = [row("a", untold=True), row("b"), row("c", untold=True), row("theirs", untold=True, incarnation="others")]
    await store.ledger(rows)
    assert await store.untold(10, of_the_dead=False) == [row("a"), row("c")]
    assert len(await store.untold(1, of_the_dead=False)) == 1
    await store.told(["a", "absent"])
    await store.told(["a", "b"])
    assert await store.untold(10, of_the_dead=False) == [row("c")]
    await store.told([])
    assert await world.ledger() == {"a", "b", "c", "theirs"}


async def test_a_row_that_is_written_again_after_it_was_told_stays_told(world: World) -> None:
    store = world.store("us")
    await store.ledger([row("a", untold=True)])
    await store.told(["a"])
    assert await store.ledger([row("a", untold=True)]) == [Insertion.DUPLICATE]
    assert await store.untold(10, of_the_dead=False) == []


async def test_the_untold_rows_of_the_dead_are_those_of_incarnations_that_are_fenced_or_without_a_lease(
    world: World,
) -> None:
    us, living = world.store("us"), world.store("living")
    await us.start(30, {})
    await living.start(30, {})
    fenced = await dead(world, "fenced", us)
    for store in (us, living, fenced, world.store("without a lease")):
        await store.ledger([row(f"{store.owner}'s", incarnation=store.owner, untold=True)])
    found = await us.untold(10, of_the_dead=True)
    assert sorted(one["_id"] for one in found) == ["fenced's", "without a lease's"]


async def test_a_mark_whose_taking_away_was_lost_is_taken_away_by_the_same_again(world: World) -> None:
    store = world.store("us")
    await store.ledger([row("a", untold=True)])
    with world.losing(store, "told", executed=False), pytest.raises(StoreUnknownError):
        await store.told(["a"])
    assert await store.untold(10, of_the_dead=False) == [row("a")]
    await store.told(["a"])
    assert await store.untold(10, of_the_dead=False) == []


async def test_an_outbox_is_cleared_once_and_only_then_the_document_expires(world: World) -> None:
    store = world.store("us")
    await finished(store)
    await finished(store, "acme/2", "t2")
    done = [Published("acme/1", "t1", 1), Published("acme/2", "t2", 1)]
    assert await store.published(done, EXPIRY) == []
    for id_ in ("acme/1", "acme/2"):
        document = await world.document(id_)
        assert "outbox" not in document
        assert document["expire_at"] == EXPIRY
    assert await store.published(done, EXPIRY) == []
    assert await store.unpublished(10, of_the_dead=False) == []


async def test_an_outbox_whose_clearing_was_lost_is_cleared_by_the_same_again(world: World) -> None:
    store = world.store("us")
    await finished(store)
    with world.losing(store, "published", executed=True), pytest.raises(StoreUnknownError):
        await store.published([Published("acme/1", "t1", 1)], EXPIRY)
    assert await store.published([Published("acme/1", "t1", 1)], EXPIRY) == []


async def test_a_repeated_clear_does_not_swallow_a_later_outbox(world: World) -> None:
    store = world.store("us")
    await finished(store)
    await store.published([Published("acme/1", "t1", 1)], EXPIRY)
    assert await store.add_reply("acme/1", HERE, "t2")
    assert await store.published([Published("acme/1", "t1", 1)], EXPIRY) == []
    document = await world.document("acme/1")
    assert document["outbox"] == "t2"
    assert "expire_at" not in document


async def test_what_got_a_new_address_while_it_was_published_has_to_be_published_again(world: World) -> None:
    store = world.store("us")
    await store.insert([job(), job("acme/2")])
    assert not await store.add_reply("acme/1", THERE, "unused")
    await store.finish([outcome(), outcome("acme/2")], "t1")
    done = [Published("acme/1", "t1", 1), Published("acme/2", "t1", 1)]
    assert await store.published(done, EXPIRY) == ["acme/1"]
    [again] = await store.outboxes(["acme/1", "acme/2"])
    assert again.replies == (HERE, THERE)
    assert await store.published([Published(again.id, again.token, again.replies_n)], EXPIRY) == []


async def test_everybody_publishes_his_own_and_that_of_the_dead_but_never_of_the_living(world: World) -> None:
    us, living = world.store("us"), world.store("living")
    await us.start(30, {})
    await living.start(30, {})
    fenced = await dead(world, "fenced", us)
    for store, id_ in ((us, "acme/ours"), (living, "acme/living"), (fenced, "acme/fenced")):
        await finished(store, id_)
    await finished(world.store("without a lease"), "acme/leaseless")
    assert [one.id for one in await us.unpublished(10, of_the_dead=False)] == ["acme/ours"]
    assert {one.id for one in await us.unpublished(10, of_the_dead=True)} == {"acme/fenced", "acme/leaseless"}
    assert len(await us.unpublished(1, of_the_dead=True)) == 1


# -- replies, stubs, cancels ------------------------------------------------------------------------------------------


async def test_an_address_is_added_once_and_the_oldest_of_five_goes(world: World) -> None:
    store = world.store("us")
    await store.insert([job()])
    for address in (HERE, THERE, THERE, Address("results.$a"), Address("results.c", 1)):
        assert not await store.add_reply("acme/1", address, "unused")
    known = (await store.read(["acme/1"]))["acme/1"]
    assert known.replies == (HERE, THERE, Address("results.$a"), Address("results.c", 1))
    await store.add_reply("acme/1", Address("results.d"), "unused")
    known = (await store.read(["acme/1"]))["acme/1"]
    assert known.replies == (THERE, Address("results.$a"), Address("results.c", 1), Address("results.d"))
    assert known.outbox is None


async def test_a_terminal_job_sends_its_result_again_to_an_address_that_it_knows(world: World) -> None:
    store = world.store("us")
    await finished(store)
    await store.published([Published("acme/1", "t1", 1)], EXPIRY)
    assert await world.store("others").add_reply("acme/1", HERE, "t2")
    [again] = await store.outboxes(["acme/1"])
    assert (again.token, again.replies, again.replies_n) == ("t2", (HERE,), 1)
    assert [one.token for one in await store.unpublished(10, of_the_dead=False)] == ["t2"]


async def test_a_stub_is_no_job_until_it_is_merged_and_keeps_its_marks(world: World) -> None:
    store = world.store("us")
    await store.cancel("acme/1", 7, "too late")
    assert not await store.add_reply("acme/1", THERE, "unused")
    assert await store.insert([job()]) == [Insertion.DUPLICATE]
    assert (await store.read(["acme/1"]))["acme/1"].state == State.ANNOUNCED
    claim = await store.merge(job(payload=b"real", batch_id="$b"))
    assert claim is not None
    assert (claim.fence, claim.generation, claim.payload, claim.cancel) == (1, 1, b"real", "too late")
    assert (claim.replies, claim.batch_id, claim.called, claim.takeovers) == ((THERE, HERE), "$b", False, 0)
    assert await store.merge(job(payload=b"other")) is None
    assert "expire_at" not in await world.document("acme/1")
    assert await store.finish([outcome()], "t") == [Fate.DONE]


async def test_a_stub_of_a_reply_alone_is_merged_with_its_address(world: World) -> None:
    store = world.store("us")
    assert not await store.add_reply("acme/1", THERE, "unused")
    claim = await store.merge(job())
    assert claim is not None
    assert (claim.replies, claim.replies_n, claim.cancel) == ((THERE, HERE), 2, None)
    assert await store.merge(job("acme/absent")) is None


async def test_a_stub_can_be_merged_as_waiting_and_a_cancelled_one_is_due_now(world: World) -> None:
    store = world.store("us")
    await store.cancel("acme/1", 7, "")
    await store.add_reply("acme/2", THERE, "unused")
    later: Document = {"due_at": LATER, "why_waiting": "scheduled"}
    assert await store.merge(job(**later)) is None
    assert await store.merge(job("acme/2", **later)) is None
    soon = datetime.now(UTC) + timedelta(seconds=5)
    [claim] = await store.take(["acme/1", "acme/2"], "t", soon)
    assert (claim.id, claim.cancel, claim.fence) == ("acme/1", "", 2)
    assert (await world.document("acme/2"))["due_at"] == LATER


async def test_a_merge_whose_answer_was_lost_is_adopted(world: World) -> None:
    store = world.store("us")
    await store.cancel("acme/1", 7, "x")
    with world.losing(store, "merge", executed=True), pytest.raises(StoreUnknownError):
        await store.merge(job())
    assert await store.merge(job()) is None
    known = (await store.read(["acme/1"]))["acme/1"]
    assert (known.state, known.owner, known.fence) == (State.CLAIMED, "us", 1)
    claim = await store.adopt("acme/1", 1)
    assert claim is not None
    assert claim.cancel == "x"


async def test_a_cancel_makes_a_waiting_job_due_now(world: World) -> None:
    store = world.store("us")
    await store.insert([waiting_job(due_at=LATER)])
    await store.cancel("acme/1", 7, "enough")
    [claim] = await store.take(["acme/1"], "t", datetime.now(UTC) + timedelta(seconds=5))
    assert claim.cancel == "enough"


async def test_a_cancel_is_refused_when_a_later_control_record_was_there(world: World) -> None:
    store = world.store("us")
    await store.insert([job()])
    for seq, reason in ((7, "seventh"), (6, "sixth"), (7, "seventh again")):
        await store.cancel("acme/1", seq, reason)
    assert await store.cancelled() == [("acme/1", "seventh")]
    await store.cancel("acme/1", 8, "eighth")
    assert await store.cancelled() == [("acme/1", "eighth")]


async def test_owners_find_the_cancels_of_their_own_claimed_jobs_only(world: World) -> None:
    store = world.store("us")
    await store.insert([job(), waiting_job("acme/2", due_at=LATER), job("acme/3")])
    await world.store("others").insert([job("acme/theirs")])
    for id_ in ("acme/1", "acme/2", "acme/theirs", "acme/stub"):
        await store.cancel(id_, 1, "")
    assert await store.cancelled() == [("acme/1", "")]


# -- rerun ------------------------------------------------------------------------------------------------------------


async def failed(store: ControlStore, id_: str = "acme/1", *, out: bool = True) -> None:
    """A job that has failed; its result is out, or on its way."""
    await store.insert([job(id_)])
    await store.mark_called(id_, 1)
    assert await store.finish([outcome(id_, state="failed", row=row(), keep_payload=True)], "t1") == [Fate.DONE]
    if out:
        await store.published([Published(id_, "t1", 1)], EXPIRY)


async def test_a_failed_job_is_run_again_as_the_next_generation_under_a_later_fence(world: World) -> None:
    store, soon = world.store("us"), datetime.now(UTC) + timedelta(seconds=5)
    await store.start(30, {})
    await world.store("without a lease").insert([job()])
    await store.sweep()
    await store.take(["acme/1"], "t", soon)
    assert await store.wait([put_back(fence=2, attempts=2, due_at=soon)]) == [Fate.DONE]
    await store.take(["acme/1"], "t", soon)
    assert await store.mark_called("acme/1", 3) == Fate.DONE
    assert await store.finish([outcome(fence=3, state="failed", row=row(), keep_payload=True)], "t1") == [Fate.DONE]
    await store.published([Published("acme/1", "t1", 1)], EXPIRY)
    assert await store.rerun("acme/1", 7) is None
    document = await world.document("acme/1")
    assert (document["state"], document["owner"], document["why_waiting"]) == (State.WAITING, None, "rerun")
    assert not {"result", "row", "called", "expire_at", "outbox", "finished_at", "cancel"} & document.keys()
    [claim] = await store.take(["acme/1"], "t", soon)
    assert (claim.generation, claim.fence, claim.attempts, claim.takeovers) == (2, 4, 0, 0)
    assert (claim.uid, claim.payload, claim.called, claim.replies) == ("uid of acme/1", b'{"body": {}}', False, (HERE,))
    assert claim.arrived_at != NOW  # its time begins anew
    assert await store.finish([outcome(fence=3)], "late") == [Fate.FENCED]
    assert await store.finish([outcome(fence=4)], "t2") == [Fate.DONE]
    [again] = await store.outboxes(["acme/1"])
    assert again.generation == 2


async def test_a_rerun_forgets_what_stood_in_the_way_of_the_generation_before(world: World) -> None:
    store = world.store("us")
    await store.insert([job()])
    await store.wait([put_back(last_failure="rate_limited")])
    await take(store, "acme/1")
    await store.finish([outcome(fence=2, state="expired", keep_payload=True)], "t1")
    await store.published([Published("acme/1", "t1", 1)], EXPIRY)
    assert await store.rerun("acme/1", 7) is None
    [claim] = await store.take(["acme/1"], "t", datetime.now(UTC) + timedelta(seconds=5))
    assert (claim.generation, claim.last_failure) == (2, None)


async def test_a_rerun_is_done_once_and_not_after_a_later_control_record(world: World) -> None:
    store = world.store("us")
    await failed(store)
    await store.rerun("acme/1", 7)
    assert await store.rerun("acme/1", 7) is None
    assert (await world.document("acme/1"))["generation"] == 2
    await store.cancel("acme/1", 9, "enough")
    [claim] = await store.take(["acme/1"], "t", datetime.now(UTC) + timedelta(seconds=5))
    await store.finish([outcome(fence=claim.fence, state="cancelled", keep_payload=True)], "t2")
    await store.published([Published("acme/1", "t2", 1)], EXPIRY)
    assert await store.rerun("acme/1", 8) is None
    assert (await world.document("acme/1"))["generation"] == 2
    assert await store.rerun("acme/1", 10) is None
    assert (await world.document("acme/1"))["generation"] == 3


async def test_what_cannot_run_again_is_refused_with_the_reason(world: World) -> None:
    store = world.store("us")
    await store.insert([job("acme/running"), waiting_job("acme/waits")])
    await finished(store, "acme/done")
    await store.published([Published("acme/done", "t1", 1)], EXPIRY)
    await store.cancel("acme/stub", 1, "")
    assert [await store.rerun(f"acme/{name}", 7) for name in ("running", "waits", "done", "stub", "absent")] == [
        Code.NOT_ENDED,
        Code.NOT_ENDED,
        Code.ALREADY_SUCCEEDED,
        Code.UNKNOWN_JOB,
        Code.UNKNOWN_JOB,
    ]
    assert (await world.document("acme/done"))["generation"] == 1


async def test_a_job_whose_result_is_on_its_way_is_run_again_when_that_is_out(world: World) -> None:
    store = world.store("us")
    await failed(store, out=False)
    assert await store.rerun("acme/1", 7) is None
    assert await store.rerun_published() == 0
    assert (await world.document("acme/1"))["generation"] == 1
    await store.published([Published("acme/1", "t1", 1)], EXPIRY)
    assert await world.store("others").rerun_published() == 1
    assert await store.rerun_published() == 0
    document = await world.document("acme/1")
    assert (document["generation"], document["state"], document.get("rerun")) == (2, State.WAITING, None)


async def test_a_cancel_takes_back_a_rerun_that_has_not_begun(world: World) -> None:
    store = world.store("us")
    await failed(store, out=False)
    await store.rerun("acme/1", 7)
    assert await store.cancel("acme/1", 8, "no") is Code.ALREADY_ENDED
    await store.published([Published("acme/1", "t1", 1)], EXPIRY)
    assert await store.rerun_published() == 0


async def test_a_cancel_of_a_finished_job_says_so_once_and_leaves_it_alone(world: World) -> None:
    store = world.store("us")
    await finished(store)
    assert await store.cancel("acme/1", 7, "late") is Code.ALREADY_ENDED
    assert await store.cancel("acme/1", 7, "late") is None
    document = await world.document("acme/1")
    assert (document["state"], document.get("cancel"), document["outbox"]) == ("succeeded", None, "t1")


async def test_cancelled_jobs_that_wait_are_found_whatever_they_wait_for(world: World) -> None:
    store = world.store("us")
    await store.insert([job("acme/claimed"), waiting_job("acme/late", due_at=LATER), waiting_job("acme/other")])
    await store.cancel("acme/claimed", 1, "")
    await store.cancel("acme/stub", 1, "")
    await store.cancel("acme/late", 1, "")
    assert await store.cancelled_waiting(10) == ["acme/late"]


async def clock_past(instant: datetime) -> None:
    """Wait until the clock that database and test share has left a millisecond behind."""
    for _ in range(1_000):
        if datetime.now(UTC) > instant + timedelta(milliseconds=1):
            return
        await asyncio.sleep(0.001)


async def test_waiting_jobs_are_overdue_whatever_they_wait_for_and_can_then_be_taken(world: World) -> None:
    store = world.store("us")
    late = [waiting_job("acme/queued", deadline=PAST), waiting_job("beta/parked", deadline=NOW, due_at=LATER)]
    await store.insert([*late, waiting_job("acme/in-time", deadline=LATER), waiting_job("acme/rerun")])
    await store.insert([job("acme/claimed", deadline=PAST), job("acme/put-back")])
    await store.wait([put_back("acme/put-back", deadline=PAST)])
    overdue = await store.overdue(NOW, 10)
    assert sorted(overdue) == ["acme/put-back", "acme/queued", "beta/parked"]
    assert len(await store.overdue(NOW, 2)) == 2
    assert len(await take(store, *overdue)) == 3
    assert await store.overdue(NOW, 10) == []


async def test_a_rerun_forgets_the_deadline_of_the_generation_before(world: World) -> None:
    store = world.store("us")
    await store.insert([job(deadline=PAST)])
    await store.finish([outcome(state="expired", keep_payload=True)], "t1")
    await store.published([Published("acme/1", "t1", 1)], EXPIRY)
    await store.rerun("acme/1", 1)
    assert await store.overdue(NOW, 10) == []


# -- halts ------------------------------------------------------------------------------------------------------------


async def test_the_last_word_on_a_scope_holds(world: World) -> None:
    store = world.store("us")
    await store.halt("acme", HaltKind.PAUSED, 7, reason="too dear")
    await store.halt(EVERYTHING, HaltKind.PAUSED, 3)
    [everything, acme] = sorted(await store.halts(), key=lambda halt: halt.scope)
    assert (everything.scope, everything.kind, everything.reason) == (EVERYTHING, HaltKind.PAUSED, "")
    assert (acme.scope, acme.kind, acme.seq, acme.reason) == ("acme", HaltKind.PAUSED, 7, "too dear")
    await store.halt("acme", None, 6)
    await store.halt("acme", None, 7)
    assert {halt.scope for halt in await store.halts()} == {EVERYTHING, "acme"}
    await world.store("others").halt("acme", None, 8)
    assert {halt.scope for halt in await store.halts()} == {EVERYTHING}
    await store.halt("acme", HaltKind.PAUSED, 7)
    assert {halt.scope for halt in await store.halts()} == {EVERYTHING}


async def test_a_halt_whose_answer_was_lost_is_written_again_without_harm(world: World) -> None:
    store = world.store("us")
    with world.losing(store, "halt", executed=True), pytest.raises(StoreUnknownError):
        await store.halt("acme", HaltKind.PAUSED, 7)
    [before] = await store.halts()
    await store.halt("acme", HaltKind.PAUSED, 7)
    assert await store.halts() == [before]


async def test_a_cancelled_batch_marks_all_of_its_jobs_that_go_on(world: World) -> None:
    store = world.store("us")
    await store.insert([job("acme/1", batch_id="b"), waiting_job("acme/2", batch_id="b", due_at=LATER)])
    await store.insert([job("acme/other", batch_id="c"), job("beta/1", batch_id="b"), job("acme/done", batch_id="b")])
    await store.finish([outcome("acme/done")], "t")
    await store.halt("acme/b", HaltKind.CANCELLED, 7, reason="enough")
    [halt] = await store.halts()
    assert not halt.applied
    await store.apply(halt)
    [halt] = await store.halts()
    assert halt.applied
    await store.halt("acme/b", HaltKind.CANCELLED, 8, reason="enough")
    assert [again.applied for again in await store.halts()] == [False]
    assert await store.cancelled() == [("acme/1", "enough")]
    assert await store.cancelled_waiting(10) == ["acme/2"]
    [claim] = await store.take(["acme/2"], "t", datetime.now(UTC) + timedelta(seconds=5))
    assert claim.cancel == "enough"
    assert "cancel" not in await world.document("acme/done")
    assert await store.cancel("acme/1", 0, "a job's own records are counted apart") is None
    assert await store.cancelled() == [("acme/1", "a job's own records are counted apart"), ("acme/2", "enough")]


async def test_a_cancelled_batch_leaves_alone_what_was_run_again_afterwards(world: World) -> None:
    store = world.store("us")
    await store.insert([job("acme/1", batch_id="b"), job("acme/2", batch_id="b")])
    failures = [outcome(f"acme/{n}", state="failed", keep_payload=True) for n in (1, 2)]
    await store.finish(failures, "t1")
    await store.published([Published("acme/1", "t1", 1), Published("acme/2", "t1", 1)], EXPIRY)
    await store.rerun("acme/1", 7)
    before = (await world.document("acme/1"))["arrived_at"]
    await clock_past(before)
    await store.halt("acme/b", HaltKind.CANCELLED, 7)
    [halt] = await store.halts()
    await clock_past(halt.at)
    await store.rerun("acme/2", 7)
    await store.apply(halt)
    assert await store.cancelled_waiting(10) == ["acme/1"]
    assert [halt.meets(1, LATER), halt.meets(2, before), halt.meets(2, LATER)] == [True, True, False]


async def test_jobs_of_a_paused_batch_wait_for_it_and_are_due_in_their_order_afterwards(world: World) -> None:
    store = world.store("us")
    jobs = [waiting_job(f"acme/{n}", batch_id="b", arrived_at=PAST + timedelta(minutes=n)) for n in range(4)]
    await store.insert([*jobs, waiting_job("acme/free", batch_id="c"), waiting_job("acme/gone", batch_id="b")])
    await store.insert([waiting_job("acme/new", batch_id="b", due_at=NEVER, wait_key="paused:acme/b")])
    await store.cancel("acme/gone", 1, "")
    ids = [*(f"acme/{n}" for n in range(4)), "acme/free", "acme/gone", "acme/absent"]
    assert await store.park(ids, "acme/b") == 4
    assert {claim.id for claim in await store.take(ids, "t", LATER)} == {"acme/free", "acme/gone"}
    assert (await world.document("acme/1"))["why_waiting"] == "paused"
    assert await store.parked() == ["acme/b"]
    assert await store.unpark("acme/b", 3) == 3
    assert await store.parked() == ["acme/b"]
    assert await store.unpark("acme/b", 3) == 2
    assert await store.unpark("acme/b", 3) == 0
    assert await store.parked() == []
    assert await store.due("normal", "acme", NOW, 10) == [*(f"acme/{n}" for n in range(4)), "acme/new"]


async def test_what_is_due_of_a_paused_batch_is_put_aside_at_once_and_nothing_else(world: World) -> None:
    store, early = world.store("us"), datetime.now(UTC) - timedelta(hours=1)
    await store.insert([waiting_job(f"acme/{n}", batch_id="b", due_at=early) for n in range(3)])
    await store.insert([waiting_job("acme/late", batch_id="b", due_at=LATER), job("acme/claimed", batch_id="b")])
    await store.insert([waiting_job("acme/free", batch_id="c", due_at=early), waiting_job("acme/gone", batch_id="b")])
    await store.cancel("acme/gone", 1, "")
    await store.halt("acme/b", HaltKind.PAUSED, 7)
    [halt] = await store.halts()
    await store.apply(halt)
    [halt] = await store.halts()
    assert halt.applied
    soon = datetime.now(UTC) + timedelta(seconds=5)
    assert set(await store.due("normal", "acme", soon, 10)) == {"acme/free", "acme/gone"}
    assert await store.unpark("acme/b", 10) == 3
    assert (await world.document("acme/late"))["due_at"] == LATER


# -- batches ----------------------------------------------------------------------------------------------------------

SEAL = Seal("acme/b", "acme", "b", total=3, reply=THERE, seq=7, max_cost_usd=Decimal("0.25"), max_errors=2)


async def test_the_last_seal_of_a_batch_is_looked_at_by_one_worker_at_a_time(world: World) -> None:
    store, others = world.store("us"), world.store("others")
    soon = datetime.now(UTC) + timedelta(seconds=5)
    assert await store.look(soon, LATER) is None
    assert await store.seal(SEAL) is None
    assert await store.seal(replace(SEAL, total=4, seq=6)) is None
    assert await store.look(soon, LATER) == Sealed(SEAL)
    assert await others.look(soon, LATER) is None
    await store.watch(Sealed(SEAL, ended=2, pause_s=4.0), soon)
    assert await others.look(soon, LATER) == Sealed(SEAL, ended=2, pause_s=4.0)
    again = replace(SEAL, total=5, reply=None, max_error_rate=0.5, seq=8)
    assert await store.seal(again) is None
    await others.watch(Sealed(SEAL, ended=3, pause_s=4.0), LATER)
    assert await store.look(soon, LATER) == Sealed(again)
    await store.watch(Sealed(again), soon)
    await others.unwatch(SEAL)
    assert await store.look(soon, soon) is not None
    await others.unwatch(again)
    assert await store.look(soon, soon) is None


async def test_a_seal_with_a_smaller_total_than_arrived_is_refused_and_the_one_before_stays(world: World) -> None:
    store = world.store("us")
    await store.seal(replace(SEAL, seq=5))
    await store.insert([job(f"acme/{n}", batch_id="b") for n in range(4)])
    assert await store.seal(replace(SEAL, seq=7)) is Code.TOTAL_TOO_SMALL
    assert await store.seal(replace(SEAL, seq=4)) is None
    sealed = await store.look(datetime.now(UTC) + timedelta(seconds=5), LATER)
    assert sealed is not None
    assert sealed.seal.seq == 5
    assert await store.seal(replace(SEAL, total=4, seq=8)) is None


async def test_a_batch_is_counted_by_state_and_by_what_its_tenant_pays(world: World) -> None:
    store = world.store("us")
    assert await store.counts("acme/b") == {}
    assert await store.billed("acme", "b") == 0
    await store.insert([job(f"acme/{n}", batch_id="b") for n in range(3)])
    await store.insert([job("acme/other", batch_id="c"), job("beta/1", batch_id="b")])
    await store.finish([outcome("acme/1")], "t")
    rows = [row("1", batch_id="b"), row("2", batch_id="b", cost_usd=Decimal128("0.1"))]
    others = [
        row("3", batch_id="b", billed=False),
        row("4", batch_id="b", tenant="beta"),
        row("5", batch_id="c"),
        row("6"),
    ]
    await store.ledger([*rows, *others])
    assert await store.counts("acme/b") == {State.CLAIMED: 2, "succeeded": 1}
    assert [await store.any_unpublished(f"acme/{batch}") for batch in ("b", "c")] == [True, False]
    await store.published([Published("acme/1", "t", 1)], EXPIRY)
    assert not await store.any_unpublished("acme/b")
    assert await store.billed("acme", "b") == Decimal("0.1002076")


async def test_a_batch_over_a_limit_is_halted_until_it_is_sealed_again(world: World) -> None:
    store = world.store("us")
    await store.seal(SEAL)
    await store.limit(replace(SEAL, seq=6), "an old seal's")
    assert await store.halts() == []
    await store.limit(SEAL, "3 jobs failed")
    await store.limit(SEAL, "4 jobs failed")
    [halt] = await store.halts()
    assert (halt.scope, halt.kind, halt.reason, halt.applied) == ("acme/b", HaltKind.LIMITED, "3 jobs failed", False)
    await store.insert([waiting_job("acme/1", batch_id="b", due_at=LATER), job("acme/2", batch_id="b")])
    await store.apply(halt)
    [halt] = await store.halts()
    assert halt.applied
    assert len(await store.take(["acme/1"], "t", datetime.now(UTC) + timedelta(seconds=5))) == 1
    assert await store.cancelled() == []
    sealed = await store.look(datetime.now(UTC) + timedelta(seconds=5), LATER)
    assert sealed == Sealed(SEAL, limited="3 jobs failed")
    await store.seal(replace(SEAL, seq=8))
    assert await store.halts() == []


async def test_a_completion_event_has_one_content(world: World) -> None:
    store, others = world.store("us"), world.store("others")
    await store.seal(SEAL)
    event = {"batch_id": "b", "cost_usd": Decimal128("0.25"), "states": {"succeeded": 3}}
    assert await store.complete(SEAL, event) == event
    assert await others.complete(SEAL, {**event, "states": {"succeeded": 2}}) == event
    sealed = await store.look(datetime.now(UTC) + timedelta(seconds=5), LATER)
    assert sealed is not None
    assert sealed.event == event
    await store.seal(replace(SEAL, seq=8))
    assert await store.complete(SEAL, event) is None


# -- leases -----------------------------------------------------------------------------------------------------------


async def test_a_living_lease_is_renewed_and_never_counts_as_run_out(world: World) -> None:
    us, others = world.store("us"), world.store("others")
    await us.start(30, {"host": "here"})
    await us.start(30, {"host": "here"})
    await others.start(0.6, {})
    assert await us.renew(30) is Standing.LIVING
    await expired(us, "others")
    assert [lease.incarnation for lease in await us.expired_leases()] == ["others"]
    assert await others.expired_leases() == []


async def test_a_renewal_never_makes_a_lease(world: World) -> None:
    store = world.store("us")
    assert await store.renew(30) is Standing.FENCED
    await store.start(30, {})
    await store.stop()
    assert await store.renew(30) is Standing.FENCED


async def test_who_was_asked_to_drain_reads_it_in_every_later_renewal(world: World) -> None:
    us, other = world.store("us"), world.store("other")
    await us.start(30, {})
    await other.start(30, {})
    await world.ask_to_drain("us")
    assert [await us.renew(30) for _ in range(2)] == [Standing.DRAINING] * 2
    assert await other.renew(30) is Standing.LIVING


async def test_what_is_told_with_a_renewal_stands_beside_the_lease_until_something_else_is_told(world: World) -> None:
    store = world.store("us")
    await store.start(30, {"host": "here"})
    told = {"running": 3, "starts": [{"priority": "normal", "tenant": "a.$b", "per_s": 0.5}], "text": "$$NOW"}
    await store.renew(30, told)
    first = await world.lease("us")
    assert abs(first["told"].pop("at") - datetime.now(UTC)) < timedelta(seconds=10)
    assert (first["told"], first["host"]) == (told, "here")
    await store.renew(30)
    assert (await world.lease("us"))["told"]["running"] == 3
    await store.renew(30, {"running": 0})
    last = (await world.lease("us"))["told"]
    assert last.keys() == {"running", "at"}
    assert (await world.lease("us"))["until"] > first["until"]


async def test_a_late_fence_does_not_fence_the_living(world: World) -> None:
    us, slow = world.store("us"), world.store("slow")
    await slow.start(0.6, {})
    await slow.renew(0.01)
    lease = await expired(us, "slow")
    assert await slow.renew(30) is Standing.LIVING
    assert not await us.fence(lease)
    assert await slow.renew(30) is Standing.LIVING


async def test_death_is_for_ever_and_declared_once(world: World) -> None:
    us = world.store("us")
    slow = world.store("slow")
    await slow.start(0.6, {})
    await slow.renew(0.01)
    lease = await expired(us, "slow")
    assert await us.fence(lease)
    assert not await us.fence(lease)
    assert await slow.renew(30, {"running": 1}) is Standing.FENCED
    assert "told" not in await world.lease("slow")
    assert await us.expired_leases() == []
    with pytest.raises(StoreUnknownError):
        await slow.start(30, {})
    assert not await us.fence(Lease("never was", PAST))


async def test_a_lease_says_since_when_it_is_fenced(world: World) -> None:
    us = world.store("us")
    await us.start(30, {})
    before = datetime.now(UTC) - timedelta(seconds=5)
    await dead(world, "gone", us)
    assert before < (await world.lease("gone"))["fenced_at"] < datetime.now(UTC) + timedelta(seconds=5)
    assert "fenced_at" not in await world.lease("us")


async def test_a_fenced_worker_whose_lease_was_removed_stays_dead(world: World) -> None:
    us = world.store("us")
    zombie = await dead(world, "zombie", us)
    await world.forget("zombie")
    await zombie.insert([job()])
    assert await zombie.renew(30) is Standing.FENCED
    assert await us.sweep() == 1
    assert await zombie.finish([outcome()], "t") == [Fate.FENCED]


async def test_a_sweep_puts_back_what_the_dead_hold_and_nothing_else(world: World) -> None:
    us, living = world.store("us"), world.store("living")
    await us.start(30, {})
    await living.start(30, {})
    fenced = await dead(world, "fenced", us)
    await us.insert([job("acme/ours")])
    await living.insert([job("acme/living")])
    await fenced.insert([job("acme/fenced"), waiting_job("acme/waits", due_at=LATER)])
    await fenced.mark_called("acme/fenced", 1)
    await finished(fenced, "acme/finished")
    await world.store("without a lease").insert([job("acme/leaseless")])
    assert await us.sweep() == 2
    assert await us.sweep() == 0
    swept = await world.document("acme/fenced")
    assert (swept["state"], swept["owner"], swept["fence"]) == (State.WAITING, None, 1)
    assert (swept["why_waiting"], swept["takeovers"]) == ("taken_over", 1)
    soon = datetime.now(UTC) + timedelta(seconds=5)
    claims = await us.take(["acme/fenced", "acme/leaseless", "acme/living", "acme/finished"], "t", soon)
    assert {(claim.id, claim.fence, claim.takeovers, claim.called) for claim in claims} == {
        ("acme/fenced", 2, 1, True),
        ("acme/leaseless", 2, 1, False),
    }
    known = await us.read(["acme/living", "acme/ours", "acme/waits"])
    assert [known[id_].state for id_ in sorted(known)] == [State.CLAIMED, State.CLAIMED, State.WAITING]


async def test_the_wait_of_a_worker_that_was_swept_is_fenced(world: World) -> None:
    zombie, us = world.store("zombie"), world.store("us")
    await us.start(30, {})
    await zombie.insert([job()])
    await us.sweep()
    assert await zombie.wait([put_back(due_at=LATER)]) == [Fate.FENCED]
    assert (await world.document("acme/1"))["why_waiting"] == "taken_over"


async def test_a_worker_that_starts_during_a_sweep_is_not_swept(
    mongo: MongoWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    us, new = mongo.store("us"), mongo.store("new")
    await mongo.store("gone").insert([job()])
    leases = us.the_dead

    async def a_worker_starts_meanwhile(owners: list[str]) -> list[str]:
        await new.start(30, {})
        await new.insert([job("acme/new")])
        return await leases(owners)

    monkeypatch.setattr(us, "the_dead", a_worker_starts_meanwhile)
    assert await us.sweep() == 1
    assert (await us.read(["acme/new"]))["acme/new"].owner == "new"


# -- MongoDB's own ----------------------------------------------------------------------------------------------------


async def test_an_update_that_no_one_executed_is_sent_again_by_its_caller(mongo: MongoWorld) -> None:
    """A claimed document under our own fence that did not match: only a race with a lost write leaves it so."""
    store = mongo.store("us")
    await store.insert([job()])
    write = store.write

    async def elsewhere(verb: str, _: str, statements: list[RawBSONDocument]) -> Written:
        return await write(verb, "elsewhere", statements)

    store.write = elsewhere  # type: ignore[method-assign,assignment]
    assert await store.finish([outcome()], "t") == [Fate.AGAIN]
    assert await store.wait([put_back()]) == [Fate.AGAIN]


VERBS: dict[str, Callable[[ControlStore], Any]] = {
    "start": lambda store: store.start(0.3, {}),
    "renew": lambda store: store.renew(0.3, {"running": 0}),
    "expired_leases": lambda store: store.expired_leases(),
    "fence": lambda store: store.fence(Lease("x", NOW)),
    "sweep": lambda store: store.sweep(),
    "stop": lambda store: store.stop(),
    "insert": lambda store: store.insert([job("acme/new")]),
    "read": lambda store: store.read(["acme/1"]),
    "merge": lambda store: store.merge(job()),
    "adopt": lambda store: store.adopt("acme/1", 1),
    "unheld": lambda store: store.unheld(10),
    "any_due": lambda store: store.any_due(NOW),
    "due_tenants": lambda store: store.due_tenants("normal", NOW),
    "due": lambda store: store.due("normal", "acme", NOW, 10),
    "take": lambda store: store.take(["acme/1"], "t", NOW),
    "mark_called": lambda store: store.mark_called("acme/1", 1),
    "wait": lambda store: store.wait([put_back()]),
    "release": lambda store: store.release("k", 10),
    "finish": lambda store: store.finish([outcome()], "t"),
    "ledger": lambda store: store.ledger([row()]),
    "untold": lambda store: store.untold(10, of_the_dead=False),
    "untold_of_the_dead": lambda store: store.untold(10, of_the_dead=True),
    "told": lambda store: store.told([row()["_id"]]),
    "unpublished": lambda store: store.unpublished(10, of_the_dead=False),
    "unpublished_of_the_dead": lambda store: store.unpublished(10, of_the_dead=True),
    "outboxes": lambda store: store.outboxes(["acme/1"]),
    "published": lambda store: store.published([Published("acme/1", "t", 1)], EXPIRY),
    "add_reply": lambda store: store.add_reply("acme/1", THERE, "t"),
    "cancel": lambda store: store.cancel("acme/1", 1, ""),
    "cancelled": lambda store: store.cancelled(),
    "overdue": lambda store: store.overdue(NOW, 10),
    "cancelled_waiting": lambda store: store.cancelled_waiting(10),
    "rerun": lambda store: store.rerun("acme/1", 1),
    "rerun_published": lambda store: store.rerun_published(),
    "halt": lambda store: store.halt("acme/b", HaltKind.CANCELLED, 1),
    "halts": lambda store: store.halts(),
    "apply": lambda store: store.apply(Halt("acme/b", HaltKind.CANCELLED, 1, "", NOW)),
    "apply_a_limit": lambda store: store.apply(Halt("acme/b", HaltKind.LIMITED, 1, "", NOW)),
    "apply_a_pause": lambda store: store.apply(Halt("beta/b", HaltKind.PAUSED, 1, "", NOW)),
    "park": lambda store: store.park(["beta/1"], "beta/b"),
    "parked": lambda store: store.parked(),
    "unpark": lambda store: store.unpark("beta/b", 10),
    "seal": lambda store: store.seal(Seal("acme/b", "acme", "b", 100, None, 1)),
    "look": lambda store: store.look(NOW, NOW),
    "counts": lambda store: store.counts("acme/b"),
    "any_unpublished": lambda store: store.any_unpublished("acme/b"),
    "billed": lambda store: store.billed("acme", "b"),
    "limit": lambda store: store.limit(Seal("acme/b", "acme", "b", 1, None, 1), "x"),
    "complete": lambda store: store.complete(Seal("acme/b", "acme", "b", 1, None, 1), {}),
    "watch": lambda store: store.watch(Sealed(Seal("acme/b", "acme", "b", 1, None, 1)), NOW),
    "unwatch": lambda store: store.unwatch(Seal("acme/b", "acme", "b", 1, None, 1)),
    "waiting": lambda store: store.waiting("normal", 10),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_a_database_that_does_not_answer_is_unknown(mongo: MongoWorld, verb: str) -> None:
    store = MongoStore(mongo.client[mongo.name], "us", timeout_s=0.05)
    block = {"failCommands": ALL_COMMANDS, "blockConnection": True, "blockTimeMS": 150}
    mongo.plain.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=block)
    try:
        with pytest.raises(StoreUnknownError):
            await VERBS[verb](store)
    finally:
        mongo.plain.admin.command("configureFailPoint", "failCommand", mode="off")


ALL_COMMANDS = ["find", "insert", "update", "delete", "findAndModify", "aggregate"]


async def test_every_query_uses_an_index(mongo: MongoWorld) -> None:
    us = mongo.store("us")
    database = mongo.plain[mongo.name]
    await us.start(30, {})
    await us.insert([job(f"acme/{n}") for n in range(20)])
    await us.insert([waiting_job(f"beta/{n}", batch_id="b") for n in range(20)])
    await us.wait([put_back(f"acme/{n}", wait_key="k") for n in range(5)])
    await us.finish([outcome(f"acme/{n}") for n in range(5, 10)], "t")
    database.command("profile", 2)
    try:
        for run in VERBS.values():
            await run(us)
    finally:
        database.command("profile", 0)
    seen = list(database["system.profile"].find({"ns": {"$regex": r"\.(jobs|usage|workers|halts|batches)$"}}))
    database.drop_collection("system.profile")
    assert len(seen) > len(VERBS)
    scans = [(one["op"], one["command"]) for one in seen if "COLLSCAN" in one.get("planSummary", "")]
    assert scans == []
    assert [one["command"] for one in seen if one.get("hasSortStage")] == []


async def test_halts_of_both_collections_are_one_question_that_reads_indexes_alone(mongo: MongoWorld) -> None:
    store = mongo.store("us")
    await store.start(30, {})
    for number in range(200):
        seal = Seal(f"acme/{number}", "acme", str(number), 1, None, 1)
        await store.seal(seal)
        if number < 150:
            await store.halt(f"beta/{number}", HaltKind.CANCELLED, 1)
            await store.limit(seal, "x")
    assert len(await store.halts()) == 300
    question: Document = {"aggregate": "halts", "pipeline": HALTED, "cursor": {}, "hint": "kind"}
    plan = str(mongo.plain[mongo.name].command("explain", question))
    assert plan.count("'IXSCAN'") >= 2
    assert "COLLSCAN" not in plan


async def test_the_server_removes_a_lease_a_day_after_it_was_fenced(mongo: MongoWorld) -> None:
    us, leases = mongo.store("us"), mongo.plain[mongo.name]["workers"]
    await us.start(30, {})
    await dead(mongo, "gone", us)
    index = leases.index_information()["fenced_at"]
    assert (index["key"], index["expireAfterSeconds"]) == ([("fenced_at", 1)], 86_400)
    assert [lease["_id"] for lease in leases.find({"fenced_at": {"$type": "date"}})] == ["gone"]


async def test_counting_what_waits_reads_the_index_and_no_document(mongo: MongoWorld) -> None:
    store, database = mongo.store("us"), mongo.plain[mongo.name]
    await store.insert([waiting_job(f"t{n % 7}/{n}", due_at=PAST - timedelta(minutes=n)) for n in range(200)])
    database.command("profile", 2)
    try:
        assert await store.waiting("normal", 1_000) == Backlog(
            200, PAST - timedelta(minutes=199), 200 * len(job().payload)
        )
    finally:
        database.command("profile", 0)
    [seen] = database["system.profile"].find({"command.aggregate": "jobs"})
    database.drop_collection("system.profile")
    assert seen["planSummary"].startswith("IXSCAN { state: 1, priority: 1")
    assert (seen["docsExamined"], seen["keysExamined"]) == (0, 200)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_task_that_is_cancelled_in_an_operation_ends(mongo: MongoWorld) -> None:
    store, chance = mongo.store("us"), random.Random(7)
    await store.start(30, {})

    async def work() -> int:
        await store.cancelled()
        await store.mark_called("acme/absent", 1)
        task = asyncio.current_task()
        return task.cancelling() if task is not None else 0

    for _ in range(60):
        task = asyncio.create_task(work())
        await asyncio.sleep(chance.uniform(0.0001, 0.004))
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled() or task.result() == 0
    gc.collect()  # sockets that the driver has left open: here, not in another test


async def test_results_are_a_view_of_their_own(mongo: MongoWorld) -> None:
    store = mongo.store("us")
    await store.insert([job("acme/running")])
    await finished(store)
    [result] = mongo.plain[mongo.name]["results"].find({})
    assert result == {"_id": "acme/1", "status": "succeeded", "output": "first"}


async def test_preparing_a_database_again_changes_nothing_but_what_differs(mongo: MongoWorld) -> None:
    database = mongo.plain[mongo.name]
    before = {name: database[name].index_information() for name in INDEXES}
    database.command("collMod", "usage", validator={})
    database.command("collMod", "results", viewOn="jobs", pipeline=[])
    await prepare(mongo.client[mongo.name])
    await asyncio.gather(*(prepare(mongo.client[mongo.name]) for _ in range(3)))
    assert {name: database[name].index_information() for name in INDEXES} == before
    assert database["usage"].options()["validator"] == USAGE_VALIDATOR
    assert database["results"].options()["pipeline"] == RESULTS_VIEW


async def test_a_database_that_several_processes_prepare_at_once_is_prepared(mongo: MongoWorld) -> None:
    name = f"{mongo.name}_new"
    try:
        await asyncio.gather(*(prepare(mongo.client[name]) for _ in range(4)))
        assert {"jobs", "results", "usage", "workers"} <= set(mongo.plain[name].list_collection_names())
    finally:
        mongo.plain.drop_database(name)


async def test_a_replica_set_passes_the_check(mongo: MongoWorld) -> None:
    await check(mongo.client)
