"""Lengths of time and moments as people type them."""

from datetime import UTC, datetime, timedelta

import pytest

from broker.cli.durations import duration, moment, rfc3339
from broker.errors import UsageError

NOW = datetime(2026, 12, 1, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("1h30m", timedelta(minutes=90)),
        ("7d", timedelta(days=7)),
    ],
)
def test_a_length_of_time_is_read_with_its_units(text: str, length: timedelta) -> None:
    assert duration(text) == length


@pytest.mark.parametrize("text", ["", "1", "h", "1 h", "-1h", "0s", "1w", "366d", "1h30"])
def test_what_is_no_length_of_time_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(UsageError, match=r"365d|like 90s"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-30", datetime(2026, 11, 30, tzinfo=UTC)),
        ("2026-11-30T10:00:00+02:00", datetime(2026, 11, 30, 8, tzinfo=UTC)),
        ("24h", NOW - timedelta(hours=24)),
    ],
)
def test_a_moment_is_a_date_a_time_or_how_long_ago(text: str, at: datetime) -> None:
    assert moment(text, NOW) == at


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "2026-11-30T10:00:00"])
def test_what_is_no_moment_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(UsageError, match="write a date"):
        moment(text, NOW)


def test_an_instant_is_shown_in_utc_with_milliseconds() -> None:
    assert rfc3339(datetime(2026, 12, 1, 8, 0, 0, 123_456, tzinfo=UTC)) == "2026-12-01T08:00:00.123Z"
