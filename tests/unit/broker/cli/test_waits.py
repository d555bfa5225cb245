"""When a waiting job will probably start."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.cli.waits import MEANING, Turn, turn_among

NOW = datetime(2026, 12, 1, 8, tzinfo=UTC)


def a_turn(**fields: Any) -> Turn:  # noqa: ANN401 a turn's fields
    return Turn(**{"before": 0, "ready": 0, "tenant_per_s": 2.0, "priority_per_s": 10.0, "workers": 1} | fields)


def a_lease(*starts: tuple[str, str, float], ready: int = 0, **fields: object) -> dict[str, Any]:
    told = {
        "ready": [{"priority": "normal", "jobs": ready}],
        "starts": [{"priority": priority, "tenant": tenant, "per_s": per_s} for priority, tenant, per_s in starts],
    }
    return {"_id": "w", "told": told, **fields}


def test_jobs_before_start_at_the_tenants_rate_and_ready_ones_at_the_prioritys() -> None:
    assert a_turn(before=50, ready=30).starts_in_s() == 50 / 2 + 30 / 10


def test_a_job_before_which_there_is_nothing_starts_at_once() -> None:
    assert a_turn(tenant_per_s=0.0, priority_per_s=0.0).starts_in_s() == 0


@pytest.mark.parametrize(
    "fields",
    [{"workers": 0}, {"before": 1, "tenant_per_s": 0.0}, {"ready": 1, "priority_per_s": 0.0}],
)
def test_nothing_is_said_where_nothing_like_it_has_started_of_late(fields: dict[str, Any]) -> None:
    assert a_turn(**fields).starts_in_s() is None
    assert a_turn(**fields).told(NOW, NOW)["estimated_start"] is None


def test_no_job_starts_before_it_is_due() -> None:
    later = NOW + timedelta(hours=1)
    assert a_turn(before=50).told(later, NOW)["estimated_start"] == later
    assert a_turn(before=50).told(NOW, NOW) == {
        "jobs_before": 50,
        "starts_per_s": 2.0,
        "estimated_start": NOW + timedelta(seconds=25),
    }


def test_rates_and_ready_jobs_are_added_over_the_workers_that_take_jobs() -> None:
    leases = [
        a_lease(("normal", "acme", 1.5), ("normal", "beta", 3.0), ("batch", "acme", 7.0), ready=4),
        a_lease(("normal", "acme", 0.5), ready=2),
        a_lease(("normal", "acme", 9.0), ready=9, drain=NOW),
        {"_id": "silent"},
    ]
    assert turn_among(8, "normal", "acme", leases) == Turn(8, 6, tenant_per_s=2.0, priority_per_s=5.0, workers=3)


def test_every_reason_that_a_worker_gives_has_a_sentence() -> None:
    root = Path(__file__).parents[4] / "workers"
    given = re.compile(r'(?:Postponed\(.*?|_pause\(.*?|why_waiting"?(?:: |=|, new\.))"([a-z_]+)"')
    reasons = {reason for path in root.rglob("*.py") for reason in given.findall(path.read_text(encoding="utf-8"))}
    assert {"scheduled", "quota", "retry", "taken_over", "queued"} <= reasons
    assert reasons - {"cancel"} <= MEANING.keys()
