"""What is ours and held by no task is taken up, as long as our lease allows it."""

from tests.builders import a_new_job, some_hands
from workers.engine.audit import Audit
from workers.stores.memory import MemoryDatabase, MemoryStore
from workers.stores.protocol import Claim


class _Slow(MemoryStore):
    """Every adoption takes ten seconds."""

    def __init__(self) -> None:
        super().__init__(MemoryDatabase(), "us")
        self.now = 0.0

    async def adopt(self, id: str, fence: int) -> Claim | None:  # noqa: A002 the Protocol's
        self.now += 10.0
        return await super().adopt(id, fence)


async def orphaned(store: MemoryStore, *names: str) -> None:
    """Jobs that are claimed by us, and that nobody here knows of."""
    await store.insert([a_new_job(name) for name in names])


async def test_what_nobody_held_at_two_audits_in_a_row_is_taken_up_under_a_higher_fence() -> None:
    store = _Slow()
    hands = some_hands(store, lambda: store.now)
    audit = Audit(store, hands.registry, hands.ready)
    await orphaned(store, "1")
    await audit.run(lambda: True)
    assert len(hands.ready) == 0
    await audit.run(lambda: True)
    ready = hands.ready.pop()
    assert ready is not None
    assert (ready.claim.id, ready.claim.fence) == ("acme/1", 2)


async def test_what_a_task_holds_is_left_to_it() -> None:
    store = _Slow()
    hands = some_hands(store, lambda: store.now)
    audit = Audit(store, hands.registry, hands.ready)
    await orphaned(store, "1")
    hands.registry.add(["acme/1"])
    await audit.run(lambda: True)
    await audit.run(lambda: True)
    assert len(hands.ready) == 0


async def test_no_adoption_begins_once_the_lease_is_in_doubt() -> None:
    store = _Slow()
    hands = some_hands(store, lambda: store.now)
    await hands.leases.start({})  # it lives for 30 s; after 20 s without a renewal nothing may be taken up
    audit = Audit(store, hands.registry, hands.ready)
    await orphaned(store, "1", "2", "3")
    await audit.run(hands.leases.healthy)
    await audit.run(hands.leases.healthy)
    assert len(hands.ready) == 2
    assert len(hands.registry) == 2
