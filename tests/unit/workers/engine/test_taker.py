"""What is due is taken, but never under a lease that came into doubt while the database was asked what is due."""

from datetime import UTC, datetime

from tests.builders import a_new_job, some_hands
from workers.engine.taker import Taker
from workers.stores.memory import MemoryDatabase, MemoryStore


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
