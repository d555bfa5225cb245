"""The cells of an export: counts, exact dollars, names and instants, and what is said of a wrong one."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from schemas import job

Record = Mapping[str, Any]
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


class WrongColumnError(Exception):
    """A column is missing, unknown, or holds what is not allowed."""

    def __init__(self, column: str, sentence: str) -> None:
        super().__init__(f"{column}: {sentence}" if column else sentence)
        self.column = column


def empty(record: Record, column: str) -> bool:
    """Whether the cell is empty or missing."""
    value = record.get(column)
    return value is None or value == ""


def whole(record: Record, column: str, absent: int | None = None) -> int:
    """A count, 0 or more; `absent` is what an empty or missing cell means, None: that it is wrong."""
    value = record.get(column)
    if empty(record, column):
        if absent is None:
            raise WrongColumnError(column, "is missing; a whole number, 0 or more, is needed")
        return absent
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    if type(value) is int and value >= 0:
        return value
    raise WrongColumnError(column, f"{str(value)[:40]!r} is no whole number, 0 or more")


def dollars(record: Record, column: str) -> Decimal | None:
    """An exact amount; None where the cell is empty or missing."""
    value = record.get(column)
    if value is None or value == "":
        return None
    try:
        amount = Decimal(value) if isinstance(value, str | int | Decimal) and not isinstance(value, bool) else None
    except ArithmeticError:
        amount = None
    if amount is None or not amount.is_finite() or amount < 0:
        raise WrongColumnError(
            column, f"{str(value)[:40]!r} is no amount; a decimal number, 0 or more, such as 0.0002076 is allowed"
        )
    return amount


def text(record: Record, column: str) -> str | None:
    """A name; None where the cell is empty or missing."""
    return None if empty(record, column) else str(record[column])


def instant(record: Record, column: str) -> datetime | None:
    """An instant: seconds since 1970, RFC 3339, or a date (its first moment, UTC); None where the cell is empty or missing."""
    value = record.get(column)
    if value is None or value == "":
        return None
    try:
        if isinstance(value, int | Decimal) or value.isdigit():
            return datetime.fromtimestamp(float(value), UTC)
        if _DATE.fullmatch(value):
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        return job.instant(value)
    except (ValueError, OverflowError, OSError, AttributeError):
        raise WrongColumnError(
            column,
            f"{str(value)[:40]!r} is no time; seconds since 1970, 2026-12-01T08:00:00Z or 2026-12-01 are allowed",
        ) from None


def in_dollars(record: Record) -> None:
    """Make sure that an amount is in dollars, where its record says in what it is."""
    currency = str(record.get("currency") or "usd")
    if currency.lower() != "usd":
        raise WrongColumnError("currency", f"{currency[:10]!r} is not what the ledger is in; usd is allowed")
