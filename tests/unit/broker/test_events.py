"""A log line is an event: one JSON object with a dotted name and fields."""

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from broker.events import Events, to_stream


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where events go; the loggers are as they were afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("aibroker")
    before = root.handlers[:], root.level, ours.level
    taken = io.StringIO()
    yield taken
    root.handlers[:], root.level, ours.level = before


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_with_its_name_and_fields(stream: io.StringIO) -> None:
    to_stream("info", stream)
    before = datetime.now(UTC)
    Events("worker.reader").info("reader.paused", priority="batch", jobs=3)
    (line,) = lines(stream)
    at = datetime.fromisoformat(line.pop("at"))
    assert abs((at - before).total_seconds()) < 60
    assert line == {
        "level": "info",
        "event": "reader.paused",
        "part": "worker.reader",
        "priority": "batch",
        "jobs": 3,
    }


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["a", "b", "c", "d"]),
        ("info", ["b", "c", "d"]),
        ("warning", ["c", "d"]),
        ("error", ["d"]),
    ],
)
def test_a_level_hides_what_is_below_it(stream: io.StringIO, level: str, shown: list[str]) -> None:
    to_stream(level, stream)
    events = Events("x")
    events.debug("a")
    events.info("b")
    events.warning("c")
    events.error("d")
    assert [line["event"] for line in lines(stream)] == shown


def test_libraries_are_heard_from_warnings_on(stream: io.StringIO) -> None:
    to_stream("debug", stream)
    logging.getLogger("aiokafka").info("chatter")
    logging.getLogger("aiokafka").warning("%s is away", "the broker")
    (line,) = lines(stream)
    assert (line["event"], line["part"], line["level"]) == ("the broker is away", "aiokafka", "warning")


def test_an_error_carries_its_traceback_in_one_line(stream: io.StringIO) -> None:
    to_stream("info", stream)
    with pytest.raises(ValueError, match="a") as raised:
        int("a\nb")
    Events("x").error("job.failed", raised.value, job="acme/1")
    (line,) = lines(stream)
    assert line["job"] == "acme/1"
    assert line["traceback"].startswith("Traceback (most recent call last):\n")
    assert "ValueError: invalid literal" in line["traceback"]


@pytest.mark.parametrize(
    "value",
    [
        None,
        Decimal("0.10"),
        Path("x"),
        {1: "a"},
        {"a"},
        b"\xff",
        object(),
        float("nan"),
        2**70,
        "\ud800",
        {"deep": 2**70},
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_field_holds_the_line_is_written(
    stream: io.StringIO, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    to_stream("info", stream)
    Events("x").info("odd", value=value)
    (line,) = lines(stream)
    assert line["event"] == "odd"
    assert "value" in line
    assert not capsys.readouterr().err
