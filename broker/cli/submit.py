"""`aibroker submit`: sends the jobs of a file, and follows them to their end where that is asked for."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, NoReturn

import typer

from broker.cli import files, screen
from broker.cli.arrived import Ends, Note
from broker.cli.durations import duration, rfc3339
from broker.cli.follow import follow
from broker.cli.invocation import DataOption, Invocation, JsonOption
from broker.cli.lines import Terms
from broker.cli.reading import Reading
from broker.cli.upload import Upload
from broker.errors import UsageError
from broker.settings import Settings
from broker.tags import Tagging

_File = Annotated[str, typer.Argument(metavar="FILE", help="A file of JSON lines; - reads standard input.")]
_Priority = Annotated[
    str | None,
    typer.Option("--priority", metavar="NAME", help="interactive, normal or batch; without it, the settings' last."),
]
_Tenant = Annotated[str, typer.Option("--tenant", metavar="NAME", help="Who pays, for lines that do not say it.")]
_Batch = Annotated[
    str | None,
    typer.Option("--batch", metavar="ID", help="The batch's id; without it, 16 hex digits of the file's SHA-256."),
]
_Ttl = Annotated[
    str | None,
    typer.Option("--ttl", metavar="TIME", help="How long jobs have (90s, 1h, 7d), for lines without a deadline."),
]
_Follow = Annotated[
    bool, typer.Option("--follow", help="Stay until all jobs have ended; the exit code is 1 if some did not succeed.")
]
_Check = Annotated[bool, typer.Option("--check", help="Only say which lines would be refused; send nothing.")]


_Estimate = Annotated[
    bool,
    typer.Option(
        "--estimate",
        help="Only say what tokens and cost are likely, and if the limits have room (exit code 1: not all have); send nothing.",
    ),
]


def submit(  # noqa: PLR0913 each is an option of the command
    context: typer.Context,
    file: _File,
    *,
    priority: _Priority = None,
    tenant: _Tenant = "default",
    batch: _Batch = None,
    ttl: _Ttl = None,
    follow_it: _Follow = False,
    check: _Check = False,
    estimate_it: _Estimate = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send the jobs of a file of JSON lines: our job lines, and lines of OpenAI's batch format as they are.

    {"body": {"model": "m", "messages": [{"role": "user", "content": "hi"}]}}

    {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {...}}

    A file can be sent again at any time: its jobs have the same ids, so none runs twice. Where this was killed, the next run sends only what has
    not arrived: FILE.sent, which is removed at the end, says from where on to look for the jobs in Kafka. Lines that cannot be sent are listed
    with their number and do not stop the others; if there were any, the exit code is 1.
    """
    invocation: Invocation = context.obj
    deadline = rfc3339(datetime.now(UTC) + duration(ttl)) if ttl else None
    settings = None if check else invocation.settings(data)
    chosen = _priority(settings, priority) if settings else ""
    note = Note.beside(file)
    with files.opened(file, sys.stdin.buffer) as opened, screen.progress() as bars:
        terms = Terms(batch or files.fingerprint(opened), tenant, deadline)
        reading = Reading(opened, terms, bars, _tagging(invocation, settings), as_json=as_json)
        with _if_interrupted("not all of it was sent; send it again when you like, no job runs twice"):
            if settings and estimate_it:
                _estimated(settings, reading)
            seal = follow_it and batch is None
            ends = asyncio.run(_send(settings, chosen, reading, note, seal=seal)) if settings else reading.checked()
    reading.report(sent=not check)
    all_well = not reading.refused
    if settings and ends and follow_it:
        all_well = _followed(settings, chosen, ends, reading, theirs_alone=batch is None) and all_well
    if settings:
        note.remove()
    if not all_well:
        raise typer.Exit(1)


def _tagging(invocation: Invocation, settings: Settings | None) -> Tagging:
    """Which tags jobs may carry; a check needs no service for that."""
    return (settings or invocation.own_settings()).tagging()


def _estimated(settings: Settings, reading: Reading) -> NoReturn:
    """Say what the file will probably use and cost; the exit code is 1 where a limit has no room for it, or lines were refused."""
    from broker.cli.estimate import estimate  # noqa: PLC0415 brings the price table and an HTTP client for its updates

    has_room = asyncio.run(estimate(settings, reading.jobs(), as_json=reading.as_json))
    reading.report(sent=False)
    raise typer.Exit(0 if has_room and not reading.refused else 1)


def _followed(settings: Settings, priority: str, ends: Ends, reading: Reading, *, theirs_alone: bool) -> bool:
    """Stay until all jobs have ended; return whether all succeeded."""
    batch = reading.terms.batch
    with _if_interrupted(f"the jobs go on; `aibroker status --batch {batch}` says how far they are"):
        followed = asyncio.run(follow(settings, priority, ends, reading.batches, theirs_alone=theirs_alone))
    followed.report(as_json=reading.as_json)
    return followed.all_succeeded


@contextmanager
def _if_interrupted(sentence: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        screen.say(sentence)
        raise


def _priority(settings: Settings, wanted: str | None) -> str:
    names = [priority.name for priority in settings.priorities]
    if wanted is not None and wanted not in names:
        raise UsageError(f"there is no priority {wanted!r}; choose from {', '.join(names)}")
    return wanted or names[-1]


async def _send(settings: Settings, priority: str, reading: Reading, note: Note, *, seal: bool) -> Ends:
    """Send what has not arrived, and say that the file's own batch is complete: of others nobody knows; return where the topic ends then."""
    async with Upload.to(settings, priority) as upload:
        arrived = await note.resume(settings, upload.ends)
        await upload.send(reading.jobs(arrived))
        for (tenant, batch_id), total in reading.batches.items():
            if seal and batch_id == reading.terms.batch:
                await upload.seal(tenant, batch_id, total)
        return await upload.ends()
