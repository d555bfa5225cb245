"""What a fault run knows of its workers from their logs."""

import json
from pathlib import Path

from tests.faults.told import events, reassigned, told_between, unacknowledged


def at(second: int, event: str, **fields: object) -> str:
    return json.dumps({"at": f"2026-12-01T00:00:{second:02}.000+00:00", "event": event, **fields})


def given(second: int, *partitions: int, priority: str = "normal") -> str:
    return at(second, "reader.assigned", priority=priority, partitions=list(partitions))


SINCE = 1_796_083_210.0  # 2026-12-01T00:00:10Z


def test_a_line_that_is_no_event_is_left_out() -> None:
    lines = ["Traceback (most recent call last):", '{"at": "2026-12-01T00:00:00', "7", '{"event": "x"}', given(1, 0)]
    assert [event["event"] for event in events(lines)] == ["reader.assigned"]


def test_the_logs_of_all_workers_are_read_between_two_moments(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("\n".join(at(second, f"one.{second}") for second in (9, 10, 12)))
    (tmp_path / "two").write_text(at(11, "two") + "\n")
    told = told_between(SINCE, SINCE + 1, [tmp_path / "one", tmp_path / "two"])
    assert [event["event"] for event in told] == ["one.10", "two"]


def test_a_partition_that_was_given_out_twice_is_reassigned() -> None:
    told = events([given(1, 0, 1), given(11, 1), given(12, 0, priority="batch")])
    assert reassigned(told, SINCE) == {("jobs.normal", 1)}


def test_a_first_assignment_that_came_late_is_none_of_a_rebalance() -> None:
    assert not reassigned(events([given(11, 0, 1)]), SINCE)


def test_what_was_given_out_again_before_anything_was_sent_is_none_of_a_rebalance() -> None:
    assert not reassigned(events([given(1, 0, 1), given(2, 0)]), SINCE)


def test_assignments_are_put_in_order_over_all_logs() -> None:
    assert reassigned(events([given(11, 0), given(1, 0)]), SINCE) == {("jobs.normal", 0)}


def test_a_dead_letter_that_kafka_did_not_acknowledge_is_known_by_its_record() -> None:
    line = at(11, "record.dead_unacknowledged", topic="p.jobs.normal", partition=2, offset=7)
    assert unacknowledged(
        events([line, at(11, "record.dead", topic="p.jobs.normal", partition=1, offset=1)]), "p."
    ) == {("jobs.normal", 2, 7)}
