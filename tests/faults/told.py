"""Reads what the workers of a run told in their logs; imports nothing of ours."""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.faults.history import Place

Event = Mapping[str, Any]


def events(lines: Iterable[str]) -> Iterator[Event]:
    """The events of a log; what is none, or was cut off by a kill, is left out."""
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and {"event", "at"} <= event.keys():
            yield event


def told_between(since: float, until: float, logs: Iterable[Path]) -> list[Event]:
    """The events of all these logs from one moment to another (unix seconds)."""
    found = []
    for path in logs:
        with path.open(errors="replace") as log:
            found += [event for event in events(log) if since <= _at(event) <= until]
    return found


def reassigned(told: Iterable[Event], since: float) -> frozenset[tuple[str, int]]:
    """The partitions that some worker was given later than `since`, and some worker had been given before; topics are named without prefix."""
    known: set[tuple[str, int]] = set()
    again: set[tuple[str, int]] = set()
    for event in sorted((each for each in told if each["event"] == "reader.assigned"), key=_at):
        partitions = {(f"jobs.{event['priority']}", number) for number in event["partitions"]}
        if _at(event) >= since:
            again |= partitions & known
        known |= partitions
    return frozenset(again)


def unacknowledged(told: Iterable[Event], prefix: str) -> frozenset[Place]:
    """The records whose dead letter was sent once more; `prefix` is what comes before the topics' names."""
    return frozenset(
        (event["topic"].removeprefix(prefix), event["partition"], event["offset"])
        for event in told
        if event["event"] == "record.dead_unacknowledged"
    )


def _at(event: Event) -> float:
    return datetime.fromisoformat(event["at"]).timestamp()
