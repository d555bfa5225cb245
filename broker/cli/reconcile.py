"""`aibroker usage reconcile`: compares a provider's invoice with the ledger, and names every difference with its rows."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from broker import mongo
from broker.cli import database, screen
from broker.cli.durations import moment
from broker.cli.invocation import DataOption, Invocation, JsonOption
from broker.errors import UsageError
from broker.settings import Settings
from broker.usage import ledger
from broker.usage.columns import Line
from broker.usage.invoice import Invoice, read
from broker.usage.reconcile import Calls, Difference, Span, ledger_sums, span_difference, spans, unnamed
from schemas.money import plain

_ROWS_NAMED = 1_000
_SHOWN = 50
_CLOCKS = timedelta(minutes=15)
"""So far apart the two sides' times of one call may be; rows out there are looked at, but not missed."""


class Period(NamedTuple):
    """From when until when the invoice should have every row."""

    since: datetime
    until: datetime


def reconcile(
    context: typer.Context,
    *,
    invoice: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The provider's export, CSV or JSON: OpenAI's or Anthropic's usage or costs, or the neutral format.",
        ),
    ],
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this provider's rows; known from the export if it tells.")
    ] = None,
    credential: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only rows of this credential: invoices are made for a key.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="The invoice holds everything from then on; its first line if not given."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="And before then; its last line if not given.")
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a provider's invoice with the ledger, and name every difference with its rows.

    Exit code 0: they agree; 1: they differ; 2: the file cannot be used. Rows that are estimated are on no invoice.
    """
    invocation: Invocation = context.obj
    found = read(invoice)
    now = datetime.now(UTC)
    scope = ledger.Scope(provider or found.provider, credential)
    given = (moment(since, now) if since else None, moment(until, now) if until else None)
    differences = asyncio.run(_differences(invocation.settings(data), found, scope, given))
    if as_json:
        for difference in differences:
            screen.write_json(document(difference))
    else:
        _show(found, differences)
    if differences:
        raise typer.Exit(1)


def document(difference: Difference) -> dict[str, Any]:
    """A difference as a line of JSON: dollars as strings, both sides of each thing that differs."""
    return {
        "kind": difference.kind,
        "about": difference.about or None,
        "difference_usd": _text(difference.usd),
        "what": {
            name: {"invoice": _text(theirs), "ledger": _text(ours)} for name, (theirs, ours) in difference.what.items()
        },
        "invoice_lines": list(difference.invoice),
        "ledger_rows": list(difference.rows),
        "more_ledger_rows": difference.more_rows,
    }


def _text(value: object) -> object:
    return plain(value) if isinstance(value, Decimal) else value


def _show(found: Invoice, differences: Sequence[Difference]) -> None:
    if not differences:
        screen.write_text(f"{len(found.lines):,} lines ({found.form}): the invoice and the ledger agree")
        return
    rows = [
        (
            f"{difference.kind}\n{difference.about}".rstrip(),
            "\n".join(f"{name}: {screen.cell(a)} / {screen.cell(b)}" for name, (a, b) in difference.what.items()),
            "-" if difference.usd is None else plain(difference.usd),
            _few(difference.invoice, 0),
            _few(difference.rows, difference.more_rows),
        )
        for difference in differences[:_SHOWN]
    ]
    columns = ("difference", "invoice / ledger", "USD over the ledger", "invoice lines", "ledger rows")
    screen.write_table("Differences", columns, rows)
    total = sum((difference.usd or Decimal(0) for difference in differences), Decimal(0))
    more = f"; the first {_SHOWN} are shown, --json has all" if len(differences) > _SHOWN else ""
    screen.say(
        f"{len(differences):,} differences in {len(found.lines):,} lines ({found.form}), {plain(total)} dollars in all{more}"
    )


def _few(names: Sequence[str], more: int) -> str:
    left = len(names) - 3 + more
    return ", ".join(names[:3]) + (f" and {left:,} more" if left > 0 else "") or "-"


async def _differences(
    settings: Settings, invoice: Invoice, scope: ledger.Scope, given: tuple[datetime | None, datetime | None]
) -> list[Difference]:
    async with database.opened(settings) as opened:
        calls = [line for line in invoice.lines if line.key is not None]
        sums = [line for line in invoice.lines if line.key is None]
        found = [each async for each in _by_call(opened, calls, scope, given)] if calls else []
        return found + [each async for each in _by_span(opened, sums, scope)] if sums else found


async def _by_call(
    opened: mongo.Database, lines: list[Line], scope: ledger.Scope, given: tuple[datetime | None, datetime | None]
) -> AsyncIterator[Difference]:
    calls, period = Calls(lines), _period(lines, given)
    async for row in ledger.rows_within(opened, scope, period.since - _CLOCKS, period.until + _CLOCKS):
        if difference := calls.add(row, expected=period.since <= row.at < period.until):
            yield difference
    async for row in ledger.rows_named(opened, calls.left()):
        if difference := calls.add(row, expected=False):
            yield difference
    for difference in calls.rest():
        yield difference


def _period(lines: Sequence[Line], given: tuple[datetime | None, datetime | None]) -> Period:
    times = [line.at for line in lines if line.at is not None]
    since, until = given
    if not times and (since is None or until is None):
        raise UsageError(
            "the invoice's lines have no `at`, so it cannot be seen which rows are missing on it; say with --since and --until what it is for"
        )
    return Period(since or min(times), until or max(times) + timedelta(microseconds=1))


async def _by_span(opened: mongo.Database, lines: Sequence[Line], scope: ledger.Scope) -> AsyncIterator[Difference]:
    theirs = spans(lines)
    times = sorted({(span.start, span.end) for span in theirs})
    for start, end in times:
        groups = await ledger.sums_within(opened, scope, start, end)
        here = {span: sums for span, sums in theirs.items() if (span.start, span.end) == (start, end)}
        for span, sums in here.items():
            what = span_difference(sums, ours := ledger_sums(span, groups))
            if what:
                yield await _of_span(opened, span, scope, what=what, sides=(sums.places, ours.calls or 0))
        for group in unnamed(here, groups):
            span = Span(start, end, group["_id"]["model"], group["_id"]["credential"])
            what = {"calls": (None, group["calls"]), "cost_usd": (None, ledger.usd(group["cost_usd"]))}
            yield await _of_span(opened, span, scope, what=what, sides=((), group["calls"]))


async def _of_span(
    opened: mongo.Database, span: Span, scope: ledger.Scope, *, what: dict[str, Any], sides: tuple[Sequence[str], int]
) -> Difference:
    places, calls = sides
    narrowed = scope._replace(credential=span.credential or scope.credential)
    rows = await ledger.ids_of(opened, narrowed, (span.start, span.end), model=span.model, limit=_ROWS_NAMED)
    kind = "differs" if places and rows else "not_in_ledger" if places else "not_on_invoice"
    about = f"{span.start:%Y-%m-%dT%H:%M}Z to {span.end:%Y-%m-%dT%H:%M}Z, {span.model or 'all models'}"
    return Difference(kind, what, places, rows, max(calls - len(rows), 0), about)
