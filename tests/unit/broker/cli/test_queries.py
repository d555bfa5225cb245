"""The questions that the command asks MongoDB."""

from datetime import UTC, datetime

import pytest

from broker.cli.queries import Period, batch_counts, finished, names, usage, usage_row
from broker.errors import UsageError

SINCE = datetime(2026, 12, 1, tzinfo=UTC)


def test_usage_is_matched_by_period_and_tenant() -> None:
    assert usage(["tenant"], Period(since=SINCE), "acme")[0] == {"$match": {"tenant": "acme", "at": {"$gte": SINCE}}}
    assert usage(["tenant"], Period())[0] == {"$match": {}}


def test_usage_is_grouped_in_the_order_that_was_asked_for() -> None:
    group = usage(["day", "tag:team"], Period())[1]["$group"]
    assert list(group["_id"].values()) == [
        {"$dateToString": {"date": "$at", "format": "%Y-%m-%d", "timezone": "UTC"}},
        "$tags.team",
    ]


def test_a_usage_row_has_its_groups_under_their_names() -> None:
    found = {"_id": {"k0": "acme", "k1": "m"}, "calls": 3}
    assert usage_row(["tenant", "model"], found) == {"tenant": "acme", "model": "m", "calls": 3}


@pytest.mark.parametrize("name", ["colour", "tag:", "tag:a.b", "tag:$x"])
def test_what_usage_cannot_be_summed_by_is_refused_with_the_choices(name: str) -> None:
    with pytest.raises(UsageError, match="tenant, model"):
        usage([name], Period())


def test_names_are_split_trimmed_and_said_once() -> None:
    assert names(" tenant, model,,tenant") == ("tenant", "model")


def test_finished_jobs_are_those_of_a_batch_of_the_tenant() -> None:
    assert finished(["failed"], None, "b1") == {"state": {"$in": ["failed"]}, "batch": "default/b1"}
    assert finished([], "acme", None)["tenant"] == "acme"


def test_a_status_that_no_job_ends_with_is_refused() -> None:
    with pytest.raises(UsageError, match="succeeded, failed"):
        finished(["waiting"], None, None)


def test_a_batch_is_counted_over_its_tenants() -> None:
    assert batch_counts([("a", "b1"), ("c", "b1")])[0] == {"$match": {"batch": {"$in": ["a/b1", "c/b1"]}}}
