"""Windows: midnights of a tenant's zone as instants in UTC, through daylight saving, and no instant in two of them or in none."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.windows import ENDLESS, Per, window

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "America/Havana",
    "Asia/Beirut",
    "Australia/Lord_Howe",
)
PERS: tuple[Per, ...] = ("minute", "hour", "day", "month", "lifetime", "concurrent")
BERLIN = ZoneInfo("Europe/Berlin")


def utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=UTC)  # type: ignore[misc,arg-type] # year, month, day, ...


@pytest.mark.parametrize(
    ("per", "start", "end"),
    [
        ("minute", utc(2026, 12, 1, 22, 59), utc(2026, 12, 1, 23, 0)),
        ("hour", utc(2026, 12, 1, 22, 0), utc(2026, 12, 1, 23, 0)),
        ("day", utc(2026, 11, 30, 23), utc(2026, 12, 1, 23)),
        ("month", utc(2026, 11, 30, 23), utc(2026, 12, 31, 23)),
        ("lifetime", *ENDLESS),
        ("concurrent", *ENDLESS),
    ],
)
def test_windows_begin_and_end_by_the_clock_of_the_zone(per: Per, start: datetime, end: datetime) -> None:
    assert window(per, BERLIN, utc(2026, 12, 1, 22, 59, 59)) == (start, end)


def test_a_day_in_which_clocks_are_set_forward_has_23_hours() -> None:
    day = window("day", BERLIN, utc(2026, 3, 29, 12))
    assert day == (utc(2026, 3, 28, 23), utc(2026, 3, 29, 22))


def test_a_day_in_which_clocks_are_set_back_has_25_hours() -> None:
    day = window("day", BERLIN, utc(2026, 10, 25, 12))
    assert day.length == timedelta(hours=25)


def test_the_hour_that_comes_twice_is_two_windows() -> None:
    first, second = window("hour", BERLIN, utc(2026, 10, 25, 0, 30)), window("hour", BERLIN, utc(2026, 10, 25, 1, 30))
    assert (first.length, second.length, first.end) == (timedelta(hours=1), timedelta(hours=1), second.start)


def test_a_month_with_a_change_of_clocks_begins_and_ends_at_local_midnight() -> None:
    assert window("month", BERLIN, utc(2026, 3, 15)) == (utc(2026, 2, 28, 23), utc(2026, 3, 31, 22))


def test_a_day_whose_midnight_is_skipped_begins_at_its_first_instant() -> None:
    beirut = ZoneInfo("Asia/Beirut")  # 00:00 becomes 01:00 on the last Sunday of March
    before, after = window("day", beirut, utc(2026, 3, 28, 12)), window("day", beirut, utc(2026, 3, 29, 12))
    assert (before.end, after.start.astimezone(beirut).hour) == (after.start, 1)


def test_december_is_followed_by_january() -> None:
    assert window("month", BERLIN, utc(2026, 12, 31, 12)).end == utc(2026, 12, 31, 23)


@given(
    st.sampled_from(PERS),
    st.sampled_from(ZONES),
    st.integers(0, 10 * 365 * 86_400).map(lambda seconds: utc(2020, 1, 1) + timedelta(seconds=seconds)),
)
def test_every_instant_is_in_one_window_and_the_next_one_begins_where_it_ends(
    per: Per, name: str, now: datetime
) -> None:
    zone = ZoneInfo(name)
    found = window(per, zone, now)
    assert found.start <= now < found.end
    assert found == ENDLESS or found.length <= timedelta(days=31, hours=2)
    if found != ENDLESS and name != "Australia/Lord_Howe":  # its half hour is one of two windows
        assert window(per, zone, found.start) == found
        assert window(per, zone, found.end).start == found.end
        assert window(per, zone, found.end - timedelta(microseconds=1)) == found
