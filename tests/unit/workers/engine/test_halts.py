"""Halts: what they keep from running, who tells documents of them, and what becomes of jobs that are here or wait."""

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, cast

import pytest

from broker.settings import Worker
from broker.telemetry import Telemetry
from schemas.codes import Code
from tests.builders import a_claim, a_running, some_settings
from tests.virtual_time import run
from workers.engine.dispatcher import Dispatcher
from workers.engine.finisher import Finisher
from workers.engine.halts import CALM_S, TAKE_OVER, Halting, Halts
from workers.engine.hands import Hands
from workers.engine.leases import Leases
from workers.engine.ready import ReadyQueue
from workers.engine.registry import Registry
from workers.engine.taker import BATCH, Taker
from workers.stores.control import EVERYTHING, NEVER, Halt, HaltKind
from workers.stores.memory import MemoryDatabase, MemoryStore
from workers.stores.protocol import Address, Claim, Finish, NewJob, Waiting

NOW = datetime.now(UTC)
BATCH_CLAIM = a_claim(batch_id="b")


def halt(scope: str, kind: HaltKind = HaltKind.PAUSED, **fields: Any) -> Halt:  # noqa: ANN401 a halt's fields
    return replace(Halt(scope, kind, 1, f"{kind} {scope}", NOW, applied=True), **fields)


def halted(*halts: Halt) -> Halts:
    known = Halts()
    known.learn(halts)
    return known


# -- which job ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "claim", "meant"),
    [
        (EVERYTHING, a_claim(), True),
        ("acme", a_claim(), True),
        ("acme", a_claim(tenant="acme2"), False),
        ("acme/b", BATCH_CLAIM, True),
        ("acme/b", a_claim(), False),
        ("acme/b", a_claim(batch_id="b2"), False),
        ("beta/b", BATCH_CLAIM, False),
    ],
)
def test_a_halt_holds_for_its_scope_alone(scope: str, claim: Claim, meant: bool) -> None:
    assert (halted(halt(scope)).of(claim) is not None) is meant
    assert Halts().of(claim) is None


def test_what_ends_a_job_comes_before_what_has_it_wait() -> None:
    known = halted(
        halt(EVERYTHING), halt("acme/b"), halt("acme/b", HaltKind.LIMITED), halt("acme/b", HaltKind.CANCELLED)
    )
    found = known.of(BATCH_CLAIM)
    assert found is not None
    assert found.kind is HaltKind.CANCELLED
    assert known.paused_batches("acme") == ["acme/b"]


def test_a_job_that_was_run_again_after_its_batch_was_cancelled_runs_unless_it_is_paused() -> None:
    again = a_claim(batch_id="b", generation=2, arrived_at=NOW + timedelta(seconds=1))
    assert halted(halt("acme/b", HaltKind.CANCELLED)).of(again) is None
    assert halted(halt("acme/b", HaltKind.CANCELLED), halt("acme")).of(again) is not None
    assert halted(halt("acme/b", HaltKind.CANCELLED)).of(replace(again, arrived_at=NOW - timedelta(seconds=1)))


def test_only_news_is_told() -> None:
    known = Halts()
    assert not known.learn([])
    assert known.learn([halt("acme")])
    assert not known.learn([halt("acme")])
    assert known.learn([])


# -- a worker ------------------------------------------------------------------------------------------------------------


class Kept:
    """Stands where the finisher stands: keeps outcomes."""

    def __init__(self) -> None:
        self.finished: dict[str, Finish] = {}
        self.waiting: dict[str, Waiting] = {}

    def __len__(self) -> int:
        return 0

    def finish(self, claim: Claim, finish: Finish, fenced: Callable[[], None] = lambda: None) -> None:
        """Keep an outcome."""
        del fenced
        self.finished[claim.job_id] = finish

    def wait(self, waiting: Waiting, cancelled: Callable[[], None]) -> None:
        """Keep a wait."""
        del cancelled
        self.waiting[waiting.id.partition("/")[2]] = waiting


