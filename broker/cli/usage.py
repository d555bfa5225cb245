"""`aibroker usage`: what was used and what it cost, summed exactly over the ledger; and what else is done with the ledger."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from broker import mongo
from broker.cli import database, queries, screen, tabular
from broker.cli.analyst import analyst
from broker.cli.durations import moment
from broker.cli.invocation import DataOption, Invocation, JsonOption
from broker.cli.reconcile import reconcile
from broker.cli.reprice import reprice
from broker.cli.rollup import rollup
from broker.cli.tabular import Form
from broker.errors import UsageError
from broker.settings import Settings
from schemas.usage import COUNTS

_COLUMNS = ("calls", "jobs", *COUNTS, "cost_usd", "unbilled_usd", "estimated_calls")
_ENDINGS = {".csv": Form.CSV, ".parquet": Form.PARQUET, ".png": Form.PLOT, ".json": Form.JSON, ".jsonl": Form.JSON}
_TITLES = {
    "calls": "calls",
    "jobs": "jobs billed",
    "input_tokens": "input tokens",
    "cache_read_input_tokens": "of them cached",
    "cache_creation_input_tokens": "to the cache",
    "output_tokens": "output tokens",
    "reasoning_output_tokens": "of them reasoning",
    "cost_usd": "cost, USD",
    "unbilled_usd": "billed to nobody, USD",
    "estimated_calls": "estimated calls",
}


def usage() -> typer.Typer:
    """Build the command with its subcommands."""
    app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})
    app.callback(invoke_without_command=True)(sums)
    app.command("reconcile")(reconcile)
    app.command("rollup")(rollup)
    app.command("reprice")(reprice)
    app.command("analyst")(analyst)
    return app


def sums(  # noqa: PLR0913 each is an option of the command
    context: typer.Context,
    *,
    by: Annotated[
        str, typer.Option(metavar="NAMES", help=f"What to sum by, with commas between: {', '.join(queries.GROUPS)}.")
    ] = "tenant,model",
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="From then on: a date, a time with its zone, or how long ago (24h)."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Before then.")] = None,
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Only this tenant's; all if not given.")] = None,
    form: Annotated[
        Form | None,
        typer.Option(
            "--format", help="plot: bars on the terminal, or a PNG with --output; else by the ending of --output."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Write to this file: .csv, .parquet, .png or .json (lines)."
        ),
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sum what was used and what it cost.

    Cost and tokens are those that tenants are billed for. What was spent and billed to nobody (a call that was repeated because its worker
    died, say) stands beside it: the two together are the providers' invoices.
    """
    if context.invoked_subcommand is not None:
        return
    invocation: Invocation = context.obj
    now = datetime.now(UTC)
    period = queries.Period(moment(since, now) if since else None, moment(until, now) if until else None)
    names, form = queries.names(by), _form(Form.JSON if as_json else form, output)
    pipeline = queries.usage(names, period, tenant)
    rows = asyncio.run(_rows(invocation.settings(data), pipeline, names))
    _write(names, rows, form, output)


def _form(form: Form | None, output: Path | None) -> Form:
    """How to write, by the option and by the file's ending."""
    of_file = _ENDINGS.get(output.suffix) if output is not None else None
    if output is not None and of_file is None:
        raise UsageError(f"{output}: the ending says what is written; choose from {', '.join(_ENDINGS)}")
    if of_file is not None and form not in {None, of_file}:
        raise UsageError(f"{output} is for {of_file}, --format says {form}; leave one of them out")
    if form is Form.PARQUET and output is None:
        raise UsageError("Parquet is for a file; name one with --output FILE.parquet")
    return of_file or form or Form.TABLE


def _write(names: tuple[str, ...], rows: list[dict[str, Any]], form: Form, output: Path | None) -> None:
    columns = [*names, *_COLUMNS]
    if form is Form.PARQUET and output is not None:
        tabular.write_parquet(output, columns, rows)
    elif form is Form.PLOT and output is not None:
        tabular.write_picture(output, names, "cost_usd", rows)
    elif form is Form.PLOT:
        tabular.write_bars(names, "cost_usd", rows)
    elif form is Form.TABLE:
        show(names, rows)
    else:
        text = tabular.csv_text(columns, rows) if form is Form.CSV else tabular.json_text(rows)
        if output is not None:
            output.write_text(text, encoding="utf-8")
        elif text:
            screen.write_text(text.removesuffix("\n"))
    if output is not None:
        screen.say(f"{len(rows):,} rows written to {output}")


def show(names: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """Write rows of usage as a table, without the columns in which nothing but zeros would stand."""
    used = [name for name in _COLUMNS if name in {"calls", "cost_usd"} or any(_is_something(row[name]) for row in rows)]
    titles = [*names, *(_TITLES[name] for name in used)]
    screen.write_table("Usage", titles, ([row[name] for name in (*names, *used)] for row in rows))


def _is_something(value: object) -> bool:
    amount = screen.decimal(value)
    return bool(value if amount is None else amount)


async def _rows(settings: Settings, pipeline: list[dict[str, Any]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    async with database.opened(settings) as opened:
        return await rows(opened, pipeline, names)


async def rows(opened: mongo.Database, pipeline: list[dict[str, Any]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The ledger's sums as rows, groups under their own names."""
    return [queries.usage_row(names, found) async for found in database.aggregate(opened, "usage", pipeline)]
