"""Windows of time: minutes, hours, days and months of a time zone as instants in UTC; pure.

A day or a month begins at midnight of its zone, or at the first instant after it where clocks skip midnight; so a day of 23 or 25 hours is one day.
"""

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Literal, NamedTuple

Per = Literal["minute", "hour", "day", "month", "lifetime", "concurrent"]
"""For how long a limit counts; `concurrent`: what is held at one moment."""

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
END = datetime(9999, 12, 31, tzinfo=UTC)
_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)
_ANY_DAY_OF_NEXT_MONTH = timedelta(days=31)


class Window(NamedTuple):
    """From `start` until before `end`, both in UTC."""

    start: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        """How long it is."""
        return self.end - self.start


ENDLESS = Window(BEGINNING, END)


def window(per: Per, zone: tzinfo, now: datetime) -> Window:
    """The window of an instant."""
    local = now.astimezone(zone)
    match per:
        case "minute":
            return _since(now, timedelta(seconds=local.second, microseconds=local.microsecond), _MINUTE)
        case "hour":
            past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
            return _since(now, past, _HOUR)
        case "day":
            return Window(_midnight(local.date(), zone), _midnight(local.date() + timedelta(days=1), zone))
        case "month":
            first = local.date().replace(day=1)
            return Window(_midnight(first, zone), _midnight((first + _ANY_DAY_OF_NEXT_MONTH).replace(day=1), zone))
        case _:
            return ENDLESS


def _since(now: datetime, past: timedelta, length: timedelta) -> Window:
    start = now.astimezone(UTC) - past
    return Window(start, start + length)


def _midnight(day: date, zone: tzinfo) -> datetime:
    return datetime.combine(day, time(0), zone).astimezone(UTC)
