"""Lengths of time and moments as people type them: `90s`, `1h30m`, `7d`, `2026-12-01`, `2026-12-01T08:00:00Z`."""

import re
from datetime import UTC, datetime, timedelta

from broker.errors import UsageError
from schemas.job import instant

_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"(?:\d+[smhd])+")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_LONGEST = timedelta(days=365)


def duration(text: str) -> timedelta:
    """Return the length that `90s`, `15m`, `1h30m` or `7d` names.

    Raises:
        UsageError: It is none, zero, or longer than a year.
    """
    if not _DURATION.fullmatch(text):
        raise UsageError(f"{text!r} is not a length of time; write it like 90s, 15m, 1h30m or 7d")
    seconds = sum(int(number) * _UNIT_S[unit] for number, unit in re.findall(r"(\d+)([smhd])", text))
    if not 0 < seconds <= _LONGEST.total_seconds():
        raise UsageError(f"{text!r} must be longer than nothing and at most 365d")
    return timedelta(seconds=seconds)


def moment(text: str, now: datetime) -> datetime:
    """Return the instant of a date (its first moment, UTC), of an RFC 3339 time, or of a length of time before `now`.

    Raises:
        UsageError: It is none of them.
    """
    try:
        if _DATE.fullmatch(text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        if _DURATION.fullmatch(text):
            return now - duration(text)
        return instant(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is no moment; write a date (2026-12-01), a time with its zone (2026-12-01T08:00:00Z) or how long ago (24h)"
        ) from None


def rfc3339(at: datetime) -> str:
    """The instant as on the wire: UTC, milliseconds, Z."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
