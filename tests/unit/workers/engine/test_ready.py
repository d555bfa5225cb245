"""What may start here: estimates, deadlines, room, and who is told."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from broker.codec import parse
from broker.outputs import ASSUMED_OUTPUT, output_limit
from broker.settings import Settings
from schemas.codes import Code
from workers.engine.ready import OUTPUT_WEIGHT, ReadyQueue
from workers.stores.protocol import Address, Claim

NOW = datetime(2026, 12, 1, 8, tzinfo=UTC)
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def claim(name: str, *, priority: str = "normal", tenant: str = "acme", **fields: Any) -> Claim:  # noqa: ANN401 any JSON value
    return Claim(
        id=f"{tenant}/{name}",
        uid=name,
        generation=1,
        fence=1,
        tenant=tenant,
        job_id=name,
        priority=priority,
        payload=orjson.dumps({"body": BODY, **fields}),
        arrived_at=NOW,
        replies=(Address("results"),),
        replies_n=1,
    )


def queue(**worker: int) -> ReadyQueue:
    return ReadyQueue(Settings.model_validate({"worker": worker}))


def names(ready: ReadyQueue) -> list[str]:
    return [job.claim.job_id for job in iter(ready.pop, None)]


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        ({}, None),
        ({"max_tokens": 16}, 16),
        ({"max_output_tokens": 17}, 17),
        ({"max_tokens": 16, "max_completion_tokens": 18}, 18),
        ({"max_tokens": 0}, None),
        ({"max_tokens": -5}, None),
        ({"max_tokens": "16"}, None),
        ({"max_tokens": None}, None),
    ],
)
def test_the_output_limit_is_what_the_body_asks_for(body: dict[str, object], limit: int | None) -> None:
    assert output_limit(body) == limit


def test_a_job_without_a_deadline_has_that_of_its_priority() -> None:
    ready = queue()
    for priority in ("interactive", "normal", "batch"):
        ready.accept(claim(priority, priority=priority))
    found = {job.claim.priority: timedelta(seconds=job.deadline - NOW.timestamp()) for job in iter(ready.pop, None)}
    assert found == {
        "interactive": timedelta(minutes=10),
        "normal": timedelta(days=1),
        "batch": timedelta(days=7),
    }


def test_a_deadline_of_the_job_goes_before_that_of_its_priority() -> None:
    ready = queue()
    ready.accept(claim("late", deadline="2027-01-01T00:00:00Z"))
    ready.accept(claim("soon", deadline="2026-12-01T08:05:00Z"))
    assert names(ready) == ["soon", "late"]


def test_a_scheduled_job_has_the_time_of_its_priority_from_when_it_may_begin() -> None:
    ready = queue()
    ready.accept(claim("a", priority="interactive", not_before="2026-12-01T20:00:00Z"))
    job = ready.pop()
    assert job is not None
    assert job.deadline == (NOW + timedelta(hours=12, minutes=10)).timestamp()


@pytest.mark.parametrize(("days", "kept"), [(7, True), (8, False), (2_000_000, False)])
def test_a_schedule_beyond_the_time_for_which_jobs_are_kept_is_refused(days: int, kept: bool) -> None:
    ready = queue()
    later = NOW + timedelta(days=days) if days < 1_000 else datetime.max.replace(tzinfo=UTC, microsecond=0)
    ready.accept(claim("a", not_before=later.isoformat(), metadata="x"))
    job = ready.pop()
    assert job is not None
    assert (job.parsed.refusal is None) is kept
    if job.parsed.refusal is not None:
        assert job.parsed.refusal.code == Code.SCHEDULED_TOO_LATE
        assert job.parsed.refusal.message.startswith(
            "not_before: jobs are kept for 7 days, 0:00:00; The not_before is later"
        )
        assert job.parsed.metadata == "x"


def test_a_job_that_was_parsed_is_not_parsed_again() -> None:
    ready, one = queue(), claim("a")
    said = parse(one.payload, NOW)
    ready.accept(one, said)
    job = ready.pop()
    assert job is not None
    assert job.parsed is said


def test_a_refused_job_is_ready_to_be_told_so() -> None:
    ready = queue()
    ready.accept(claim("a", dedline="x"))
    job = ready.pop()
    assert job is not None
    assert job.parsed.refusal is not None
    assert job.cost > 0


def test_cost_is_the_payload_and_four_times_the_output() -> None:
    costs = []
    for limit in (16, 256, 100_000):
        ready = queue()
        ready.accept(claim("a", body={**BODY, "max_tokens": limit}))
        job = ready.pop()
        assert job is not None
        costs.append(job.cost - len(job.claim.payload) / 4)
    assert costs == [OUTPUT_WEIGHT * 16, OUTPUT_WEIGHT * 256, OUTPUT_WEIGHT * 256]


def test_what_has_no_output_costs_its_payload_alone() -> None:
    ready = queue()
    ready.accept(claim("a", operation="embeddings", body={"model": "m", "input": "hi"}))
    job = ready.pop()
    assert job is not None
    assert job.cost == len(job.claim.payload) / 4


def test_room_is_what_fits_and_never_below_nothing() -> None:
    ready = queue(ready=2)
    rooms = [ready.room("normal")]
    for name in "abc":
        ready.accept(claim(name))
        rooms.append(ready.room("normal"))
    assert rooms == [2, 1, 0, 0]
    assert (len(ready), ready.size("normal"), ready.size("batch")) == (3, 3, 0)


def test_a_priority_that_was_taken_out_of_the_settings_counts_as_the_last() -> None:
    ready = queue()
    ready.accept(claim("a", priority="forgotten"))
    assert ready.size("forgotten") == ready.size("batch") == 1
    job = ready.pop()
    assert job is not None
    assert job.deadline == (NOW + timedelta(days=7)).timestamp()
    ready.settle(job, 0)


def test_the_first_priority_alone_can_be_asked_for() -> None:
    ready = queue()
    ready.accept(claim("batch", priority="batch"))
    assert ready.pop(only_first=True) is None
    ready.accept(claim("soon", priority="interactive"))
    job = ready.pop(only_first=True)
    assert job is not None
    assert job.claim.job_id == "soon"


def test_what_is_overdue_here_is_taken_out_and_no_longer_marked() -> None:
    ready = queue()
    ready.accept(claim("late", deadline="2026-12-01T08:05:00Z"))
    ready.accept(claim("in time"))
    [late] = ready.overdue((NOW + timedelta(minutes=5)).timestamp())
    assert late.claim.job_id == "late"
    ready.mark("acme/late", "too late")
    assert late.claim.cancel is None
    assert names(ready) == ["in time"]


def test_a_cancelled_job_that_waits_here_is_marked() -> None:
    ready = queue()
    ready.accept(claim("a"))
    ready.mark("acme/a", "a typing error")
    ready.mark("acme/unknown", "nobody")
    job = ready.pop()
    assert job is not None
    assert job.claim.cancel == "a typing error"


def test_what_was_cancelled_is_taken_out_before_its_turn_and_neither_charged_nor_given_anything_back() -> None:
    ready = queue()
    for name in ("a", "b", "c"):
        ready.accept(claim(name, tenant="acme"))
        ready.accept(claim(name, tenant="beta"))
    ready.accept(replace(claim("d"), cancel="before it was taken"))
    assert [job.claim.cancel for job in ready.cancelled()] == ["before it was taken"]
    ready.changed.clear()
    ready.mark("acme/b", "a typing error")
    assert ready.changed.is_set()
    [gone] = ready.cancelled()
    assert (gone.claim.id, ready.cancelled()) == ("acme/b", [])
    room = ready.room_bytes("normal")
    ready.leave(gone)
    ready.settle(gone, 0.0)
    assert (ready.room_bytes("normal"), len(ready)) == (room, 5)
    assert [job.claim.tenant for job in (ready.pop() for _ in range(4)) if job] == ["acme", "beta"] * 2


def test_who_waits_for_a_job_is_told() -> None:
    ready = queue()
    assert not ready.changed.is_set()
    ready.accept(claim("a"))
    assert ready.changed.is_set()


def test_a_tenant_with_due_jobs_in_the_store_is_hungry_until_it_has_half_of_its_room() -> None:
    ready = queue(ready=64)  # 16 for one tenant of one priority
    assert (ready.hungry("normal"), ready.any_behind()) == ([], False)
    ready.fell_behind("normal", "acme")
    assert (ready.hungry("normal"), ready.hungry("batch"), ready.any_behind()) == (["acme"], [], True)
    for number in range(8):
        ready.accept(claim(str(number)))
    assert ready.hungry("normal") == ["acme"]
    ready.accept(claim("one more"))
    assert ready.hungry("normal") == []
    assert ready.is_behind("normal", "acme")
    ready.caught_up("normal", "acme")
    assert not ready.is_behind("normal", "acme")


def test_the_hungry_are_named_by_their_right_to_be_served_next() -> None:
    ready = queue()
    for tenant in ("a", "b"):
        ready.accept(claim(f"{tenant}1", tenant=tenant))
    served = ready.pop()
    assert served is not None
    ready.behind("normal", ["a", "b"])
    assert ready.hungry("normal")[1] == served.claim.tenant


def test_what_was_used_beyond_the_estimate_is_charged_to_the_tenant() -> None:
    ready = queue()
    for number in range(20):
        ready.accept(claim(f"a{number}", tenant="a"))
        ready.accept(claim(f"b{number}", tenant="b"))
    first, second = ready.pop(), ready.pop()
    assert first is not None
    assert second is not None
    ready.settle(first, first.cost + 5 * second.cost)
    assert {job.claim.tenant for job in (ready.pop() for _ in range(4)) if job} == {second.claim.tenant}


def test_tenants_are_served_by_the_weights_of_the_settings() -> None:
    ready = ReadyQueue(Settings.model_validate({"tenants": {"a": {"weight": 3}}}))
    for number in range(40):
        ready.accept(claim(f"a{number}", tenant="a"))
        ready.accept(claim(f"b{number}", tenant="b"))
    served = [job.claim.tenant for job in (ready.pop() for _ in range(40)) if job]
    assert served.count("a") == pytest.approx(30, abs=1)


def test_everything_can_be_taken_out() -> None:
    ready = queue()
    for name in "abc":
        ready.accept(claim(name))
    assert sorted(job.claim.job_id for job in ready.drain()) == ["a", "b", "c"]
    assert len(ready) == 0


def test_the_age_of_the_next_job_is_told() -> None:
    ready = queue()
    assert ready.oldest_s("normal", NOW) == 0
    ready.accept(claim("a"))
    assert ready.oldest_s("normal", NOW + timedelta(seconds=12)) == 12
    assert ready.oldest_s("batch", NOW) == 0


def large(name: str, size: int = 400_000) -> Claim:
    return replace(claim(name), payload=claim(name).payload.ljust(size))


def test_room_ends_where_payloads_fill_it_and_begins_where_a_job_is_done_with() -> None:
    ready = queue(payload_mb=2)
    for number in range(5):
        ready.accept(large(str(number)))
    assert (ready.room("normal"), ready.room_bytes("normal")) == (0, -200_000)
    running = [ready.pop() for _ in range(2)]
    assert ready.room("normal") == 0  # they run here
    for one in running:
        assert one is not None
        ready.leave(one)
        ready.leave(one)
    assert (ready.room("normal"), ready.room_bytes("normal")) == (1, 600_000)
    ready.withdraw(lambda _: True)
    assert ready.room_bytes("normal") == 1_800_000


def test_a_share_of_the_bytes_is_kept_for_the_first_priority_and_room_for_any_job_is_left_to_the_others() -> None:
    ready = queue(payload_mb=3, reserved_share=0.2)
    first, other = ready.priorities[0], ready.priorities[-1]
    while ready.room_bytes(other) >= 400_000:
        ready.accept(large(str(len(ready))))
    assert (ready.room(other), ready.room_bytes(first)) == (0, 600_000)
    assert ready.room(first) > 0
    assert queue(payload_mb=2, reserved_share=0.9).room_bytes(other) == 1_000_000


def test_how_many_fit_follows_the_sizes_that_come() -> None:
    ready = queue(payload_mb=2, ready=4_000)
    assert ready.room("normal") == 3  # nothing is known yet
    for number in range(100):
        ready.accept(claim(str(number)))
    assert ready.room("normal") > 1_000
    for one in iter(ready.pop, None):
        ready.leave(one)
    for number in range(4):
        ready.accept(large(str(number)))
    assert ready.room("normal") < 10


def test_a_job_costs_what_answers_were_long_of_late() -> None:
    ready = queue()
    ready.accept(claim("before", tenant="a"))
    for _ in range(20):
        ready.outputs.learn("a", "m", "", 50)
    ready.accept(claim("after", tenant="a"))
    before, after = ready.pop(), ready.pop()
    assert before is not None
    assert after is not None
    assert before.cost - after.cost == OUTPUT_WEIGHT * (ASSUMED_OUTPUT - 50)
