"""Rate limits as OpenAI keeps them: two buckets that fill steadily, told in headers; time comes in as an argument."""

import math
from collections.abc import Mapping
from email.utils import formatdate
from typing import NamedTuple

from broker.local.simulator.behaviour import Limits, RetryAfter


class Verdict(NamedTuple):
    """Whether a call may pass: which limit refused it (null: none), and the seconds until it would pass.

    The wait is null where the call is larger than the bucket, so that waiting does not help.
    """

    refused_by: str | None = None
    wait_s: float | None = 0.0


class Bucket:
    """Holds up to `capacity`, fills with `per_second`; starts full. Times are seconds of any clock."""

    def __init__(self, per_minute: float, burst_s: float, now: float) -> None:
        self.per_minute, self.per_second = per_minute, per_minute / 60
        self.capacity = per_minute * burst_s / 60
        self._level, self._at = self.capacity, now

    def level(self, now: float) -> float:
        """What is in it now."""
        if now > self._at:
            self._level = min(self.capacity, self._level + (now - self._at) * self.per_second)
            self._at = now
        return self._level

    def wait_s(self, amount: float, now: float) -> float | None:
        """Seconds until the amount is there: 0 when it is now, null when it never fits."""
        missing = amount - self.level(now)
        if missing <= 1e-9:
            return 0.0
        return missing / self.per_second if amount <= self.capacity else None

    def take(self, amount: float, now: float) -> None:
        """Takes the amount out; at most one whole bucket of debt."""
        self._level = max(self.level(now) - amount, -self.capacity)

    def lower(self, level: float) -> None:
        """Leaves no more in it than that."""
        self._level = min(self._level, level)


class Limiter:
    """The limits of one key and model."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None
        self._refused_once = False
        self.change(limits, now)

    def change(self, limits: Limits, now: float) -> None:
        """Other limits from now on; what was used up stays used up."""
        self.limits = limits
        self._requests = _bucket(limits.rpm, limits.burst_s, now, self._requests)
        self._tokens = _bucket(limits.tpm, limits.burst_s, now, self._tokens)

    def ask(self, tokens: int, now: float) -> Verdict:
        """May a call of so many tokens pass? If so they are taken, whatever becomes of the call."""
        verdict = self._verdict(tokens, now)
        if verdict.refused_by:
            self._refused_once = True
            if self.limits.count_refused and self._requests:
                self._requests.take(1, now)
            return verdict
        if self._requests:
            self._requests.take(1, now)
        if self._tokens:
            self._tokens.take(tokens, now)
        return verdict

    def _verdict(self, tokens: int, now: float) -> Verdict:
        for name, bucket, amount in (("requests", self._requests, 1), ("tokens", self._tokens, tokens)):
            wait = bucket.wait_s(amount, now) if bucket else 0.0
            if wait != 0.0:
                return Verdict(name, wait)
        return Verdict()

    def headers(self, now: float) -> Mapping[str, str]:
        """OpenAI's `x-ratelimit-*` headers, or none where the behaviour keeps them back."""
        shown = self.limits.headers
        if shown == "never" or (shown == "after_429" and not self._refused_once):
            return {}
        told = {}
        for name, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket:
                level = bucket.level(now)
                told[f"x-ratelimit-limit-{name}"] = str(int(bucket.per_minute))
                told[f"x-ratelimit-remaining-{name}"] = str(max(0, int(level + 1e-9)))
                told[f"x-ratelimit-reset-{name}"] = spoken((bucket.capacity - level) / bucket.per_second)
        return told


def _bucket(per_minute: float | None, burst_s: float, now: float, before: Bucket | None) -> Bucket | None:
    if per_minute is None:
        return None
    bucket = Bucket(per_minute, burst_s, now)
    if before:
        bucket.lower(before.level(now))
    return bucket


def spoken(seconds: float) -> str:
    """A duration as OpenAI writes it: `120ms`, `8.64s`, `6m0s`, `1h2m3s`."""
    millis = max(0, math.ceil(seconds * 1000 - 1e-6))
    if millis < 1000:
        return f"{millis}ms"
    minutes, rest = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{tail}"
    return f"{minutes}m{tail}" if minutes else tail


def retry_headers(style: RetryAfter, wait_s: float | None, unix_now: float) -> Mapping[str, str]:
    """When to come again, in the chosen way of saying it."""
    if wait_s is None or style == "none":
        return {}
    if style == "seconds":
        return {"retry-after": str(max(1, math.ceil(wait_s)))}
    if style == "milliseconds":
        return {"retry-after-ms": str(max(1, math.ceil(wait_s * 1000)))}
    return {"retry-after": formatdate(math.ceil(unix_now + wait_s), usegmt=True)}
