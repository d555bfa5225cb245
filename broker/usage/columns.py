"""The columns of each export that is known, and what a line of it says in our own words: counts as the ledger has them, exact dollars."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from difflib import get_close_matches
from typing import NamedTuple

from broker.usage.cells import Record, WrongColumnError, dollars, empty, in_dollars, instant, text, whole
from schemas.usage import COUNTS

EXPORTS = "an export of OpenAI's or Anthropic's usage or costs, lines of the simulator, or the neutral format (deploy/ledger.md has their columns)"
_CENTS = Decimal("0.01")


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
    """An export: whose it is, the columns by which it is known, how a record of it is read, of which columns, and which others it may have."""

    name: str
    provider: str | None
    marks: frozenset[str]
    read: Callable[[Record, str], Line]
    columns: tuple[str, ...] = ()
    others: frozenset[str] = frozenset()

    def line(self, record: Record, place: str) -> Line:
        """What a record says.

        Raises:
            WrongColumnError: A column is missing, misspelled, or holds what is not allowed.
        """
        absent = [column for column in self.columns if column not in record]
        for name in record if absent else ():
            if name not in self.columns and name not in self.others:
                for near in get_close_matches(name.lower().replace(" ", "_"), absent, 1):
                    sentence = f"there is no such column; did you mean {near}? expected are {', '.join(self.columns)}"
                    raise WrongColumnError(name, sentence)
        return self.read(record, place)


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
    is_call = any(not empty(record, column) for column in _IDS)
    if not is_call and any(empty(record, column) for column in _SPAN):
        raise WrongColumnError(
            "", "neither a call (request_id or response_id) nor a sum (start and end); give one of both"
        )
    counts = {column: whole(record, column) for column in COUNTS if not empty(record, column)}
    line = Line(
        place,
        request_id=text(record, "request_id"),
        response_id=text(record, "response_id"),
        at=instant(record, "at"),
        start=None if is_call else instant(record, "start"),
        end=None if is_call else instant(record, "end"),
        model=text(record, "model"),
        credential=text(record, "credential"),
        calls=None if is_call or empty(record, "calls") else whole(record, "calls"),
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
_OPENAI_USAGE = (
    *("start_time", "end_time", "num_model_requests", "model"),
    *("input_tokens", "input_cached_tokens", "output_tokens"),
)
_OPENAI_ALL = frozenset(
    {
        *("object", "start_time_iso", "end_time_iso", "project_id", "project_name", "user_id", "user_name"),
        *("api_key_id", "api_key_name", "organization_id", "organization_name", "batch", "service_tier"),
    }
)
_OPENAI_PARTS = frozenset(
    {
        *("input_uncached_tokens", "input_cache_write_tokens", "input_text_tokens", "input_cached_text_tokens"),
        *("input_audio_tokens", "input_cached_audio_tokens", "input_image_tokens", "input_cached_image_tokens"),
        *("output_text_tokens", "output_audio_tokens", "output_image_tokens"),
    }
)
_WITHOUT_OUTPUT = {None, "organization.usage.embeddings.result", "organization.usage.moderations.result"}


def _openai_usage(record: Record, place: str) -> Line:
    counts = {"input_tokens": whole(record, "input_tokens")}
    if "output_tokens" in record:
        counts["output_tokens"] = whole(record, "output_tokens", 0)
    elif _answers(record):
        raise WrongColumnError("output_tokens", f"is missing; expected are {', '.join(_OPENAI_USAGE)}")
    if not empty(record, "input_cached_tokens"):
        counts["cache_read_input_tokens"] = whole(record, "input_cached_tokens")
    return _ordered(
        Line(
            place,
            start=instant(record, "start_time"),
            end=instant(record, "end_time"),
            model=text(record, "model"),
            calls=whole(record, "num_model_requests"),
            counts=counts,
        )
    )


def _answers(record: Record) -> bool:
    """Whether this is usage of an operation that has output: embeddings and moderations have no such column."""
    parts = record.keys() & {*_OPENAI_PARTS, "input_cached_tokens"}
    return bool(parts) or record.get("object") not in _WITHOUT_OUTPUT


def _openai_costs(record: Record, place: str) -> Line:
    amount = record.get("amount")
    flat: Record = (
        amount
        if isinstance(amount, dict)
        else {"value": record.get("amount_value"), "currency": record.get("amount_currency")}
    )
    in_dollars(flat)
    return _ordered(
        Line(place, start=instant(record, "start_time"), end=instant(record, "end_time"), cost=dollars(flat, "value"))
    )


# -- Anthropic ------------------------------------------------------------------------------------------------------------
_ANTHROPIC_USAGE = (
    *("starting_at", "ending_at", "model", "uncached_input_tokens", "cache_read_input_tokens"),
    *("cache_creation", "output_tokens"),
)
_ANTHROPIC_TABLE = (
    *("usage_date_utc", "model_version", "usage_input_tokens_no_cache", "usage_input_tokens_cache_write_5m"),
    *("usage_input_tokens_cache_write_1h", "usage_input_tokens_cache_read", "usage_output_tokens"),
)
_ANTHROPIC_ALL = frozenset(
    {
        *("workspace_id", "workspace", "api_key_id", "api_key", "service_tier", "context_window", "inference_geo"),
        *("server_tool_use", "usage_type", "description", "cost_type", "token_type", "web_search_count"),
    }
)


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
    in_dollars(record)
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
    Form(
        name="openai-costs",
        provider="openai",
        marks=frozenset({"start_time", "end_time", "amount"}),
        read=_openai_costs,
        columns=("start_time", "end_time", "amount"),
        others=_OPENAI_ALL,
    ),
    Form(
        name="openai-costs",
        provider="openai",
        marks=frozenset({"start_time", "end_time", "amount_value"}),
        read=_openai_costs,
        columns=("start_time", "end_time", "amount_value", "amount_currency"),
        others=_OPENAI_ALL,
    ),
    Form(
        name="openai-usage",
        provider="openai",
        marks=frozenset({"start_time", "num_model_requests", "input_tokens"}),
        read=_openai_usage,
        columns=_OPENAI_USAGE,
        others=_OPENAI_ALL | _OPENAI_PARTS,
    ),
    Form(
        name="anthropic-costs",
        provider="anthropic",
        marks=frozenset({"starting_at", "amount", "currency"}),
        read=_anthropic_costs,
        columns=("starting_at", "ending_at", "model", "amount", "currency"),
        others=_ANTHROPIC_ALL,
    ),
    Form(
        name="anthropic-usage",
        provider="anthropic",
        marks=frozenset({"starting_at", "uncached_input_tokens"}),
        read=_anthropic_usage,
        columns=_ANTHROPIC_USAGE,
        others=_ANTHROPIC_ALL,
    ),
    Form(
        name="anthropic-usage",
        provider="anthropic",
        marks=frozenset({"usage_date_utc", "usage_input_tokens_no_cache"}),
        read=_anthropic_table,
        columns=_ANTHROPIC_TABLE,
        others=_ANTHROPIC_ALL,
    ),
    Form("simulator", None, frozenset({"request_id", "id", "prompt_tokens", "cost", "outcome"}), _simulator),
    *(Form("neutral", None, frozenset(marks), _neutral) for marks in (("request_id",), ("response_id",), _SPAN)),
)
"""Every export that is known; the first whose marks a record has is its form."""


def _ordered(line: Line) -> Line:
    if line.key is not None:
        return line
    if line.start is None or line.end is None or line.start >= line.end:
        raise WrongColumnError("", "a sum needs a start and a later end")
    return line


def _counts(*counts: int) -> dict[str, int]:
    """The five counts in their order."""
    return dict(zip(COUNTS, counts, strict=True))
