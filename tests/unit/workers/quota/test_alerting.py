"""An alert is told once it is noticed, by whoever noticed it or by another one, and then never again."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from broker.limits import Limit, Rulebook
from workers.quota.alerting import TAKE_OVER, Alerting
from workers.quota.alerts import alert_id, event
from workers.quota.book import Alert, Amounts
from workers.quota.closing import LOOK_AROUND_S
from workers.quota.holds import Holds
from workers.quota.memory import MemoryBooks
from workers.quota.protocol import Denied, Key, Need
from workers.quota.tender import IDLE_S, Tender
from workers.stores.protocol import StoreUnknownError

KEY = Key("tenant:acme", "day", datetime(2026, 12, 1, tzinfo=UTC), datetime(2026, 12, 2, tzinfo=UTC))
CENT = Decimal("0.01")


class Topic:
    """Where alerts arrive; it may refuse them."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.said: dict[str, str] = {}
        self.away = False

    async def send(self, alerts: Sequence[tuple[Key, Alert]]) -> Collection[int]:
        """The same id has the same content."""
        if self.away:
            return range(len(alerts))
        for key, alert in alerts:
            name, content = alert_id(key, alert), event(key, alert).model_dump_json()
            assert self.said.setdefault(name, content) == content
            self.ids.append(name.removeprefix(f"{key.id}/"))
        return ()


class World:
    """Books, a topic, and workers on them."""

    def __init__(self) -> None:
        self.books, self.topic = MemoryBooks(), Topic()
        self.seconds, self.now = 100.0, datetime(2026, 12, 1, 23, tzinfo=UTC)

    def worker(self, name: str, **fields: object) -> "Worker":
        return Worker(self, name, **fields)

    def wait(self, seconds: float) -> None:
        self.seconds += seconds
        self.now += timedelta(seconds=seconds)


class Worker:
    """A worker that is told of nothing but what it did itself."""

    def __init__(self, world: World, name: str, **fields: object) -> None:
        self.world, self.name = world, name
        said = {"scope": "tenant", "of": "acme", "per": "day", "requests": 100, "alerts": [50, 80, 100], **fields}
        rules, books = Rulebook([Limit.model_validate(said)], {}), world.books
        self.holds = Holds(rules, books, name, clock=lambda: world.seconds, now=lambda: world.now)
        self.tender = Tender(self.holds, self.nobody, lambda: world.now)
        self.alerting = Alerting(self.holds.entries, world.topic.send)

    async def nobody(self, _: str, __: int) -> int:
        return 0

    async def use(self, times: int, tokens: int = 1, held: int = 1) -> None:
        """Run jobs, each with its row on the ledger."""
        for _ in range(times):
            hold = await self.holds.hold(Need("acme", "m", held, CENT), self.world.now)
            assert not isinstance(hold, Denied), hold
            hold.settle(tokens, CENT)
            keys = [key for key in self.holds.accounts if key.id in hold.keys]
            self.world.books.rows.extend((key, self.name, Amounts(1, tokens, CENT)) for key in keys)

    async def rest(self) -> None:
        """Be idle until all is said."""
        for seconds in (0.0, IDLE_S, 1.0):
            self.world.wait(seconds)
            await self.tender.tend()
            await self.alerting.tell()


@pytest.mark.parametrize("mode", ["hard", "soft", "shadow"])
async def test_each_threshold_is_told_once_in_every_mode(mode: str) -> None:
    world = World()
    worker = world.worker("w1", mode=mode)
    for times, told in ((49, []), (1, ["50"]), (30, ["50", "80"]), (20, ["50", "80", "100"])):
        await worker.use(times)
        await worker.rest()
        assert world.topic.ids == told


