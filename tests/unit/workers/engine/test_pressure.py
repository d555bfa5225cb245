"""What a worker says of everything that waits: in the log, in documents, and ready in its own hands."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from broker.events import Events
from broker.settings import Settings
from tests.builders import a_claim, some_settings
from tests.virtual_time import VirtualLoop
from workers.engine.failpoints import Failpoints
from workers.engine.intake import Intake
from workers.engine.pressure import LOOK_S, Pressure
from workers.engine.reader import Poll, Reader
from workers.engine.ready import ReadyQueue
from workers.stores.memory import MemoryDatabase, MemoryStore
from workers.stores.protocol import Address, NewJob

NOTHING = {"interactive": (0, 0.0), "normal": (0, 0.0), "batch": (0, 0.0)}


def waiting_since(seconds: float, name: str = "1") -> NewJob:
    """A job that is due for so long; of a negative number, one that is due so much later."""
    now = datetime.now(UTC)
    return NewJob(
        f"acme/{name}",
        name,
        "acme",
        name,
        priority="normal",
        payload=b"{}",
        digest=b"",
        reply=Address("results"),
        arrived_at=now,
        due_at=now - timedelta(seconds=seconds),
        why_waiting="queued",
    )


def looked(ready: ReadyQueue, *jobs: NewJob, lose: bool = False) -> Any:  # noqa: ANN401 the gauges
    """The gauges after one look at a database with these jobs."""
    settings = Settings()
    store = MemoryStore(MemoryDatabase(), "us")
    readers = _readers(settings)
    pressure = Pressure(settings, store, readers, ready)
    assert pressure.gauges().keys() == NOTHING.keys()
    loop = VirtualLoop()
    try:
        loop.run_until_complete(store.insert(jobs))
        if lose:
            store.lose_next("waiting", executed=False)
        loop.create_task(pressure.run())
        loop.pass_time(LOOK_S + 1)
    finally:
        loop.end()
    return pressure.gauges()


def _readers(settings: Settings) -> Sequence[Reader]:
    failpoints = Failpoints("", Events("test"))
    names = [priority.name for priority in settings.priorities]
    return [Reader(name, cast("Intake", None), cluster="", poll=Poll(1, 1), failpoints=failpoints) for name in names]


def test_where_nothing_waits_there_is_no_backlog() -> None:
    assert looked(ReadyQueue(Settings())) == NOTHING


def test_the_oldest_wait_is_that_of_the_document_that_is_due_longest() -> None:
    gauges = looked(ReadyQueue(Settings()), waiting_since(30, "a"), waiting_since(500, "b"), waiting_since(-900, "c"))
    assert gauges["normal"] == (3, pytest.approx(500, abs=30))
    assert gauges["batch"] == (0, 0.0)


def test_what_is_due_later_is_backlog_and_no_wait() -> None:
    assert looked(ReadyQueue(Settings()), waiting_since(-900))["normal"] == (1, 0.0)


def test_a_ready_job_that_waits_longer_than_every_document_is_the_oldest() -> None:
    ready = ReadyQueue(Settings())
    ready.accept(a_claim(arrived_at=datetime.now(UTC) - timedelta(seconds=900)))
    assert looked(ready, waiting_since(30))["normal"] == (2, pytest.approx(900, abs=30))


def test_a_database_that_does_not_answer_leaves_what_was_known() -> None:
    gauges = looked(ReadyQueue(Settings()), waiting_since(30), lose=True)
    assert gauges["interactive"] == (0, 0.0)  # it was the first to be asked
    assert gauges["normal"][0] == 1


class _Partitions:
    """A consumer of two partitions."""

    def __init__(self) -> None:
        self.stopped: set[int] = set()

    def assignment(self) -> set[int]:
        return {0, 1}

    def paused(self) -> set[int]:
        return self.stopped

    def pause(self, *partitions: int) -> None:
        self.stopped |= set(partitions)

    def resume(self, *partitions: int) -> None:
        self.stopped -= set(partitions)


@pytest.mark.parametrize("limit", [{"waiting_documents": 20}, {"waiting_mb": 8}])
def test_partitions_pause_at_a_limit_of_number_or_size_and_go_on_when_a_tenth_has_gone(limit: dict[str, int]) -> None:
    settings = some_settings(worker=limit)
    store = MemoryStore(MemoryDatabase(), "us")
    [reader] = [reader for reader in _readers(settings) if reader.priority == "normal"]
    consumer = _Partitions()
    reader._consumer = cast("Any", consumer)
    pressure = Pressure(settings, store, [reader], ReadyQueue(settings))
    jobs = [replace(waiting_since(1, str(number)), payload=b"x" * 400_000) for number in range(20)]
    paused = []
    loop = VirtualLoop()
    try:
        loop.create_task(pressure.run())
        loop.run_until_complete(store.insert(jobs[:19]))
        for change in (None, "insert", "one goes", "another goes", "a third goes"):
            if change == "insert":
                loop.run_until_complete(store.insert(jobs[19:]))
            elif change is not None:
                store.database.jobs.popitem()
            loop.pass_time(LOOK_S)
            paused.append(len(consumer.stopped))
    finally:
        loop.end()
    assert paused == [0, 2, 2, 2, 0]
