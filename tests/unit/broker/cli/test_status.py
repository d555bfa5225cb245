"""What is told about a job."""

from datetime import UTC, datetime
from typing import Any

import pytest

from broker.cli.status import halted, job_status, not_seen
from broker.cli.waits import Turn

ARRIVED = datetime(2026, 12, 1, 8, tzinfo=UTC)


def told(**fields: object) -> dict[str, Any]:
    return job_status({"_id": "acme/a/7", "state": "waiting", "generation": 1, "arrived_at": ARRIVED, **fields})


def test_an_id_may_hold_slashes() -> None:
    status = told()
    assert (status["tenant"], status["job_id"]) == ("acme", "a/7")


def test_a_waiting_job_says_why_and_until_when() -> None:
    status = told(why_waiting="quota", due_at=ARRIVED, attempts=2)
    assert (status["why_waiting"], status["due_at"], status["attempts"]) == ("quota", ARRIVED, 2)
    assert "quota is used up" in status["meaning"]


@pytest.mark.parametrize(
    "why", ["queued", "scheduled", "retry", "not_sent", "rate_limited", "credential", "lease", "paused", "rerun"]
)
def test_every_reason_to_wait_has_a_sentence(why: str) -> None:
    assert told(why_waiting=why, last_failure="not_sent")["meaning"]


def test_a_waiting_job_says_what_stood_in_its_way_last() -> None:
    assert told(why_waiting="handed_back", last_failure="rate_limited")["last_failure"] == "rate_limited"


def test_a_finished_job_says_what_came_out_and_whether_it_was_told() -> None:
    result = {"code": "expired", "message": "m", "attempts": 3, "finished_at": ARRIVED}
    status = told(state="expired", why_waiting="quota", result=result, outbox="t")
    assert (status["code"], status["attempts"], status["published"]) == ("expired", 3, False)
    assert status["why_waiting"] is None
    assert "deadline" in status["meaning"]


def test_the_keys_are_the_same_for_every_state() -> None:
    turn = Turn(before=0, ready=0, tenant_per_s=0.0, priority_per_s=0.0, workers=1).told(ARRIVED, ARRIVED)
    assert told().keys() == told(state="claimed", owner="w").keys()
    assert told().keys() == not_seen("acme/a", None, {"normal": 3}).keys() == (told() | turn).keys()


def test_a_job_that_nobody_has_read_is_not_seen_behind_what_is_unread() -> None:
    status = not_seen("acme/a/7", None, {"normal": 1200, "batch": 0})
    assert (status["job_id"], status["state"], status["unread"]) == ("a/7", "not_seen", {"normal": 1200, "batch": 0})
    assert "1,200 of normal are unread" in status["meaning"]


def test_what_was_asked_of_a_job_that_has_not_arrived_is_told() -> None:
    status = not_seen("acme/a", {"state": "announced", "cancel": "too dear"}, {"normal": 0})
    assert (status["state"], status["cancel"]) == ("not_seen", "too dear")
    assert "was never sent" in status["meaning"]


def test_a_paused_job_says_so_whatever_it_waited_for_before_and_how_that_ends() -> None:
    halts = [{"_id": "acme/b", "kind": "paused", "reason": "too dear"}, {"_id": "*", "kind": "paused"}]
    waiting = {"_id": "acme/a", "state": "waiting", "why_waiting": "queued", "due_at": datetime(9999, 1, 1, tzinfo=UTC)}
    status = job_status(waiting, halts)
    assert (status["why_waiting"], status["due_at"]) == ("paused", None)
    assert "paused (too dear): `aibroker resume --batch b --tenant acme`" in status["meaning"]
    assert "paused: `aibroker resume --all`" in status["meaning"]
    assert job_status({**waiting, "state": "claimed"}, halts)["why_waiting"] is None
    assert "--tenant acme`" in halted({"_id": "acme", "kind": "paused"})