class AWorker:
    """The parts of a worker that heed halts, on a store in memory."""

    def __init__(self, database: MemoryDatabase | None = None) -> None:
        settings = some_settings()
        self.store = MemoryStore(database or MemoryDatabase(), "us")
        self.halts = Halts()
        self.hands = Hands(ReadyQueue(settings), Registry(), Leases(self.store, 30, self._nothing), self.halts)
        self.taker = Taker(self.store, ["normal"], self.hands)
        self.kept = Kept()
        self.begun: list[str] = []
        telemetry = Telemetry(settings.telemetry, "us", Random(1))
        finisher = cast("Finisher", self.kept)
        self.dispatcher = Dispatcher(
            self._process, Worker(slots=2), hands=self.hands, finisher=finisher, telemetry=telemetry
        )
        self.halting = Halting(self.store, self.halts, (self.dispatcher.heed_halts, self.taker.nudge))

    async def _nothing(self) -> None:
        """No audit."""

    async def _process(self, ready: Any, under_way: Any) -> Finish:  # noqa: ANN401 the pipeline's
        self.begun.append(ready.claim.job_id)
        await asyncio.get_running_loop().create_future()
        raise AssertionError(under_way)

    async def begin(self) -> None:
        """Have a lease, and know what is halted."""
        await self.hands.leases.start({})
        await self.halting.begin()

    async def wait(self, *names: str, **fields: Any) -> None:  # noqa: ANN401 a job's fields
        """Put jobs to wait."""
        early = datetime.now(UTC) - timedelta(minutes=1)
        for number, name in enumerate(names):
            arrived = early + timedelta(milliseconds=number)
            new = NewJob(
                f"acme/{name}", name, "acme", name, "normal", b"{}", b"", Address("results"), arrived, due_at=arrived
            )
            await self.store.insert([replace(new, **fields)])

    def states(self) -> dict[str, tuple[str, str | None]]:
        """State and reason by name."""
        jobs = self.store.database.jobs.values()
        return {job["job_id"]: (job["state"], job.get("why_waiting")) for job in jobs if "job_id" in job}

    def ready(self) -> list[str]:
        """What may start here."""
        return [one.claim.job_id for one in self.hands.ready.drain()]


def test_a_worker_that_starts_knows_what_is_halted_before_it_takes() -> None:
    async def life() -> list[str]:
        worker = AWorker()
        await worker.store.halt(EVERYTHING, HaltKind.PAUSED, 1)
        await worker.wait("a")
        await worker.begin()
        await worker.taker._round()
        return worker.ready()

    assert run(life()) == []


def test_a_paused_tenant_is_passed_over_without_a_write_and_the_others_go_on() -> None:
    async def life() -> tuple[list[str], dict[str, Any]]:
        worker = AWorker()
        await worker.begin()
        await worker.wait("a", "b")
        await worker.wait("other", tenant="beta", id="beta/other")
        worker.halts.learn([halt("acme")])
        await worker.taker._round()
        return worker.ready(), worker.states()

    ready, states = run(life())
    assert ready == ["other"]
    assert states["a"] == ("waiting", None)


def test_a_paused_batch_is_put_aside_however_much_of_it_stands_before_another_and_comes_back_in_order() -> None:
    async def life() -> tuple[list[str], int, list[str]]:
        worker = AWorker()
        await worker.begin()
        names = [f"p{number:04}" for number in range(2 * BATCH + 10)]
        await worker.wait(*names, batch_id="b")
        await worker.wait("behind", batch_id="c", due_at=datetime.now(UTC))
        await worker.store.halt("acme/b", HaltKind.PAUSED, 1)
        await worker.halting.begin()
        found = await worker.taker._round()
        behind = worker.ready()
        assert await worker.store.parked() == ["acme/b"]
        assert set(worker.states().values()) == {("waiting", "paused"), ("claimed", None)}
        await worker.store.halt("acme/b", None, 2)
        await worker.halting.begin()
        await worker.halting.do()
        await worker.taker._round()
        return behind, found, worker.ready()

    behind, found, back = run(life())
    assert behind == ["behind"]
    assert found == 2 * BATCH + 11
    assert len(back) > 200  # what fits by the size that jobs are taken to have
    assert back == [f"p{number:04}" for number in range(len(back))]


def test_a_cancelled_job_is_taken_though_everything_is_paused_and_a_thousand_wait_before_it() -> None:
    async def life() -> list[str]:
        worker = AWorker()
        await worker.begin()
        await worker.wait(*(f"a{number}" for number in range(1_000)))
        await worker.wait("late", due_at=NEVER)
        await worker.store.cancel("acme/late", 1, "enough")
        worker.halts.learn([halt(EVERYTHING)])
        await worker.taker._round()
        return worker.ready()

    assert run(life()) == ["late"]


