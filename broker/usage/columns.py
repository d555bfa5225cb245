"""The columns of each export that is known, and what a line of it says in our own words: counts as the ledger has them, exact dollars."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, NamedTuple

from schemas import job
from schemas.usage import COUNTS

Record = Mapping[str, Any]
EXPORTS = "an export of OpenAI's or Anthropic's usage or costs, lines of the simulator, or the neutral format (deploy/ledger.md has their columns)"
_CENTS = Decimal("0.01")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


class WrongColumnError(Exception):
    """A column is missing, unknown, or holds what is not allowed."""

    def __init__(self, column: str, sentence: str) -> None:
        super().__init__(f"{column}: {sentence}" if column else sentence)
        self.column = column


class Line(NamedTuple):
    """One line of an invoice: of one call where an id is given, else the sum of a span of time. None: the invoice does not say."""

    place: str
    request_id: str | None = None
    response_id: str | None = None
    at: datetime | None = None
    start: datetime | None = None
    end: datetime | None = None
    model: str | None = None
    credential: str | None = None
    calls: int | None = None
    counts: Mapping[str, int] | None = None
    cost: Decimal | None = None
    free: bool = False  # a call that cost nothing and used nothing: the ledger need not know it

    @property
    def key(self) -> str | None:
        """What identifies the call; None for a sum."""
        return self.request_id or self.response_id


@dataclass(frozen=True, slots=True)
class Form:
    """An export: whose it is, the column by which it is known, and how a record of it is read."""

    name: str
    provider: str | None
    marks: frozenset[str]
    read: Callable[[Record, str], Line]


def form_of(record: Record) -> Form:
    """The form of an export, by its first record.

    Raises:
        WrongColumnError: It is none that is known.
    """
    for form in FORMS:
        if form.marks <= record.keys():
            return form
    raise WrongColumnError(
        "", f"these columns are of no export that is known ({', '.join(list(record)[:12])}); give {EXPORTS}"
    )


# -- the neutral format ---------------------------------------------------------------------------------------------------
_IDS = ("request_id", "response_id")
_SPAN = ("start", "end")
NEUTRAL = (*_IDS, "at", *_SPAN, "model", "credential", "calls", *COUNTS, "cost_usd")
"""Every column of the neutral format; a line has an id, or a start and an end."""


def _neutral(record: Record, place: str) -> Line:
    for column in record:
        if column not in NEUTRAL:
            near = get_close_matches(column, NEUTRAL, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise WrongColumnError(column, f"there is no such column; {hint}allowed are {', '.join(NEUTRAL)}")
    is_call = any(not _empty(record, column) for column in _IDS)
    if not is_call and any(_empty(record, column) for column in _SPAN):
        raise WrongColumnError(
            "", "neither a call (request_id or response_id) nor a sum (start and end); give one of both"
        )
    counts = {column: whole(record, column) for column in COUNTS if not _empty(record, column)}
    line = Line(
        place,
        request_id=text(record, "request_id"),
        response_id=text(record, "response_id"),
        at=instant(record, "at"),
        start=None if is_call else instant(record, "start"),
        end=None if is_call else instant(record, "end"),
        model=text(record, "model"),
        credential=text(record, "credential"),
        calls=None if is_call or _empty(record, "calls") else whole(record, "calls"),
        counts=counts or None,
        cost=dollars(record, "cost_usd"),
    )
    return _ordered(line._replace(free=not any(counts.values()) and not line.cost))


# -- the simulator's calls ------------------------------------------------------------------------------------------------
def _simulator(record: Record, place: str) -> Line:
    cost, used = dollars(record, "cost"), record.get("usage")
    names = ("prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
    prompt, cached, output, reasoning = (whole(record, name) for name in names)
    free = used is None and not cost
    return Line(
        place,
        request_id=text(record, "request_id"),
        response_id=text(record, "id"),
        at=instant(record, "closed"),
        model=text(record, "model") if used is not None else None,
        counts=None if free else _counts(prompt, cached, 0, output, reasoning),
        cost=cost,
        free=free,
    )


# -- OpenAI ---------------------------------------------------------------------------------------------------------------
def _openai_usage(record: Record, place: str) -> Line:
    counts = {
        "input_tokens": whole(record, "input_tokens"),
        "output_tokens": whole(record, "output_tokens", 0),  # embeddings have none
    }
    if not _empty(record, "input_cached_tokens"):
        counts["cache_read_input_tokens"] = whole(record, "input_cached_tokens")
    calls = whole(record, "num_model_requests")
    return _ordered(
        Line(
            place,
            start=instant(record, "start_time"),
            end=instant(record, "end_time"),
            model=text(record, "model"),
            calls=calls,
            counts=counts,
        )
    )


def _openai_costs(record: Record, place: str) -> Line:
    amount = record.get("amount")
    flat: Record = (
        amount
        if isinstance(amount, dict)
        else {"value": record.get("amount_value"), "currency": record.get("amount_currency")}
    )
    _in_dollars(flat)
    return _ordered(
        Line(place, start=instant(record, "start_time"), end=instant(record, "end_time"), cost=dollars(flat, "value"))
    )


# -- Anthropic ------------------------------------------------------------------------------------------------------------
def _anthropic_usage(record: Record, place: str) -> Line:
    created = record.get("cache_creation") or {}
    if not isinstance(created, dict):
        raise WrongColumnError("cache_creation", "must be an object with counts of tokens by lifetime")
    fresh, read = whole(record, "uncached_input_tokens"), whole(record, "cache_read_input_tokens", 0)
    written = sum(whole(created, name) for name in created)
    return _ordered(
        Line(
            place,
            start=instant(record, "starting_at"),
            end=instant(record, "ending_at"),
            model=text(record, "model"),
            counts=_anthropic_counts(fresh, read, written, whole(record, "output_tokens")),
        )
    )


def _anthropic_table(record: Record, place: str) -> Line:
    start = instant(record, "usage_date_utc")
    written = sum(whole(record, f"usage_input_tokens_cache_write_{life}", 0) for life in ("5m", "1h"))
    fresh, read = whole(record, "usage_input_tokens_no_cache"), whole(record, "usage_input_tokens_cache_read", 0)
    return Line(
        place,
        start=start,
        end=start + timedelta(days=1) if start else None,
        model=text(record, "model_version"),
        counts=_anthropic_counts(fresh, read, written, whole(record, "usage_output_tokens")),
    )


def _anthropic_costs(record: Record, place: str) -> Line:
    _in_dollars(record)
    cents = dollars(record, "amount")
    cost = None if cents is None else cents * _CENTS
    start, end = instant(record, "starting_at"), instant(record, "ending_at")
    return _ordered(Line(place, start=start, end=end, model=text(record, "model"), cost=cost))


def _anthropic_counts(fresh: int, read: int, written: int, output: int) -> dict[str, int]:
    """Anthropic counts what came from the cache and went to it apart; the ledger's input includes both."""
    counts = _counts(fresh + read + written, read, written, output, 0)
    del counts["reasoning_output_tokens"]  # it does not say
    return counts


