"""How long a provider asks us to wait, from headers and error bodies: pure, seconds from `now`."""

import math
import re
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime

MAX_WAIT_S = 86_400.0
"""Limits are per day at most; more than this is a mistake, and is cut."""

UNITS_S = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "ns": 1e-9}
NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,12})?"
PART = re.compile(rf"({NUMBER})(ms|us|ns|d|h|m|s)")
WHOLE = re.compile(rf"(?:{NUMBER}(?:ms|us|ns|d|h|m|s)){{1,7}}")
WORDS = re.compile(
    rf"(?:try again|retry) (?:in|after) ({NUMBER}) ?(ms|milliseconds?|seconds?|minutes?|hours?|s|m|h)?((?:{NUMBER}(?:ms|s|m))*)",
    re.IGNORECASE,
)
RESETS = ("requests", "tokens", "input-tokens", "output-tokens")
EPOCH_S = 1e9
EPOCH_MS = 1e11


def number(text: str) -> float | None:
    """A finite number of at least zero, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def duration_s(text: str) -> float | None:
    """Seconds of a duration such as `6m0s`, `8.64s`, `20ms`, `1d2h`, or of a bare number."""
    text = text.strip().lower()
    if not WHOLE.fullmatch(text):
        return number(text)
    return sum(float(amount) * UNITS_S[unit] for amount, unit in PART.findall(text))


def moment_s(text: str, now: float) -> float | None:
    """Seconds until a moment: a date of HTTP, an epoch in seconds or milliseconds, else a duration."""
    value = duration_s(text)
    if value is not None:
        if value >= EPOCH_MS:
            value /= 1_000
        return max(0.0, value - now) if value >= EPOCH_S else value
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def said_in_words(message: str) -> float | None:
    """Seconds of "try again in 1.2s", "retry after 3 seconds", "try again in 6m0s"."""
    found = WORDS.search(message)
    if not found:
        return None
    amount, unit, rest = found.groups()
    unit = (unit or "s").lower()
    unit = "ms" if unit.startswith(("ms", "milli")) else unit[0]
    return float(amount) * UNITS_S[unit] + (duration_s(rest) or 0.0)


def until_reset_s(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds until a limit that is used up is full again; where none says it is, until the first of those named."""
    used_up: list[float] = []
    others: list[float] = []
    for what in RESETS:
        wait = moment_s(headers.get(f"x-ratelimit-reset-{what}", ""), now)
        if wait is not None:
            remaining = headers.get(f"x-ratelimit-remaining-{what}", "").strip()
            (used_up if remaining == "0" else others).append(wait)
    if used_up:
        return max(used_up)
    return min(others) if others else moment_s(headers.get("x-ratelimit-reset", ""), now)


def retry_after_s(headers: Mapping[str, str], hints: Iterable[str], message: str, now: float) -> float | None:
    """Seconds to wait before the next try, or None where nobody said.

    The longest of `retry-after-ms`, `Retry-After`, `hints` (durations from the body) and the message's words; only where
    none of them speaks, the headers that say when a limit is full again, which is later than it need be.
    """
    milliseconds = number(headers.get("retry-after-ms", ""))
    said = [None if milliseconds is None else milliseconds / 1_000]
    said += [moment_s(headers.get("retry-after", ""), now), *map(duration_s, hints), said_in_words(message)]
    known = [wait for wait in said if wait is not None]
    wait = max(known) if known else until_reset_s(headers, now)
    return None if wait is None else min(wait, MAX_WAIT_S)
