"""What is due is taken for those who are to be served next, but never under a lease that came into doubt while it was asked what is due."""

import asyncio
from collections import Counter
from datetime import UTC, datetime

import pytest

from tests.builders import a_claim, a_new_job, some_hands, some_settings
from tests.virtual_time import run
from workers.engine.hands import Hands
from workers.engine.taker import WITHOUT_ROOM, Taker
from workers.stores.control import NEVER, Halt, HaltKind
from workers.stores.memory import MemoryDatabase, MemoryStore
from workers.stores.protocol import State


class _Slow(MemoryStore):
    """Reading which jobs are due takes `read_s` seconds."""

    def __init__(self, read_s: float) -> None:
        super().__init__(MemoryDatabase(), "us")
        self.now, self.read_s = 0.0, read_s

    async def due(self, priority: str, tenant: str, now: datetime, limit: int) -> list[str]:
        self.now += self.read_s
        return await super().due(priority, tenant, now, limit)


async def round_of(store: _Slow) -> int:
    """How many of two due jobs a taker has after one round; its lease lives for 30 s."""
    hands = some_hands(store, lambda: store.now)
    await hands.leases.start({})
    await store.insert([a_new_job(name, due_at=datetime.now(UTC), why_waiting="queued") for name in ("1", "2")])
    await Taker(store, ["normal"], hands)._round()
    assert len(hands.registry) == len(hands.ready)
    return len(hands.ready)


async def test_what_is_due_is_taken() -> None:
    assert await round_of(_Slow(read_s=1.0)) == 2


async def test_nothing_is_taken_when_the_answer_what_is_due_took_longer_than_the_lease_allows() -> None:
    assert await round_of(_Slow(read_s=21.0)) == 0


class _Few:
    """A taker of a worker with room for 64 jobs, 16 of one tenant if it is alone, on a store in memory."""

    def __init__(self, ready: int = 64) -> None:
        settings = some_settings(worker={"ready": ready})
        self.store = MemoryStore(MemoryDatabase(), "us")
        self.hands: Hands = some_hands(self.store, asyncio.get_running_loop().time, settings)
        self.taker = Taker(self.store, self.hands.ready.priorities, self.hands)

    async def waits(self, count: int, tenant: str, priority: str = "normal") -> None:
        """Put jobs to wait; whoever inserts them says of whom they are."""
        now = datetime.now(UTC)
        names = [f"{priority}-{number}" for number in range(count)]
        jobs = [
            a_new_job(name, id=f"{tenant}/{name}", tenant=tenant, priority=priority, due_at=now, why_waiting="queued")
            for name in names
        ]
        await self.store.insert(jobs)
        self.hands.ready.fell_behind(priority, tenant)
        self.taker.wake()

    def served(self, count: int) -> Counter[str]:
        """How many of the next jobs are whose."""
        jobs = [self.hands.ready.pop() for _ in range(count)]
        return Counter(f"{job.claim.tenant} {job.claim.priority}" for job in jobs if job is not None)


def test_a_priority_with_much_waiting_leaves_room_for_the_others() -> None:
    async def life() -> Counter[str]:
        few = _Few()
        await few.hands.leases.start({})
        for priority in ("interactive", "normal", "batch"):
            await few.waits(1_000, "acme", priority)
        served: Counter[str] = Counter()
        for _ in range(130):
            await few.taker._round()
            served += few.served(1)
        return served

    served = run(life())
    shares = {name: count / 130 for name, count in served.items()}
    assert shares == {
        "acme interactive": pytest.approx(8 / 13, rel=0.1),
        "acme normal": pytest.approx(4 / 13, rel=0.1),
        "acme batch": pytest.approx(1 / 13, rel=0.1),
    }


def test_a_quiet_tenant_is_served_at_once_though_a_noisy_one_has_filled_its_room() -> None:
    async def life() -> tuple[int, Counter[str]]:
        few = _Few()
        await few.hands.leases.start({})
        await few.waits(1_000, "noisy")
        taking = asyncio.create_task(few.taker.run())
        await asyncio.sleep(5)
        few.served(100)
        await asyncio.sleep(5)
        full = len(few.hands.ready)
        await few.waits(4, "quiet")
        await asyncio.sleep(0.1)
        taking.cancel()
        await asyncio.wait({taking})
        return full, few.served(8)

    full, served = run(life())
    assert full == 16
    assert served == {"quiet normal": 4, "noisy normal": 4}


def test_a_job_whose_deadline_has_passed_is_taken_though_a_thousand_wait_before_it() -> None:
    async def life() -> bool:
        few = _Few()
        await few.hands.leases.start({})
        await few.waits(1_000, "acme")
        now = datetime.now(UTC)
        late = a_new_job("late", due_at=NEVER, deadline=now, why_waiting="paused")
        await few.store.insert([late])
        await few.taker._round()
        return late.id in few.hands.registry

    assert run(life())