FORMS = (
    Form("openai-costs", "openai", frozenset({"start_time", "end_time", "amount"}), _openai_costs),
    Form("openai-costs", "openai", frozenset({"start_time", "end_time", "amount_value"}), _openai_costs),
    Form("openai-usage", "openai", frozenset({"start_time", "num_model_requests", "input_tokens"}), _openai_usage),
    Form("anthropic-costs", "anthropic", frozenset({"starting_at", "amount", "currency"}), _anthropic_costs),
    Form("anthropic-usage", "anthropic", frozenset({"starting_at", "uncached_input_tokens"}), _anthropic_usage),
    Form(
        "anthropic-usage", "anthropic", frozenset({"usage_date_utc", "usage_input_tokens_no_cache"}), _anthropic_table
    ),
    Form("simulator", None, frozenset({"request_id", "id", "prompt_tokens", "cost", "outcome"}), _simulator),
    Form("neutral", None, frozenset({"request_id"}), _neutral),
    Form("neutral", None, frozenset({"response_id"}), _neutral),
    Form("neutral", None, frozenset({"start", "end"}), _neutral),
)
"""Every export that is known; the first whose marks a record has is its form."""


def _empty(record: Record, column: str) -> bool:
    value = record.get(column)
    return value is None or value == ""


# -- cells ----------------------------------------------------------------------------------------------------------------
def whole(record: Record, column: str, absent: int | None = None) -> int:
    """A count, 0 or more; `absent` is what an empty or missing cell means, None: that it is wrong."""
    value = record.get(column)
    if _empty(record, column):
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
    return None if _empty(record, column) else str(record[column])


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


def _in_dollars(record: Record) -> None:
    currency = str(record.get("currency") or "usd")
    if currency.lower() != "usd":
        raise WrongColumnError("currency", f"{currency[:10]!r} is not what the ledger is in; usd is allowed")


def _ordered(line: Line) -> Line:
    if line.key is not None:
        return line
    if line.start is None or line.end is None or line.start >= line.end:
        raise WrongColumnError("", "a sum needs a start and a later end")
    return line


def _counts(*counts: int) -> dict[str, int]:
    """The five counts in their order."""
    return dict(zip(COUNTS, counts, strict=True))