def test_what_is_ready_is_laid_down_when_it_is_halted_and_what_is_not_stays() -> None:
    async def life() -> tuple[Kept, list[str]]:
        worker = AWorker()
        for name, batch in (("free", None), ("paused", "p"), ("cancelled", "c"), ("limited", "l")):
            worker.hands.ready.accept(a_claim(id=f"acme/{name}", job_id=name, batch_id=batch))
        worker.hands.ready.accept(a_claim(id="acme/gone", job_id="gone", batch_id="p", cancel="enough"))
        worker.hands.ready.accept(a_claim(id="beta/x", tenant="beta", job_id="x", called=True))
        worker.halts.learn(
            [halt("acme/p"), halt("acme/c", HaltKind.CANCELLED), halt("acme/l", HaltKind.LIMITED), halt("beta")]
        )
        worker.dispatcher.heed_halts()
        return worker.kept, worker.ready()

    kept, ready = run(life())
    assert sorted(ready) == ["free", "gone"]
    assert {name: (one.state, one.result["code"], one.result["message"]) for name, one in kept.finished.items()} == {
        "cancelled": ("cancelled", Code.CANCELLED, "cancelled acme/c"),
        "limited": ("cancelled", Code.BATCH_LIMIT, "limited acme/l"),
    }
    waits = {
        name: (one.due_at == NEVER, one.why_waiting, one.wait_key, one.nothing_sent)
        for name, one in kept.waiting.items()
    }
    assert waits == {"paused": (True, "paused", "paused:acme/p", True), "x": (False, "paused", None, False)}


def test_a_job_whose_deadline_passes_while_halts_are_heeded_is_laid_down_or_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    readings = itertools.count(int(time.time()))
    monkeypatch.setattr("time.time", lambda: float(next(readings)))  # each look at the clock takes a second

    async def life(deadline: int) -> int:
        worker = AWorker()
        worker.hands.ready.accept(a_claim(deadline=datetime.fromtimestamp(next(readings) + deadline, UTC).isoformat()))
        worker.halts.learn([halt("acme")])
        worker.dispatcher.heed_halts()
        found = len(worker.kept.waiting) + len(worker.ready())
        assert len(worker.hands.ready) == 0
        return found

    assert [run(life(deadline)) for deadline in range(6)] == [1] * 6


def test_calls_of_a_cancelled_batch_are_cut_and_those_of_paused_and_limited_ones_go_on() -> None:
    async def life() -> dict[str, str | None]:
        worker = AWorker()
        running = {name: a_running(id=f"acme/{name}", job_id=name, batch_id=name) for name in ("c", "p", "l")}
        for name, one in running.items():
            worker.dispatcher._under_way[f"acme/{name}"] = one
            worker.dispatcher._tasks[f"acme/{name}"] = asyncio.create_task(asyncio.sleep(1))
        worker.halts.learn([halt("acme/c", HaltKind.CANCELLED), halt("acme/p"), halt("acme/l", HaltKind.LIMITED)])
        worker.dispatcher.heed_halts()
        return {name: one.stopped for name, one in running.items()}

    assert run(life()) == {"c": "cancelled acme/c", "p": None, "l": None}


def test_jobs_wait_for_their_batch_as_long_as_it_is_paused() -> None:
    async def life() -> list[str]:
        worker = AWorker()
        await worker.begin()
        await worker.wait("a", batch_id="b")
        await worker.store.halt("acme/b", HaltKind.PAUSED, 1)
        await worker.halting.begin()
        await worker.store.park(["acme/a"], "acme/b")
        await worker.halting.do()
        return await worker.store.parked()

    assert run(life()) == ["acme/b"]


def test_a_job_that_becomes_ready_under_a_halt_does_not_start() -> None:
    async def life() -> tuple[Kept, list[str]]:
        worker = AWorker()
        await worker.begin()
        worker.halts.learn([halt("acme")])
        worker.hands.ready.accept(a_claim())
        worker.hands.ready.accept(a_claim(id="beta/x", tenant="beta", job_id="x"))
        running = asyncio.create_task(worker.dispatcher.run())
        await asyncio.sleep(1)
        running.cancel()
        await asyncio.wait({running})
        return worker.kept, worker.begun

    kept, begun = run(life())
    assert (list(kept.waiting), begun) == (["job"], ["x"])