def test_a_job_of_a_paused_batch_expires_though_nothing_is_due() -> None:
    async def life() -> bool:
        few = _Few()
        await few.hands.leases.start({})
        few.hands.halts.learn([Halt("acme/b", HaltKind.PAUSED, 1, "", datetime.now(UTC), applied=True)])
        late = a_new_job("late", batch_id="b", due_at=NEVER, deadline=datetime.now(UTC), why_waiting="paused")
        await few.store.insert([late])
        taking = asyncio.create_task(few.taker.run())
        await asyncio.sleep(2)
        taking.cancel()
        await asyncio.wait({taking})
        return late.id in few.hands.registry

    assert run(life())


def test_of_what_is_to_end_a_few_are_taken_without_room_and_more_when_those_have_ended() -> None:
    async def life() -> list[int]:
        few = _Few(ready=1)
        await few.hands.leases.start({})
        few.hands.ready.accept(a_claim())
        late = [a_new_job(str(number), due_at=NEVER, deadline=datetime.now(UTC)) for number in range(100)]
        await few.store.insert([*late, a_new_job("due", due_at=datetime.now(UTC), why_waiting="queued")])
        few.taker.nudge()
        taking = asyncio.create_task(few.taker.run())
        taken = []
        for _ in range(3):
            await asyncio.sleep(3)
            claimed = [id_ for id_, job in few.store.database.jobs.items() if job["state"] == State.CLAIMED]
            taken.append(len(claimed))
            few.hands.registry.discard([job for job in claimed if job in few.hands.registry][:20])  # these have ended
        taking.cancel()
        await asyncio.wait({taking})
        assert "acme/due" not in claimed
        return taken

    assert run(life()) == [WITHOUT_ROOM, WITHOUT_ROOM + 20, WITHOUT_ROOM + 40]


def test_a_taker_without_room_looks_once_a_second_for_what_is_to_end() -> None:
    async def life() -> Counter[str]:
        store = _Counting()
        hands = some_hands(store, lambda: 0.0, some_settings(worker={"ready": 1}))
        await hands.leases.start({})
        hands.ready.accept(a_claim())
        hands.ready.fell_behind("normal", "acme")
        taking = asyncio.create_task(Taker(store, ["normal"], hands).run())
        await asyncio.sleep(60)
        taking.cancel()
        await asyncio.wait({taking})
        return store.asked

    asked = run(life())
    assert asked.keys() == {"cancelled_waiting", "overdue"}
    assert all(58 <= count <= 61 for count in asked.values())


def test_what_others_put_to_wait_is_found_within_a_second() -> None:
    async def life() -> int:
        few = _Few()
        await few.hands.leases.start({})
        taking = asyncio.create_task(few.taker.run())
        await asyncio.sleep(10)
        await few.store.insert([a_new_job(due_at=datetime.now(UTC), why_waiting="queued")])
        await asyncio.sleep(1)
        taking.cancel()
        await asyncio.wait({taking})
        return len(few.hands.ready)

    assert run(life()) == 1


class _Counting(MemoryStore):
    """Counts the questions what is due."""

    def __init__(self) -> None:
        super().__init__(MemoryDatabase(), "us")
        self.asked: Counter[str] = Counter()

    async def any_due(self, now: datetime) -> bool:
        self.asked["any_due"] += 1
        return await super().any_due(now)

    async def cancelled_waiting(self, limit: int) -> list[str]:
        self.asked["cancelled_waiting"] += 1
        return await super().cancelled_waiting(limit)

    async def overdue(self, now: datetime, limit: int) -> list[str]:
        self.asked["overdue"] += 1
        return await super().overdue(now, limit)

    async def due_tenants(self, priority: str, now: datetime) -> list[str]:
        self.asked["due_tenants"] += 1
        return await super().due_tenants(priority, now)


def test_an_idle_taker_asks_one_question_a_second_and_takes_within_a_second_what_nobody_told_it_of() -> None:
    async def life() -> tuple[Counter[str], int]:
        store = _Counting()
        hands = some_hands(store, lambda: 0.0)
        await hands.leases.start({})
        taking = asyncio.create_task(Taker(store, ["interactive", "normal", "batch"], hands).run())
        await asyncio.sleep(60)
        asked = store.asked.copy()
        await store.insert([a_new_job("1", due_at=datetime.now(UTC), why_waiting="queued")])
        await asyncio.sleep(1)
        taking.cancel()
        await asyncio.wait({taking})
        return asked, len(hands.ready)

    asked, ready = run(life())
    assert asked.keys() == {"any_due"}
    assert 59 <= asked["any_due"] <= 61
    assert ready == 1
