"""`aibroker dead`: lists what was no job, shows it, and puts it back to the topic from which it came."""

import asyncio
from collections import defaultdict, deque
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from broker import kafka
from broker.cli import letters, screen
from broker.cli.durations import moment
from broker.cli.invocation import DataOption, Invocation, JsonOption
from broker.client.submission import acknowledged
from broker.errors import UsageError
from broker.sending import Sending
from broker.settings import Settings

_SENT_S = 60.0
_AT_ONCE = 20

_Reason = Annotated[str | None, typer.Option("--reason", metavar="CODE", help="Only those with this code.")]
_Since = Annotated[
    str | None,
    typer.Option("--since", metavar="WHEN", help="Only those from then on: a date, a time, or how long ago (24h)."),
]


def dead() -> typer.Typer:
    """Build the command with its subcommands."""
    app = typer.Typer(
        help="What was no job, or asked for what cannot be done: byte for byte in the topic `jobs.dead`, with the reason.",
        no_args_is_help=True,
    )
    app.command("list")(listing)
    app.command("show")(show)
    app.command("retry")(retry)
    return app


def listing(
    context: typer.Context,
    *,
    reason: _Reason = None,
    since: _Since = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="The newest N of them.")] = 50,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, the newest last: where each stands, why it is here, and where it came from."""
    invocation: Invocation = context.obj
    rows, found = asyncio.run(_newest(invocation.settings(data), reason, since, limit))
    if as_json:
        for row in rows:
            screen.write_json(row)
        return
    if not rows:
        screen.write_text("there is none")
        return
    screen.write_table("Dead letters", list(rows[0]), [list(row.values()) for row in rows])
    if found > len(rows):
        screen.say(f"the newest {len(rows):,} of {found:,}; --limit shows more, --reason and --since choose")


def show(
    context: typer.Context,
    place: Annotated[str, typer.Argument(metavar="PLACE", help="Its place, as `list` shows it, such as 2/17.")],
    *,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one dead letter: why it is here, its key, its own headers and its content."""
    invocation: Invocation = context.obj
    partition, offset = letters.place(place)
    whole = asyncio.run(letters.letter(invocation.settings(data), partition, offset)).whole()
    if as_json:
        screen.write_json(whole)
    else:
        whole["headers"] = "\n".join(f"{name}: {content}" for name, content in whole["headers"])
        screen.write_table(f"Dead letter {place}", ["", ""], list(whole.items()))


def retry(
    context: typer.Context,
    places: Annotated[list[str] | None, typer.Argument(metavar="[PLACE]...", help="These.")] = None,
    *,
    reason: _Reason = None,
    since: _Since = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put dead letters back to the topic and partition from which they came: bytes, key and their own headers as they were.

    They are read again as if they had just been sent; what is still no job becomes a dead letter again. A letter stays where it is, so that
    each retry sends it once more: a job without an id of its own then runs once more.
    """
    invocation: Invocation = context.obj
    if bool(places) == bool(reason or since):
        raise UsageError("say which: places as `aibroker dead list` shows them, or --reason and --since; not both")
    chosen = [letters.place(place) for place in places or ()]
    count = asyncio.run(_retried(invocation.settings(data), chosen, reason, since))
    if as_json:
        screen.write_json({"event": "retried", "records": count})
    else:
        screen.write_text(f"{count:,} records were put back")


async def _newest(
    settings: Settings, reason: str | None, since: str | None, limit: int
) -> tuple[list[dict[str, Any]], int]:
    """The newest that are wanted, and how many there are: of each partition no more are kept in memory than are shown of all."""
    newest: dict[int, deque[dict[str, Any]]] = defaultdict(lambda: deque(maxlen=limit))
    found = 0
    async for one in letters.letters(settings, _moment(since)):
        if reason in {None, one.said("reason")}:
            found += 1
            newest[one.partition].append(one.row())
    rows = sorted((row for rows in newest.values() for row in rows), key=lambda row: str(row["at"]))
    return rows[-limit:], found


async def _retried(settings: Settings, places: list[tuple[int, int]], reason: str | None, since: str | None) -> int:
    """Send what is chosen; nothing of it where one place is wrong."""
    counts = await kafka.partition_counts(settings)
    count = 0
    async with Sending(settings) as sending:
        if places:
            records = [(await letters.letter(settings, *at)).record(settings, counts) for at in places]
            await acknowledged(sending, records, _SENT_S)
            return len(records)
        chunk = []
        async for one in letters.letters(settings, _moment(since)):
            if reason in {None, one.said("reason")}:
                chunk.append(one.record(settings, counts))
                count += 1
            if len(chunk) == _AT_ONCE:
                await acknowledged(sending, chunk, _SENT_S)
                chunk = []
        await acknowledged(sending, chunk, _SENT_S)
    return count


def _moment(since: str | None) -> datetime | None:
    return moment(since, datetime.now(UTC)) if since else None