def test_a_job_whose_deadline_has_passed_is_to_end_though_everything_is_paused() -> None:
    async def life() -> tuple[Kept, list[str]]:
        worker = AWorker()
        await worker.begin()
        worker.halts.learn([halt(EVERYTHING)])
        running = asyncio.create_task(worker.dispatcher.run())
        await asyncio.sleep(0.1)  # it has just looked for jobs that are overdue
        worker.hands.ready.accept(a_claim(arrived_at=NOW - timedelta(days=30)))
        await asyncio.sleep(0.1)
        worker.dispatcher.heed_halts()
        running.cancel()
        await asyncio.wait({running})
        return worker.kept, worker.begun

    kept, begun = run(life())
    assert (list(kept.waiting), begun) == ([], ["job"])


def test_the_worker_that_was_told_tells_the_documents_and_another_does_so_when_it_has_died() -> None:
    async def life() -> list[bool]:
        database = MemoryDatabase()
        told, other = AWorker(database), AWorker(database)
        applied = []
        await told.store.halt("acme/b", HaltKind.CANCELLED, 1)
        told.halting.hurry("acme/b")
        for worker, later in ((other, timedelta(0)), (told, timedelta(0)), (other, TAKE_OVER)):
            database.halts["acme/b"].pop("applied", None)
            database.halts["acme/b"]["at"] -= later
            await worker.halting.begin()
            await worker.halting.do()
            applied.append("applied" in database.halts["acme/b"])
        return applied

    assert run(life()) == [False, True, True]


def test_halts_are_learnt_though_what_they_ask_of_documents_does_not_end() -> None:
    async def life() -> bool:
        worker = AWorker()
        endless: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def apply(_: Halt) -> None:
            await endless

        worker.store.apply = apply  # type: ignore[method-assign]
        await worker.store.halt("acme/b", HaltKind.CANCELLED, 1)
        worker.halting.hurry("acme/b")
        running = asyncio.create_task(worker.halting.run())
        await asyncio.sleep(5)
        await worker.store.halt(EVERYTHING, HaltKind.PAUSED, 1)
        await asyncio.sleep(1.5)
        running.cancel()
        await asyncio.wait({running})
        return worker.halts.pauses("acme")

    assert run(life())


def test_a_database_that_is_away_keeps_what_was_known_halted() -> None:
    async def life() -> tuple[bool, bool]:
        worker = AWorker()
        await worker.store.halt(EVERYTHING, HaltKind.PAUSED, 1)
        await worker.begin()
        worker.store.lose_next("halts")
        running = asyncio.create_task(worker.halting.run())
        await asyncio.sleep(0.5)
        kept = worker.halts.pauses("acme")
        await worker.store.halt(EVERYTHING, None, 2)
        await asyncio.sleep(2)
        running.cancel()
        await asyncio.wait({running})
        return kept, worker.halts.pauses("acme")

    assert run(life()) == (True, False)


def test_without_news_it_is_seen_now_and_then_what_is_left_to_be_done_and_after_news_every_second() -> None:
    async def life() -> tuple[int, int, list[bool]]:
        worker = AWorker()
        looks: list[float] = []
        parked = worker.store.parked

        async def counted() -> list[str]:
            looks.append(asyncio.get_running_loop().time())
            return await parked()

        async def put_aside_late() -> bool:
            """By another worker, which has not heard of the resume; whether the job is due again two seconds later."""
            await worker.wait("a", batch_id="b")
            await worker.store.park(["acme/a"], "acme/b")
            await asyncio.sleep(2)
            return not await parked()

        worker.store.parked = counted  # type: ignore[method-assign]
        await worker.halting.begin()
        running = asyncio.create_task(worker.halting.run())
        await asyncio.sleep(60)
        calm = len(looks)
        await worker.store.halt("acme/b", HaltKind.PAUSED, 1)
        await asyncio.sleep(30)
        await worker.store.halt("acme/b", None, 2)
        await asyncio.sleep(5)
        soon = [await put_aside_late()]
        await asyncio.sleep(60)
        del worker.store.database.jobs["acme/a"]
        await put_aside_late()
        await asyncio.sleep(CALM_S)
        running.cancel()
        await asyncio.wait({running})
        return calm, len(looks), [*soon, not await parked()]

    calm, looks, back = run(life())
    assert calm <= 60 / CALM_S
    assert looks <= 80  # of 169 seconds
    assert back == [True, True]
