"""What is spent, held and left of each limit in the window of now, from the books of the workers; pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from broker.cli import screen
from broker.limits import Applied, Limit, Rulebook, units
from broker.windows import END, window


def limit_rows(rules: Rulebook, books: Iterable[Mapping[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """A row for each owner and unit that a limit was asked for in its window, and for each limit of which nobody was."""
    rows: list[dict[str, Any]] = []
    met: list[Limit] = []
    for book in books:
        applied = rules.of(book["subject"], book["per"])
        if applied is not None and _is_current(book, applied, now):
            met.append(applied.limit)
            rows += _rows(applied.limit, book["subject"], book, book["end"])
    unmet = [limit for limit in (*rules.limits, *rules.of_jobs) if limit not in met]
    return [*rows, *(row for limit in unmet for row in _rows(limit, declared(limit), {}, None))]


def _is_current(book: Mapping[str, Any], applied: Applied, now: datetime) -> bool:
    current = window(applied.limit.per, applied.zone, now)
    return bool(book["start"] == current.start and book["end"] == current.end)


def declared(limit: Limit) -> str:
    """Whose limit it is, as the settings say it."""
    shadow = "shadow-" if limit.mode == "shadow" else ""
    narrowed = "" if limit.tenant is None else f"@{limit.tenant}"
    return f"{shadow}{limit.scope}{narrowed}:{limit.of}"


def _rows(limit: Limit, owner: str, book: Mapping[str, Any], end: datetime | None) -> list[dict[str, Any]]:
    grants, told = book.get("grants", {}).values(), book.get("told", {}).values()
    closed = [book["closed"]] if book else []
    rows = []
    for unit, most in units(limit):
        taken, spent = (_sum(entries, unit) for entries in ((*closed, *grants), (*closed, *told)))
        rows.append(
            {
                "limit_of": owner,
                "per": limit.per,
                "mode": limit.mode,
                "unit": unit,
                "limit": Decimal(most),
                "spent": spent,
                "held": max(taken - spent, Decimal(0)),
                "left": max(most - taken, Decimal(0)),
                "passed_over": None if limit.mode == "hard" else sum(said["passed_over"] for said in told),
                "window_end": None if end == END else end,
            }
        )
    return rows


def _sum(entries: Iterable[Mapping[str, Any]], unit: str) -> Decimal:
    return sum((_decimal(entry[unit]) for entry in entries), Decimal(0))


def _decimal(value: object) -> Decimal:
    amount = screen.decimal(value)
    return Decimal(str(value)) if amount is None else amount
