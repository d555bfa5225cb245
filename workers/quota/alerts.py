"""Which thresholds of a limit what is spent has reached, and what is told of each; pure.

A forecast extrapolates the window so far to its end, as if at least a tenth of it had passed: what is spent is never less later, so whoever passes
the limit at that pace still does when a tenth has passed, and a job in the first seconds of a month forecasts nothing.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from broker import limits
from broker.limits import Limit
from broker.thresholds import FORECAST, Threshold
from broker.windows import END
from schemas.alert import AlertEvent
from schemas.money import plain
from workers.quota.book import Alert, Amounts, Book
from workers.quota.book import Limit as Figures
from workers.quota.protocol import Key

FORECAST_PER = frozenset({"hour", "day", "month"})
"""A minute is over before anybody could act upon its forecast; a lifetime has no end to forecast for."""
LEAST_SHARE = 10
"""A forecast takes at least the tenth part of its window as passed."""
_MICROSECOND = timedelta(microseconds=1)
_ALL = 100
_UNITS: Mapping[str, str] = MappingProxyType({"requests": "requests", "tokens": "tokens", "usd": "dollars"})
_ENDLESS = Decimal("Infinity")
_Pair = tuple[Any, Any]  # how much is used, and the most: both whole numbers, or both decimals


def reached(key: Key, limit: Limit, spent: Amounts, now: datetime) -> list[Threshold]:
    """The thresholds of a limit that `spent` has reached in a window."""
    if key.per == "concurrent":  # nothing of it is spent
        return []
    pairs: list[_Pair] = [(getattr(spent, unit), most) for unit, most in limits.units(limit)]
    if _far_below(limit, pairs):
        return []
    percents = [said for said in limit.alerts if said != FORECAST]
    found: list[Threshold] = [said for said in percents if any(u * _ALL >= most * said and u > 0 for u, most in pairs)]
    if FORECAST in limit.alerts and _forecast(key, pairs, now):
        found.append(FORECAST)
    return found


def _far_below(limit: Limit, pairs: Sequence[_Pair]) -> bool:
    """Whether less is spent than any threshold asks for: mostly so, and seen by far less work."""
    lowest = min((_ALL / LEAST_SHARE if said == FORECAST else said for said in limit.alerts), default=None)
    return lowest is None or all(float(used) * _ALL < 0.999 * lowest * float(most) for used, most in pairs)


def _forecast(key: Key, pairs: Sequence[_Pair], now: datetime) -> bool:
    length, passed = (key.end - key.start) // _MICROSECOND, _passed(key, now)
    return key.per in FORECAST_PER and any(used * length > most * passed for used, most in pairs)


def _passed(key: Key, now: datetime) -> int:
    """How much of a window has passed, a tenth at least, in microseconds."""
    length = key.end - key.start
    return min(max(now - key.start, length / LEAST_SHARE), length) // _MICROSECOND


def noticing(book: Book, key: Key, limit: Limit | None, *, version: int, now: datetime) -> Book:
    """The book with an alert for each threshold that it has reached and that it had no alert of; None: there is no such limit."""
    if limit is None:
        return book
    spent = book.spent
    new = [threshold for threshold in reached(key, limit, spent, now) if str(threshold) not in book.alerts]
    if not new:
        return book
    at = now.replace(microsecond=now.microsecond // 1000 * 1000)  # as it is stored
    figures = Figures(limit.requests, limit.tokens, limit.usd)
    unit = _furthest(limit, spent)
    return book.alerting(Alert(threshold, at, unit, spent, figures, limit.mode, version) for threshold in new)


def _furthest(limit: Limit, spent: Amounts) -> str:
    """The unit of which most is spent, in proportion."""
    shares = {unit: Decimal(getattr(spent, unit)) / most if most else _ENDLESS for unit, most in limits.units(limit)}
    return max(shares, key=lambda unit: shares[unit])


def alert_id(key: Key, alert: Alert) -> str:
    """What makes an alert one: the limit, the window, the threshold."""
    return f"{key.id}/{alert.threshold}"


def event(key: Key, alert: Alert) -> AlertEvent:
    """What is told of an alert."""
    endless = key.end == END
    said = {
        "limit_of": key.subject,
        "tenant": limits.parts(key.subject)[1] or None,
        "per": key.per,
        "window_start": None if endless else key.start,
        "window_end": None if endless else key.end,
        "mode": alert.mode,
        "threshold": alert.threshold,
        "unit": alert.unit,
        "spent": alert.spent._asdict(),
        "limit": alert.limit._asdict(),
        "limits_version": alert.version,
        "message": _message(key, alert),
        "noticed_at": alert.at,
    }
    return AlertEvent.model_validate(said)


def _message(key: Key, alert: Alert) -> str:
    used, most = getattr(alert.spent, alert.unit), getattr(alert.limit, alert.unit)
    figures = f"{_shown(used)} of {_shown(most)} {_UNITS[alert.unit]} are spent"
    if alert.threshold != FORECAST:
        return f"{key.name}: {figures}, {alert.threshold} % or more"
    expected = int(used * ((key.end - key.start) // _MICROSECOND) // _passed(key, alert.at))
    return f"{key.name}: {figures}; at this pace it will be about {expected}"


def _shown(amount: int | Decimal) -> str:
    return plain(amount) if isinstance(amount, Decimal) else str(amount)
