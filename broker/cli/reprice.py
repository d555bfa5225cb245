"""`aibroker usage reprice`: prices a period of the ledger again, and writes rows that correct those whose price was wrong."""

import asyncio
import uuid
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import typer

from broker.cli import database, screen
from broker.cli.durations import moment
from broker.cli.invocation import DataOption, Invocation, JsonOption
from broker.prices import Prices
from broker.settings import Settings
from broker.usage import ledger
from broker.usage.reprice import correction, repriced
from schemas.money import plain

_AT_ONCE = 500


def reprice(
    context: typer.Context,
    *,
    since: Annotated[str, typer.Option(metavar="WHEN", help="Rows from then on.")],
    until: Annotated[str, typer.Option(metavar="WHEN", help="And before then.")],
    provider: Annotated[str | None, typer.Option(metavar="NAME", help="Only this provider's rows.")] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write the corrections; without it, only say what they would be.")
    ] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Price a period of the ledger again by the settings and the price table, and correct rows whose price was wrong.

    No row is changed: a correction is a row of its own (`corrects` names the other) with what has to be added, which may be negative. Without
    --write nothing is written. Done again, it finds nothing to correct. What was held against limits stays as it was.
    """
    invocation: Invocation = context.obj
    now = datetime.now(UTC)
    period = (moment(since, now), moment(until, now))
    found = asyncio.run(_reprice(invocation.settings(data), period, provider, write=write))
    if as_json:
        for row in found:
            screen.write_json(row)
    elif not found:
        screen.write_text("every row has the price that it should have")
    else:
        screen.write_table("Corrections", list(found[0]), [list(row.values()) for row in found])
    if found and not write:
        screen.say("nothing is written yet; --write does it")


async def _reprice(
    settings: Settings, period: tuple[datetime, datetime], provider: str | None, *, write: bool
) -> list[dict[str, Any]]:
    author, sums, batch = str(uuid.uuid4()), _Sums(), list[dict[str, Any]]()
    async with database.opened(settings) as opened:
        scope = ledger.Scope(provider).match()
        match = {**ledger.within(await ledger.tenants(opened), *period), **scope}
        async for found in repriced(opened, Prices(settings.prices), match):
            if found.should is None:
                sums.add(found.row, None, Decimal(0))
            elif found.difference:
                sums.add(found.row, found.price_id, found.difference)
                batch.append(correction(found, author, datetime.now(UTC)))
            if write and len(batch) >= _AT_ONCE:
                await opened["usage"].insert_many(batch)
                batch.clear()
            elif not write:
                batch.clear()
        if batch:
            await opened["usage"].insert_many(batch)
    return sums.rows()


class _Sums:
    """What is corrected, by model and by the price before and after."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, str | None], tuple[int, Decimal]] = defaultdict(lambda: (0, Decimal(0)))

    def add(self, row: dict[str, Any], price_id: str | None, difference: Decimal) -> None:
        key = (row["request_model"], row.get("price_id", ""), price_id)
        count, total = self._sums[key]
        self._sums[key] = (count + 1, total + difference)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "model": model,
                "price": before,
                "new_price": after or "unknown: left as it is",
                "rows": count,
                "difference_usd": plain(total),
            }
            for (model, before, after), (count, total) in sorted(self._sums.items(), key=str)
        ]
