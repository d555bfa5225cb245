"""`aibroker usage rollup`: brings the kept sums of the ledger up to date, once or again and again."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from broker.cli import database, screen
from broker.cli.durations import duration, moment
from broker.cli.invocation import DataOption, Invocation, JsonOption
from broker.settings import Settings
from broker.usage.rollup import roll_up


def rollup(
    context: typer.Context,
    *,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Sum every hour from then on again; what is new if not given."),
    ] = None,
    every: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Do it again and again, so long apart (15m), until it is stopped."),
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the kept sums of the ledger up to date: `usage_hourly`, and `usage_daily` out of it.

    Hours of which rows were recorded since the last run are summed again. The same again changes nothing, and one that was stopped in the middle
    is made up for by the next.
    """
    invocation: Invocation = context.obj
    settings = invocation.settings(data)
    again = duration(every) if every else None
    first = moment(since, datetime.now(UTC)) if since else None
    asyncio.run(_roll_up(settings, first, again, as_json=as_json))


async def _roll_up(settings: Settings, since: datetime | None, again: timedelta | None, *, as_json: bool) -> None:
    while True:
        started, hours, summed, rows = time.monotonic(), 0, 0, 0
        async with database.opened(settings) as opened:
            async for done in roll_up(opened, since):
                hours, summed, rows = hours + 1, summed + done.again, rows + done.rows * done.again
        seconds = round(time.monotonic() - started, 3)
        if as_json:
            screen.write_json({"hours_seen": hours, "hours_summed": summed, "rows_summed": rows, "seconds": seconds})
        else:
            screen.write_text(f"{summed:,} of {hours:,} hours summed, {rows:,} rows, {seconds:,.1f} s")
        if again is None:
            return
        since = None
        await asyncio.sleep(again.total_seconds())
