"""What is told about workers, and which of them a beginning stands for."""

from datetime import UTC, datetime
from typing import Any

import pytest

from broker.cli.workers import chosen, worker_row
from broker.errors import UsageError

NOW = datetime(2026, 12, 1, 8, tzinfo=UTC)


def told(**fields: object) -> dict[str, Any]:
    return worker_row({"_id": "a1", "host": "h", "lease_s": 21.5, **fields}, 7)


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({}, "living"),
        ({"drain": NOW}, "draining"),
        ({"lease_s": -0.5}, "expired"),
        ({"lease_s": -0.5, "drain": NOW}, "expired"),
        ({"lease_s": None}, "expired"),
        ({"fenced": True}, "fenced"),
        ({"fenced": True, "drain": NOW, "lease_s": 3}, "fenced"),
    ],
)
def test_a_worker_is_as_its_lease_and_its_marks_say(fields: dict[str, Any], state: str) -> None:
    assert told(**fields)["state"] == state


def test_what_a_worker_told_stands_beside_what_is_in_its_name_now() -> None:
    row = told(told={"running": 5, "at": NOW})
    assert (row["running"], row["claimed"], row["told_at"]) == (5, 7, NOW)


def test_the_keys_are_the_same_for_one_that_said_nothing_yet() -> None:
    assert told().keys() == told(told={"running": 5, "at": NOW}, fenced=True).keys()


def test_a_beginning_stands_for_the_one_worker_that_begins_so() -> None:
    assert chosen(["b", "a1", "b2"], ["a1f", "a2f", "b2f"]) == ["b2f", "a1f"]


@pytest.mark.parametrize(("beginning", "why"), [("a", "2 workers begin so"), ("c", "no worker that lives")])
def test_a_beginning_that_stands_for_none_or_for_several_is_refused(beginning: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        chosen(["b", beginning], ["a1f", "a2f", "b2f"])
