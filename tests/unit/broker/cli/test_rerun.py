"""Which jobs a selection means."""

from datetime import UTC, datetime, timedelta

import pytest

from broker.cli.rerun import _query
from broker.errors import ControlRefused, UsageError


def test_a_selection_is_of_jobs_that_can_run_again_and_had_ended_when_it_was_made() -> None:
    query = _query("", None, None, None, tenant="acme", batch="b")
    assert query["batch"] == "acme/b"
    assert set(query["state"]["$in"]) == {"failed", "rejected", "expired", "cancelled", "dead"}
    assert query["payload"] == {"$exists": True}
    assert query["$expr"] == {"$lte": ["$finished_at", "$$NOW"]}


def test_a_selection_may_name_status_code_and_time() -> None:
    query = _query("failed,dead", "provider_error", "2h", "2026-12-01", tenant=None, batch=None)
    assert (query["state"], query["result.code"]) == ({"$in": ["failed", "dead"]}, "provider_error")
    assert abs(query["finished_at"]["$gte"] - datetime.now(UTC) + timedelta(hours=2)) < timedelta(minutes=1)
    assert query["finished_at"]["$lt"] == datetime(2026, 12, 1, tzinfo=UTC)
    assert "batch" not in query


def test_what_succeeded_cannot_be_selected() -> None:
    with pytest.raises(ControlRefused) as caught:
        _query("succeeded", None, None, None, tenant=None, batch="b")
    assert caught.value.code == "already_succeeded"
    with pytest.raises(UsageError, match="no job ends as 'waiting'"):
        _query("waiting", None, None, None, tenant=None, batch="b")