@pytest.mark.parametrize(("used", "told"), [(50, ["50"]), (90, ["50", "80"])])
async def test_what_is_held_or_free_alerts_nobody_until_it_is_spent(used: int, told: list[str]) -> None:
    world = World()
    worker = world.worker("w1", requests=None, tokens=100)
    hold = await worker.holds.hold(Need("acme", "m", 90, CENT), world.now)
    await worker.rest()
    assert world.topic.ids == []
    assert not isinstance(hold, Denied)
    hold.settle(used, CENT)
    await worker.rest()
    assert world.topic.ids == told


async def test_what_two_workers_have_spent_together_is_told_once() -> None:
    world = World()
    workers = [world.worker(name) for name in ("w1", "w2")]
    for _ in range(2):
        for worker in workers:
            await worker.use(20)
            await worker.rest()
    assert world.topic.ids == ["50", "80"]


async def test_a_busy_worker_tells_before_its_chunk_is_used_up() -> None:
    world = World()
    worker = world.worker("w1", requests=1_000)
    await worker.use(499)
    world.wait(1.0)
    await worker.tender.tend()
    free = worker.holds.accounts[KEY].free.requests
    assert free > 1
    await worker.use(1)
    world.wait(1.0)
    await worker.tender.tend()
    await worker.alerting.tell()
    assert world.topic.ids == ["50"]
    assert worker.holds.accounts[KEY].free.requests == free - 1


async def test_a_worker_that_dies_before_it_tells_has_it_told_by_another_one() -> None:
    world = World()
    dead, other = world.worker("w1"), world.worker("w2")
    await dead.use(60)
    world.wait(IDLE_S)
    await dead.tender.tend()
    world.wait(IDLE_S)
    await dead.tender.tend()
    assert list(world.books.books[KEY].alerts) == ["50"]
    await other.alerting.tell()
    assert world.topic.ids == []  # who noticed it may be about to
    world.wait(max(TAKE_OVER.total_seconds(), LOOK_AROUND_S))
    await other.alerting.tell()
    await other.alerting.tell()
    assert world.topic.ids == ["50"]


async def test_what_a_dead_worker_had_not_said_is_noticed_when_its_entry_is_closed() -> None:
    world = World()
    dead, other = world.worker("w1"), world.worker("w2")
    await dead.use(60)
    world.books.dead.add("w1")
    world.wait(LOOK_AROUND_S)
    await other.rest()
    assert world.topic.ids == ["50"]


async def test_what_kafka_does_not_take_is_told_later() -> None:
    world = World()
    worker = world.worker("w1")
    world.topic.away = True
    await worker.use(60)
    await worker.rest()
    assert world.books.books[KEY].untold
    world.topic.away = False
    await worker.alerting.tell()
    await worker.alerting.tell()
    assert world.topic.ids == ["50"]
    assert not world.books.books[KEY].untold


async def test_what_could_not_be_noted_is_told_again_with_the_same_id_and_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    worker = world.worker("w1")
    await worker.use(60)
    for _ in range(2):
        world.wait(IDLE_S)
        await worker.tender.tend()

    async def away(*_: object) -> bool:
        raise StoreUnknownError("planted")

    with monkeypatch.context() as planted:
        planted.setattr(world.books, "swap", away)
        with pytest.raises(StoreUnknownError):
            await worker.alerting.tell()
    await worker.alerting.tell()
    assert world.topic.ids == ["50", "50"]
    await worker.alerting.tell()
    assert len(world.topic.ids) == 2


async def test_the_next_window_is_told_anew() -> None:
    world = World()
    worker = world.worker("w1", alerts=[100])
    await worker.use(100)
    await worker.rest()
    world.wait(3_600)
    await worker.use(100)
    await worker.rest()
    assert world.topic.ids == ["100", "100"]
    assert len(world.topic.said) == 2


async def test_with_nothing_to_tell_nothing_is_written() -> None:
    world = World()
    worker = world.worker("w1")
    await worker.use(10)
    await worker.rest()
    revision = world.books.books[KEY].rev
    for _ in range(5):
        await worker.rest()
    assert (world.books.books[KEY].rev, world.topic.ids) == (revision, [])
