"""Error classes decide money and retries: what follows each answer, and what is on the ledger afterwards."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from schemas.codes import Code
from tests.builders import BODY, Bench, an_answer, an_error, one_after_another, some_settings
from tests.virtual_time import run
from workers.call import FencedJobError
from workers.gates import RETRY_BURST
from workers.outcome import SHUTDOWN, Shutdown
from workers.quota.protocol import Need
from workers.stores.control import EVERYTHING, Halt, HaltKind
from workers.stores.memory import MemoryStore
from workers.stores.protocol import Fate, Finish, Waiting
from workers.transports.errors import AnswerTooLarge, NotSent, SentUnknown
from workers.transports.memory import Outcome
from workers.transports.protocol import Call, Reply

THROTTLED = {"retry_after": "30"}


def outcome(*outcomes: Outcome, settings: dict[str, Any] | None = None, **fields: Any) -> tuple[Bench, Any]:  # noqa: ANN401 a finish or a wait
    """Process one job against these answers, in virtual time."""
    bench = Bench(one_after_another(*outcomes), settings=some_settings(**(settings or {})))
    return bench, run(bench.process(**fields))


def finished(*outcomes: Outcome, **fields: Any) -> tuple[Bench, Finish]:  # noqa: ANN401 as `outcome`
    bench, end = outcome(*outcomes, **fields)
    assert isinstance(end, Finish), end
    return bench, end


def waiting(*outcomes: Outcome, **fields: Any) -> tuple[Bench, Waiting]:  # noqa: ANN401 as `outcome`
    bench, end = outcome(*outcomes, **fields)
    assert isinstance(end, Waiting), end
    return bench, end


def in_seconds(wait: Waiting) -> float:
    return (wait.due_at - datetime.now(UTC)).total_seconds()


async def stopped(bench: Bench, reason: str | Shutdown, **fields: Any) -> Any:  # noqa: ANN401 a finish or a wait
    """What becomes of a job that is told to stop while its call is open."""
    ready = await bench.claimed(**fields)
    task = asyncio.create_task(bench.pipeline.process(ready, bench.under_way))
    await asyncio.sleep(1)
    running = bench.under_way[ready.claim.id]
    assert running.stoppable
    running.stopped = reason
    task.cancel()
    return await task


async def silence(_: Call) -> Reply:
    """A provider that never answers."""
    await asyncio.Event().wait()
    raise AssertionError


def test_a_good_answer_ends_the_job_with_one_billed_row() -> None:
    bench, end = finished(an_answer(tokens=(10, 0, 0, 5, 0)))
    assert end.state == "succeeded"
    assert end.row is not None
    assert (end.row["_id"], end.row["billed"], end.row["estimated"]) == ("uid/1/1.1", True, False)
    assert end.row["cost_usd"].to_decimal() == Decimal("0.00002")
    assert bench.rows() == []
    assert [hold.used for hold in bench.quota.holds] == [(15, Decimal("0.00002"))]


def test_a_call_carries_the_key_of_its_row() -> None:
    bench, end = finished(an_error(500), an_answer())
    assert [dict(call.headers)["x-client-request-id"] for call in bench.transport.calls] == ["uid/1/1.1", "uid/1/1.2"]
    assert end.row is not None
    assert end.row["_id"] == "uid/1/1.2"
    assert end.result["attempts"] == 2


def test_a_call_ends_by_the_earliest_of_deadline_timeout_and_ten_minutes() -> None:
    def timeout_s(providers: dict[str, Any], deadline: datetime | None = None) -> float:
        fields = {} if deadline is None else {"deadline": deadline.isoformat()}
        bench, _ = finished(
            an_answer(), settings={"providers": {"main": {"base_url": "http://x", **providers}}}, **fields
        )
        return bench.transport.calls[0].timeout_s

    assert timeout_s({"timeout_s": 5}) == 5
    assert timeout_s({"timeout_s": 5_000}) == 600
    assert timeout_s({}, datetime.now(UTC) + timedelta(seconds=60)) == pytest.approx(60, abs=5)


def test_what_was_not_sent_is_free_and_no_attempt() -> None:
    bench, end = finished(NotSent("no route"), NotSent("no route"), an_answer(), max_attempts=1)
    assert (end.state, end.result["attempts"]) == ("succeeded", 1)
    assert bench.rows() == []


def test_what_cannot_be_sent_for_long_waits_as_a_document() -> None:
    bench, wait = waiting(NotSent("no route"))
    assert wait.why_waiting == "not_sent"
    assert wait.nothing_sent
    assert wait.attempts == 0
    assert 0 < in_seconds(wait) <= 75
    assert bench.rows() == []


def test_a_throttled_job_waits_as_long_as_the_provider_says() -> None:
    _, wait = waiting(an_error(429, retry_after="30"), max_attempts=1)
    assert (wait.why_waiting, wait.attempts) == ("rate_limited", 0)
    assert 29 < in_seconds(wait) <= 30 * 1.25


def drains_after(*outcomes: Outcome) -> tuple[Bench, Any]:
    """What becomes of a job whose worker is asked to drain while its first call is open."""
    left = list(outcomes)

    async def answer(_: Call) -> Outcome:
        bench.leases.drain_asked.set()
        return left.pop(0)

    bench = Bench(answer)
    return bench, run(bench.process())


def test_a_call_that_is_open_when_a_drain_begins_is_answered() -> None:
    _, end = drains_after(an_answer())
    assert end.state == "succeeded"


def test_a_job_that_would_be_tried_again_is_handed_back_by_a_worker_that_drains() -> None:
    bench, wait = drains_after(an_error(500), an_answer())
    assert isinstance(wait, Waiting)
    assert (wait.why_waiting, wait.attempts, wait.nothing_sent) == ("handed_back", 1, True)
    assert in_seconds(wait) <= 0
    assert len(bench.transport.calls) == 1
    assert bench.quota.holds[0].released


def test_a_worker_that_drains_begins_no_call() -> None:
    bench = Bench(one_after_another(an_answer()))
    bench.leases.drain_asked.set()
    wait = run(bench.process())
    assert (wait.why_waiting, bench.transport.calls) == ("handed_back", [])


def halts_after(kind: HaltKind, *outcomes: Outcome) -> tuple[Bench, Any]:
    """What becomes of a job of a batch that is halted while its first call is open."""
    left = list(outcomes)

    async def answer(_: Call) -> Outcome:
        bench.halts.learn([Halt("acme/b", kind, 1, "enough", datetime.now(UTC))])
        return left.pop(0)

    bench = Bench(answer)
    return bench, run(bench.process(batch_id="b"))


@pytest.mark.parametrize("kind", [HaltKind.PAUSED, HaltKind.LIMITED])
def test_a_call_that_is_open_when_its_batch_is_paused_or_passes_a_limit_is_answered(kind: HaltKind) -> None:
    _, end = halts_after(kind, an_answer())
    assert end.state == "succeeded"


def test_a_job_that_would_be_tried_again_waits_for_its_paused_batch() -> None:
    bench, wait = halts_after(HaltKind.PAUSED, an_error(500), an_answer())
    assert isinstance(wait, Waiting)
    assert (wait.why_waiting, wait.wait_key, wait.attempts, wait.nothing_sent) == ("paused", "paused:acme/b", 1, True)
    assert len(bench.transport.calls) == 1
    assert bench.quota.holds[0].released


@pytest.mark.parametrize(("kind", "code"), [(HaltKind.CANCELLED, Code.CANCELLED), (HaltKind.LIMITED, Code.BATCH_LIMIT)])
def test_a_job_that_would_be_tried_again_ends_where_its_batch_is_stopped(kind: HaltKind, code: Code) -> None:
    bench, end = halts_after(kind, an_error(500), an_answer())
    assert (end.state, end.result["code"], end.result["message"]) == ("cancelled", code, "enough")
    assert len(bench.transport.calls) == 1


def test_a_halt_that_is_learnt_while_a_job_is_marked_keeps_its_call_from_beginning() -> None:
    class Slow(MemoryStore):
        async def mark_called(self, id: str, fence: int) -> Fate:  # noqa: A002 the document's own word
            bench.halts.learn([Halt(EVERYTHING, HaltKind.PAUSED, 1, "", datetime.now(UTC))])
            return await super().mark_called(id, fence)

    bench = Bench(one_after_another(an_answer()))
    bench.caller.store = Slow(bench.database, "us")
    wait = run(bench.process(execution="at_most_once"))
    assert (wait.why_waiting, wait.nothing_sent, bench.transport.calls) == ("paused", True, [])


def test_a_throttled_job_is_no_job_whose_outcome_is_unknown() -> None:
    _, wait = waiting(an_error(429, retry_after="30"), execution="at_most_once")
    assert wait.nothing_sent


def test_a_short_cooldown_is_waited_for_in_memory() -> None:
    bench, end = finished(an_error(429, retry_after_ms="20"), an_answer())
    assert (end.state, len(bench.transport.calls)) == ("succeeded", 2)


def test_a_cooldown_of_one_target_sends_the_job_to_the_next() -> None:
    settings = {
        "providers": {name: {"base_url": f"http://{name}", "models": ["m"]} for name in ("main", "other")},
    }
    bench, end = finished(an_error(429, retry_after="30"), an_answer(), settings=settings)
    assert end.row is not None
    assert (end.row["credential"], len(bench.transport.calls)) == ("other", 2)


def test_a_refused_credential_is_not_the_jobs_fault() -> None:
    bench, wait = waiting(an_error(401), max_attempts=1)
    assert (wait.why_waiting, wait.wait_key, wait.attempts) == ("credential", "credential:main", 0)
    assert 14 < in_seconds(wait) < 19
    assert bench.rows() == []


def test_a_credential_that_works_again_releases_those_that_waited() -> None:
    async def life() -> Bench:
        bench = Bench(one_after_another(an_answer()))
        bench.gates.breaker("main").refused(0)
        await bench.process()
        return bench

    assert run(life()).released == ["credential:main"]


NO_CREDIT = Reply(429, {}, b'{"error": {"message": "pay", "type": "insufficient_quota", "code": "insufficient_quota"}}')


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (NotSent("no route"), "not_sent"),
        (an_error(429, retry_after="30"), "rate_limited"),
        (an_error(401), "credential_refused"),
        (NO_CREDIT, "provider_quota"),
        (an_error(500, retry_after="10"), "provider_error"),
    ],
)
def test_a_job_that_waits_remembers_what_stood_in_its_way(answer: Outcome, code: str) -> None:
    assert waiting(answer)[1].last_failure == code


@pytest.mark.parametrize("code", [Code.RATE_LIMITED, Code.PROVIDER_QUOTA])
def test_a_job_that_never_got_to_call_remembers_what_others_were_told(code: Code) -> None:
    bench = Bench(one_after_another(an_answer()))
    if code is Code.RATE_LIMITED:
        bench.gates.gate("main", "m").cool(time.time() + 60)
    else:
        bench.gates.breaker("main").refused(time.time(), code)
    wait = run(bench.process())
    assert isinstance(wait, Waiting)
    assert (wait.last_failure, bench.transport.calls) == (code, [])


def test_a_job_whose_deadline_passes_between_two_attempts_says_what_stood_in_the_way() -> None:
    async def life() -> Any:  # noqa: ANN401 a finish or a wait
        def refuse(_: Call) -> Reply:
            ready.deadline = time.time()
            return an_error(429, retry_after_ms="1")

        bench = Bench(refuse)
        ready = await bench.claimed()
        return await bench.pipeline.process(ready, bench.under_way)

    end = run(life())
    assert isinstance(end, Finish)
    assert (end.state, end.result["code"]) == ("expired", "rate_limited")


def test_a_failure_is_tried_again_as_often_as_the_job_says() -> None:
    bench, end = finished(an_error(500, retry_after_ms="1"), max_attempts=3)
    assert (end.state, end.result["code"], end.result["attempts"]) == ("failed", "provider_error", 3)
    assert len(bench.transport.calls) == 3
    assert bench.rows() == []


def test_attempts_of_the_same_generation_count_on_after_a_wait() -> None:
    bench, end = finished(an_error(500), attempts=4, max_attempts=5)
    assert (end.state, end.result["attempts"], len(bench.transport.calls)) == ("failed", 5, 1)


def test_a_long_backoff_is_a_document_that_remembers_the_attempts() -> None:
    _, wait = waiting(an_error(500, retry_after="10"), execution="at_most_once")
    assert (wait.why_waiting, wait.attempts, wait.nothing_sent) == ("retry", 1, True)


def test_retries_are_spread_where_the_budget_is_used_up() -> None:
    bench = Bench(one_after_another(an_error(500, retry_after_ms="1")))
    for _ in range(int(RETRY_BURST)):
        bench.gates.gate("main", "m").may_retry()
    wait = run(bench.process())
    assert isinstance(wait, Waiting)
    assert in_seconds(wait) > 3.5


def test_a_call_that_was_cut_is_an_attempt_and_maybe_spend() -> None:
    bench, end = finished(SentUnknown("cut"), an_answer())
    assert (end.state, end.result["attempts"]) == ("succeeded", 2)
    (row,) = bench.rows()
    assert (row["_id"], row["estimated"], row["billed"], row["outcome"]) == ("uid/1/1.1", True, False, "sent_unknown")
    assert [record.topic for record in bench.sent.records] == ["usage"]


def test_a_call_that_was_cut_is_not_repeated_where_that_was_asked_for() -> None:
    bench, end = finished(SentUnknown("cut"), an_answer(), execution="at_most_once")
    assert (end.state, end.result["code"], len(bench.transport.calls)) == ("failed", "outcome_unknown", 1)
    assert len(bench.rows()) == 1


def test_an_answer_that_is_too_large_is_final_and_maybe_spend() -> None:
    bench, end = finished(AnswerTooLarge("13 MB"), an_answer())
    assert (end.state, end.result["code"], len(bench.transport.calls)) == ("failed", "answer_too_large", 1)
    assert [row["estimated"] for row in bench.rows()] == [True]


@pytest.mark.parametrize(
    ("status", "code"), [(400, "provider_rejected"), (413, "provider_rejected"), (422, "provider_rejected")]
)
def test_a_rejection_is_final(status: int, code: str) -> None:
    bench, end = finished(an_error(status), an_answer())
    assert (end.state, end.result["code"], len(bench.transport.calls)) == ("rejected", code, 1)
    assert bench.rows() == []


def test_a_failed_answer_that_reports_usage_is_on_the_ledger_as_it_was() -> None:
    bench, end = finished(Reply(200, {}, b'{"error": {"message": "no"}, "tokens": [7, 0, 0, 3, 0]}'), an_answer())
    assert end.state == "succeeded"
    (row,) = bench.rows()
    assert (row["estimated"], row["billed"], row["input_tokens"], row["output_tokens"]) == (False, False, 7, 3)


def test_an_answer_without_usage_is_billed_by_an_estimate() -> None:
    _, end = finished(an_answer(tokens=None), body={**BODY, "max_tokens": 5})
    assert end.row is not None
    assert (end.row["estimated"], end.row["billed"], end.row["output_tokens"]) == (True, True, 5)


def test_what_providers_report_is_learned() -> None:
    async def life() -> tuple[int, int]:
        bench = Bench(one_after_another(an_answer(tokens=(4_000, 0, 0, 5, 0))))
        ready = await bench.claimed(body={**BODY, "user": "x" * 10_000})
        await bench.pipeline.process(ready, bench.under_way)
        running = (await bench.pipeline.admission.admit(ready), bench.pipeline.router.targets)
        target = running[1](running[0].job)[0]
        return len(ready.claim.payload) // 4, bench.caller.estimate(running[0], target).input_tokens

    before, after = run(life())
    assert before * 1.1 < after < 4_000


def test_no_call_starts_after_the_deadline() -> None:
    async def life() -> tuple[Bench, Any]:
        bench = Bench(one_after_another(an_answer()))
        ready = await bench.claimed()
        running = await bench.pipeline.admission.admit(ready)
        ready.deadline = (datetime.now(UTC) - timedelta(seconds=1)).timestamp()
        targets = bench.pipeline.router.targets(running.job)
        with pytest.raises(Exception, match="deadline passed") as ended:
            await bench.caller.call(
                running, targets, bench.quota.try_hold(Need("acme", "m", 1, Decimal(1)), datetime.now(UTC))
            )  # type: ignore[arg-type] # free
        return bench, ended.value

    bench, ended = run(life())
    assert (ended.status, bench.transport.calls) == ("expired", [])


def test_a_wait_never_goes_beyond_the_deadline() -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=20)
    _, wait = waiting(an_error(429, retry_after="600"), deadline=deadline.isoformat())
    assert wait.due_at == deadline


def test_no_call_starts_while_the_lease_is_in_doubt() -> None:
    async def life() -> tuple[Bench, Any]:
        bench = Bench(one_after_another(an_answer()))
        ready = await bench.claimed()
        bench.leases._last_good = -1e9
        return bench, await bench.pipeline.process(ready, bench.under_way)

    bench, wait = run(life())
    assert isinstance(wait, Waiting)
    assert (wait.why_waiting, bench.transport.calls) == ("lease", [])


@pytest.mark.parametrize(("execution", "marked"), [("at_most_once", True), ("at_least_once", False)])
def test_a_call_that_must_not_be_repeated_is_marked_before_it(execution: str, marked: bool) -> None:
    marks: list[bool] = []

    async def life() -> None:
        def answer(_: Call) -> Reply:
            marks.append("called" in bench.database.jobs["acme/job"])
            return an_answer()

        bench = Bench(answer)
        await bench.process(execution=execution)

    run(life())
    assert marks == [marked]


def test_a_mark_whose_answer_was_lost_is_written_again_before_the_call() -> None:
    async def life(*, executed: bool) -> tuple[Bench, Any]:
        bench = Bench(one_after_another(an_answer()))
        bench.store.lose_next("mark_called", executed=executed)
        return bench, await bench.process(execution="at_most_once")

    for executed in (True, False):
        bench, end = run(life(executed=executed))
        assert isinstance(end, Finish)
        assert (end.state, len(bench.transport.calls)) == ("succeeded", 1)
        assert bench.database.jobs["acme/job"]["called"] is True


def test_a_job_that_somebody_else_has_is_dropped_before_the_call() -> None:
    async def life() -> Bench:
        bench = Bench(one_after_another(an_answer()))
        ready = await bench.claimed(execution="at_most_once")
        bench.database.jobs["acme/job"]["fence"] += 1
        with pytest.raises(FencedJobError):
            await bench.pipeline.process(ready, bench.under_way)
        return bench

    bench = run(life())
    assert bench.transport.calls == []
    assert bench.under_way == {}


@pytest.mark.parametrize(
    ("reason", "execution", "expected"),
    [
        ("a typing error", "at_least_once", ("cancelled", "cancelled")),
        ("a typing error", "at_most_once", ("cancelled", "cancelled")),
        ("shutdown", "at_least_once", ("cancelled", "cancelled")),
        ("shutdown", "at_most_once", ("cancelled", "cancelled")),
        (SHUTDOWN, "at_most_once", ("failed", "outcome_unknown")),
    ],
)
def test_a_job_that_is_stopped_in_its_call_ends_and_leaves_an_estimated_row(
    reason: str | Shutdown, execution: str, expected: tuple[str, str]
) -> None:
    bench = Bench(silence)
    end = run(stopped(bench, reason, execution=execution))
    assert isinstance(end, Finish)
    assert (end.state, end.result["code"]) == expected
    assert [(row["estimated"], row["billed"], row["outcome"]) for row in bench.rows()] == [(True, False, "cancelled")]


@pytest.mark.parametrize(
    ("outcomes", "attempts"),
    [
        ([SentUnknown("cut"), an_answer()], 1),
        ([SentUnknown("cut"), SentUnknown("cut"), an_error(400)], 2),
        ([AnswerTooLarge("13 MB")], 1),
        ([Reply(200, {}, b'{"error": {"message": "no"}, "tokens": [7, 0, 0, 3, 0]}'), an_answer()], 1),
        ([an_error(500), an_answer()], 0),
        ([an_error(429, **THROTTLED)], 0),
        ([NotSent("no route")], 0),
        ([an_answer()], 0),
    ],
)
def test_what_attempts_without_an_answer_may_have_cost_is_known_when_the_job_leaves(
    outcomes: list[Outcome], attempts: int
) -> None:
    async def life() -> tuple[Bench, float]:
        bench = Bench(one_after_another(*outcomes))
        ready = await bench.claimed()
        await bench.pipeline.process(ready, bench.under_way)
        return bench, ready.spent

    bench, spent = run(life())
    assert len(bench.rows()) == attempts
    assert spent == sum(row["input_tokens"] + 4 * row["output_tokens"] for row in bench.rows())
    assert (spent > 0) is (attempts > 0)


def test_a_job_that_is_stopped_by_the_shutdown_waits_again() -> None:
    bench = Bench(silence)
    wait = run(stopped(bench, SHUTDOWN))
    assert isinstance(wait, Waiting)
    assert (wait.why_waiting, wait.nothing_sent, wait.attempts) == ("handed_back", False, 0)
    assert in_seconds(wait) < 1
    assert len(bench.rows()) == 1


def test_a_hold_is_given_back_unless_the_job_was_answered() -> None:
    cases: list[tuple[Callable[[], tuple[Bench, Any]], bool]] = [
        (lambda: outcome(an_answer()), False),
        (lambda: outcome(an_error(400)), True),
        (lambda: outcome(an_error(429, **THROTTLED)), True),
        (lambda: outcome(AnswerTooLarge("13 MB")), True),
    ]
    for case, released in cases:
        (hold,) = case()[0].quota.holds
        assert hold.released is released
        assert (hold.used is None) is released
