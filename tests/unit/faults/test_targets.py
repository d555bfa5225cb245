"""What a run has to show for R1 and R4, and when a run was not what it was meant to be."""

from dataclasses import replace
from typing import Any

from tests.faults.driver import Outcome
from tests.faults.scenario import struck
from tests.faults.targets import entries

KILLED: dict[str, Any] = {"how": "random", "calls_open": 60}
AWAY: dict[str, Any] = {"how": "kafka killed", "calls_open": 60, "resumed_after_s": 2.0}
R1 = Outcome("r1", 1, 100_000, 600.0, kills=(KILLED,) * 20, calls=101_000, repeated_calls=900, cut_calls=1_000)
R4 = Outcome("r4", 1, 20_000, 600.0, faults=(AWAY,) * 6, calls=18_000)


def test_a_target_has_an_entry_where_there_was_a_run_for_it() -> None:
    assert entries([]) == {}
    assert {name: entry["holds"] for name, entry in entries([R1, R4]).items()} == {"R1": True, "R4": True}


def test_r1_does_not_hold_with_more_repeated_calls_than_were_open_at_the_kills() -> None:
    entry = entries([replace(R1, repeated_calls=1_001)])["R1"]
    assert not entry["holds"]
    assert entry["value"]["repeated_calls"] == 1_001


def test_r4_does_not_hold_with_one_repeated_call() -> None:
    assert not entries([replace(R4, repeated_calls=1)])["R4"]["holds"]


def test_no_target_holds_where_an_invariant_broke_or_the_run_was_not_whole() -> None:
    lost = entries([replace(R1, problems={"1": ["lost"]})])["R1"]
    assert not lost["holds"]
    assert lost["value"]["lost"] == 1
    assert not entries([replace(R4, incomplete="struck 5 times instead of 6")])["R4"]["holds"]


def test_a_run_is_incomplete_where_too_little_was_struck_or_too_few_calls_were_open() -> None:
    enough = struck(2, 50)
    assert enough([KILLED, AWAY]) == ""
    assert enough([KILLED]) == "struck 1 times instead of 2"
    assert enough([KILLED, {"how": "x", "calls_open": 49}]) == "49 calls were open at one of them"
