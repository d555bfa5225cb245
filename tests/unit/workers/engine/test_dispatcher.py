"""What starts, what ends without a start, and what a worker that ends has not started."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from broker.events import Events
from broker.telemetry import Telemetry
from schemas.codes import Code
from schemas.result import Status
from tests.builders import (
    BODY,
    Bench,
    SomeQuota,
    a_claim,
    a_new_job,
    an_answer,
    one_after_another,
    some_hands,
    some_settings,
)
from tests.virtual_time import run
from workers.engine.dispatcher import OVERDUE_S, Dispatcher, Process
from workers.engine.failpoints import Failpoints
from workers.engine.finisher import Finisher
from workers.engine.ready import Ready
from workers.engine.taker import Taker
from workers.outcome import Ended, Running
from workers.quota.protocol import Denied
from workers.settle import ended
from workers.stores.control import NEVER, Halt, HaltKind
from workers.stores.protocol import Claim, Fate, Finish, State, Waiting
from workers.transports.errors import SentUnknown
from workers.transports.memory import Outcome
from workers.transports.protocol import Call


class Desk:
    """A dispatcher on a store in memory, with what it hands on to."""

    def __init__(self, bench: Bench, process: Process | None = None) -> None:
        self.bench = bench
        self.hands = some_hands(bench.store, asyncio.get_running_loop().time, bench.settings)
        failpoints = Failpoints("", Events("test"))
        self.finisher = Finisher(
            bench.store, bench.publisher, self.hands.registry, ready=self.hands.ready, failpoints=failpoints
        )
        telemetry = Telemetry(bench.settings.telemetry, "us", Random(1))
        self.dispatcher = Dispatcher(
            process or bench.pipeline.process,
            bench.settings.worker,
            hands=self.hands,
            finisher=self.finisher,
            telemetry=telemetry,
        )

    async def claims(self, **fields: Any) -> Claim:  # noqa: ANN401 as `a_claim`
        """A job that is in the store and ready here."""
        claim = (await self.bench.claimed(**fields)).claim
        self.hands.registry.add([claim.id])
        self.hands.ready.accept(claim)
        return claim

    async def live(self, seconds: float) -> None:
        """Run for so long, then write what has ended."""
        await self.hands.leases.start({})
        running = [asyncio.create_task(part.run()) for part in (self.dispatcher, self.finisher)]
        await asyncio.sleep(seconds)
        await self.finisher.flush()
        for task in running:
            task.cancel()
        await asyncio.wait(running)

    def started(self) -> Counter[str]:
        """How many jobs of each priority have started since this was asked last."""
        started: Counter[str] = Counter()
        for (priority, _), count in self.dispatcher.started().items():
            started[priority] += count
        return started

    def state(self, name: str, tenant: str = "acme") -> tuple[str, str | None]:
        """State and code of a job."""
        job = self.bench.database.jobs[f"{tenant}/{name}"]
        return job["state"], job.get("result", {}).get("code")


async def _never(_: Call) -> Outcome:
    return await asyncio.get_running_loop().create_future()


def test_a_job_whose_deadline_passes_before_its_turn_is_told_so_at_once_though_no_slot_is_free() -> None:
    async def life() -> tuple[Desk, int]:
        desk = Desk(Bench(_never, some_settings(worker={"slots": 1})))
        await desk.claims(id="acme/runs", job_id="runs", uid="1")
        two_days_ago = datetime.now(UTC) - timedelta(days=2)
        await desk.claims(id="beta/late", tenant="beta", job_id="late", uid="2", arrived_at=two_days_ago)
        await desk.claims(id="acme/waits", job_id="waits", uid="3")
        await desk.live(2)
        return desk, len(desk.bench.transport.calls)

    desk, calls = run(life())
    assert desk.state("late", "beta") == ("expired", Code.EXPIRED)
    assert [desk.state(name) for name in ("runs", "waits")] == [("claimed", None)] * 2
    assert calls == 1


def test_a_job_that_is_sent_to_the_lowest_priority_has_the_time_of_that() -> None:
    async def life() -> dict[str, Any]:
        denied = Denied("lower_priority", "quota:tenant:acme:day", datetime.now(UTC), "used up")
        desk = Desk(Bench(_never, quota=SomeQuota(denied)))
        await desk.claims(id="acme/sent", job_id="sent", uid="1")
        await desk.live(2)
        return desk.bench.database.jobs["acme/sent"]

    job = run(life())
    assert (job["state"], job["priority"]) == ("waiting", "batch")
    assert job["deadline"] - job["arrived_at"] > timedelta(days=6)


def test_an_outcome_that_is_not_written_yet_holds_no_payload() -> None:
    async def life() -> tuple[int, int]:
        desk = Desk(Bench(one_after_another(an_answer())))
        kept: list[Claim] = []
        finish = desk.finisher.finish
        desk.finisher.finish = lambda claim, *rest: (kept.append(claim), finish(claim, *rest))[1]  # type: ignore[method-assign]
        await desk.claims(id="acme/a", job_id="a", uid="1")
        await desk.live(1)
        return len(kept), sum(len(claim.payload) for claim in kept)

    assert run(life()) == (1, 0)


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.4, 0.6, 1.3])
def test_a_cancelled_job_that_waits_for_its_turn_ends_in_half_a_second_though_no_slot_is_free(after_s: float) -> None:
    async def life() -> tuple[Desk, int]:
        desk = Desk(Bench(_never, some_settings(worker={"slots": 1})))
        for name in ("runs", "cancelled", "waits"):
            await desk.claims(id=f"acme/{name}", job_id=name, uid=name)
        loop = asyncio.get_running_loop()
        loop.call_later(after_s, desk.dispatcher.stop_job, "acme/cancelled", "a typing error")
        await desk.live(after_s + OVERDUE_S + 0.01)
        return desk, len(desk.bench.transport.calls)

    desk, calls = run(life())
    assert desk.state("cancelled") == ("cancelled", Code.CANCELLED)
    assert desk.bench.database.jobs["acme/cancelled"]["result"]["message"] == "a typing error"
    assert [desk.state(name) for name in ("runs", "waits")] == [("claimed", None)] * 2
    assert calls == 1


def test_a_job_that_was_cancelled_before_it_was_taken_ends_though_no_slot_is_free() -> None:
    async def life() -> Desk:
        desk = Desk(Bench(_never, some_settings(worker={"slots": 1})))
        await desk.claims(id="acme/runs", job_id="runs", uid="1")
        await desk.claims(id="acme/cancelled", job_id="cancelled", uid="2", cancel="")
        await desk.live(1)
        return desk

    assert run(life()).state("cancelled") == ("cancelled", Code.CANCELLED)


def test_what_is_to_end_and_waits_in_the_database_does_so_though_neither_room_nor_a_slot_is_free() -> None:
    async def life() -> Desk:
        desk = Desk(Bench(_never, some_settings(worker={"slots": 1, "ready": 1})))
        await desk.claims(id="acme/runs", job_id="runs", uid="1")
        await desk.claims(id="acme/ready", job_id="ready", uid="2")
        store, now = desk.bench.store, datetime.now(UTC)
        two_days_ago = now - timedelta(days=2)
        await store.insert(
            [
                a_new_job("late", due_at=NEVER, deadline=now, arrived_at=two_days_ago, why_waiting="paused"),
                a_new_job("cancelled", due_at=NEVER, deadline=NEVER, why_waiting="paused"),
                a_new_job("waits", due_at=now, deadline=NEVER, why_waiting="queued"),
            ]
        )
        await store.cancel("acme/cancelled", 1, "a typing error")
        taking = asyncio.create_task(Taker(store, desk.hands.ready.priorities, desk.hands).run())
        await desk.live(3)
        taking.cancel()
        await asyncio.wait({taking})
        return desk

    desk = run(life())
    assert [desk.state(name)[0] for name in ("late", "cancelled")] == ["expired", "cancelled"]
    assert [desk.state(name)[0] for name in ("runs", "ready", "waits")] == ["claimed", "claimed", "waiting"]


def test_a_job_under_a_pause_expires_all_the_same() -> None:
    async def life() -> Desk:
        desk = Desk(Bench(_never))
        await desk.claims(id="acme/late", job_id="late", arrived_at=datetime.now(UTC) - timedelta(days=2))
        desk.hands.halts.learn([Halt("acme", HaltKind.PAUSED, 1, "", datetime.now(UTC))])
        await desk.live(1)
        return desk

    assert run(life()).state("late") == ("expired", Code.EXPIRED)


def test_a_tenth_of_the_slots_is_kept_for_the_first_priority_whose_job_starts_at_once() -> None:
    async def life() -> tuple[Counter[str], Counter[str]]:
        desk = Desk(Bench(_never, some_settings(worker={"slots": 10, "reserved_share": 0.1})))
        for number in range(20):
            priority = ("normal", "batch")[number % 2]
            await desk.claims(id=f"acme/{number}", job_id=str(number), uid=str(number), priority=priority)
        living = asyncio.create_task(desk.live(5))
        await asyncio.sleep(3)
        before = desk.started()
        for name in ("soon", "next"):
            await desk.claims(id=f"acme/{name}", job_id=name, uid=name, priority="interactive")
        await asyncio.sleep(0.01)
        after = desk.started()
        await living
        assert desk.started().total() == 0  # every slot is taken
        return before, after

    before, after = run(life())
    assert before.total() == 9
    assert before.keys() == {"normal", "batch"}
    assert after == {"interactive": 1}


def test_without_a_reserved_share_every_slot_is_for_all() -> None:
    async def life() -> Counter[str]:
        desk = Desk(Bench(_never, some_settings(worker={"slots": 10, "reserved_share": 0})))
        for number in range(20):
            await desk.claims(id=f"acme/{number}", job_id=str(number), uid=str(number), priority="batch")
        await desk.live(1)
        return desk.started()

    assert run(life()) == {"batch": 10}


def test_a_slot_that_the_first_priority_leaves_is_kept_for_it_while_the_others_fill_theirs() -> None:
    async def answer(call: Call) -> Outcome:
        return an_answer() if b"quick" in call.body else await _never(call)

    async def life() -> Counter[str]:
        desk = Desk(Bench(answer, some_settings(worker={"slots": 10, "reserved_share": 0.1})))
        for number in range(20):
            await desk.claims(id=f"acme/{number}", job_id=str(number), uid=str(number), priority="batch")
        for number in range(3):
            name, body = f"quick{number}", {**BODY, "user": "quick"}
            await desk.claims(id=f"acme/{name}", job_id=name, uid=name, priority="interactive", body=body)
        await desk.live(2)
        return desk.started()

    assert run(life()) == {"batch": 9, "interactive": 3}


def test_outcomes_that_wait_to_be_written_do_not_keep_a_few_slots_from_working() -> None:
    async def life() -> int:
        desk = Desk(Bench(one_after_another(an_answer()), some_settings(worker={"slots": 2})))
        old = datetime.now(UTC) - timedelta(hours=1)
        for number in range(40):
            await desk.claims(id=f"acme/{number}", job_id=str(number), uid=str(number), arrived_at=old)
        await desk.live(0.2)  # each outcome may wait a quarter of a second for others
        return len(desk.bench.transport.calls)

    assert run(life()) == 40


def test_what_the_first_priority_awaits_is_written_while_a_write_of_others_is_away() -> None:
    async def life() -> tuple[list[str], Desk]:
        desk = Desk(Bench(one_after_another(an_answer())))
        store, go_on = desk.bench.store, asyncio.Event()
        finish, written = store.finish, list[str]()

        async def slow(finishes: Sequence[Finish], token: str) -> list[Fate]:
            if any(one.id == "acme/slow" for one in finishes):
                await go_on.wait()
            written.extend(one.id for one in finishes)
            return await finish(finishes, token)

        store.finish = slow  # type: ignore[method-assign]
        await desk.claims(id="acme/slow", job_id="slow", uid="1", priority="normal")
        living = asyncio.create_task(desk.live(2))
        await asyncio.sleep(0.5)
        await desk.claims(id="acme/quick", job_id="quick", uid="2", priority="interactive")
        await asyncio.sleep(0.5)
        go_on.set()
        await living
        return written, desk

    written, desk = run(life())
    assert written == ["acme/quick", "acme/slow"]
    assert [desk.state(name)[0] for name in ("quick", "slow")] == ["succeeded"] * 2


def test_a_tenant_whose_calls_stall_until_their_timeout_starts_no_more_jobs_than_one_whose_calls_are_answered() -> None:
    async def answer(call: Call) -> Outcome:
        await asyncio.sleep(0.1)
        return SentUnknown("The time was over.") if b"stalls" in call.body else an_answer(tokens=(10, 0, 0, 256, 0))

    async def life() -> dict[str, int]:
        desk = Desk(Bench(answer, some_settings(worker={"slots": 1})))
        for number in range(100):
            for tenant in ("answered", "stalls"):
                body = {**BODY, "user": tenant}
                name = f"{tenant}/{number}"
                await desk.claims(id=name, tenant=tenant, job_id=str(number), uid=name, body=body, max_attempts=1)
        await desk.live(10)
        return {tenant: count for (_, tenant), count in desk.dispatcher.started().items()}

    assert run(life()) == {"answered": pytest.approx(50, rel=0.1), "stalls": pytest.approx(50, rel=0.1)}


@pytest.mark.parametrize("waits", [True, False])
def test_a_run_that_fails_or_waits_is_charged_what_it_may_have_cost(waits: bool) -> None:
    async def process(ready: Ready, _: dict[str, Running]) -> Finish | Waiting:
        ready.spent = ready.cost
        claim = ready.claim
        if waits:
            return Waiting(claim.id, claim.fence, NEVER, "retry", 1, None, nothing_sent=False)
        return ended(ready, None, Ended(Status.FAILED, Code.OUTCOME_UNKNOWN))

    async def life() -> list[str]:
        desk = Desk(Bench(_never, some_settings(worker={"slots": 1})), process)
        for number in range(3):
            await desk.claims(id=f"acme/{number}", job_id=str(number), uid=f"a{number}")
        await desk.live(1)
        for tenant in ("acme", "beta"):
            desk.hands.ready.accept(a_claim(id=f"{tenant}/next", tenant=tenant))
        return [ready.claim.tenant for ready in iter(desk.hands.ready.pop, None)]

    assert run(life()) == ["beta", "acme"]


@pytest.mark.parametrize("how", ["cancelled", "shut down"])
def test_a_running_job_ends_by_a_cancel_whatever_its_reason_and_waits_again_at_a_shutdown(how: str) -> None:
    async def life() -> Desk:
        desk = Desk(Bench(_never))
        claim = await desk.claims()
        tell = (
            (lambda: desk.dispatcher.stop_job(claim.id, "shutdown"))
            if how == "cancelled"
            else desk.dispatcher.stop_jobs
        )
        asyncio.get_running_loop().call_later(0.5, tell)
        living = asyncio.create_task(desk.live(1))
        await asyncio.sleep(0.7)
        desk.dispatcher.stop()
        await living
        return desk

    assert run(life()).state("job") == (("cancelled", Code.CANCELLED) if how == "cancelled" else ("waiting", None))


@pytest.mark.parametrize("called", [True, False])
async def test_a_job_that_is_handed_back_keeps_what_is_known_of_its_calls(called: bool) -> None:
    desk = Desk(Bench(one_after_another(an_answer())))
    claim = await desk.claims(execution="at_most_once")
    if called:  # by a worker that died
        await desk.bench.store.mark_called(claim.id, claim.fence)
    claim.called = called
    assert desk.dispatcher.hand_back() == 1
    running = asyncio.create_task(desk.finisher.run())
    await desk.finisher.flush()
    running.cancel()
    [document] = desk.bench.database.jobs.values()
    assert document["state"] == State.WAITING
    assert document.get("called", False) is called
    assert document["deadline"] > datetime.now(UTC)
    assert claim.id not in desk.hands.registry
