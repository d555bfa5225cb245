"""`aibroker submit`: sends the jobs of a file, and follows them to their end where that is asked for."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, BinaryIO

import typer
from rich.progress import Progress, TaskID

from broker import kafka
from broker.cli import files, screen
from broker.cli.durations import duration, rfc3339
from broker.cli.follow import follow
from broker.cli.invocation import DataOption, Invocation, JsonOption
from broker.cli.lines import JobLine, RefusedLine, Terms, read_line, too_long
from broker.cli.seen import Seen
from broker.cli.upload import Upload
from broker.errors import UsageError
from broker.settings import Settings
from schemas.codes import Code

_LISTED = 50
_PROGRESS_LINES = 500


def submit(  # noqa: PLR0913 each is an option of the command
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file of JSON lines; - reads standard input.")],
    *,
    priority: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="interactive, normal or batch; if not given, the last one of the settings."),
    ] = None,
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Who pays, for lines that do not say it.")] = "default",
    batch: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The batch's id; if not given, the first 16 hex digits of the file's SHA-256."),
    ] = None,
    ttl: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long the jobs have (90s, 1h, 7d), for lines without a deadline."),
    ] = None,
    follow_it: Annotated[
        bool, typer.Option("--follow", help="Stay until all jobs have ended; 1 if some did not succeed.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only say which lines would be refused; send nothing.")
    ] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send the jobs of a file of JSON lines: our job lines, and lines of OpenAI's batch format as they are.

    \b
    {"body": {"model": "m", "messages": [{"role": "user", "content": "hi"}]}}
    {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": [...]}}

    A file can be sent again at any time: its jobs have the same ids, so none runs twice. Lines that cannot be sent are listed with their number
    and do not stop the others; if there were any, the exit code is 1.
    """  # noqa: D301 the escape tells typer to keep the lines below it
    invocation: Invocation = context.obj
    deadline = rfc3339(datetime.now(UTC) + duration(ttl)) if ttl else None
    settings = None if check else invocation.settings(data)
    chosen = _priority(settings, priority) if settings else ""
    ends: dict[kafka.TopicPartition, int] = {}
    with files.opened(file, sys.stdin.buffer) as opened, screen.progress() as bars:
        terms = Terms(batch or files.fingerprint(opened), tenant, deadline)
        reading = _Reading(opened, terms, bars, as_json=as_json)
        if settings is None:
            reading.to_the_end()
        else:
            ends = asyncio.run(_send(settings, chosen, reading, seal=follow_it))
    reading.report(sent=not check)
    all_well = not reading.refused
    if settings is not None and follow_it:
        followed = asyncio.run(follow(settings, chosen, ends, reading.batches, theirs_alone=batch is None))
        followed.report(as_json=as_json)
        all_well = all_well and followed.all_succeeded
    if not all_well:
        raise typer.Exit(1)


def _priority(settings: Settings, wanted: str | None) -> str:
    names = [priority.name for priority in settings.priorities]
    if wanted is not None and wanted not in names:
        raise UsageError(f"there is no priority {wanted!r}; choose from {', '.join(names)}")
    return wanted or names[-1]


async def _send(
    settings: Settings, priority: str, reading: "_Reading", *, seal: bool
) -> dict[kafka.TopicPartition, int]:
    """Send what can be sent; return where the topic ends then."""
    async with Upload.to(settings, priority) as upload:
        for line in reading.jobs():
            await upload.send(line)
        await upload.flush()
        for (tenant, batch_id), total in reading.batches.items() if seal else ():
            await upload.seal(tenant, batch_id, total)
        return await upload.ends()


@dataclass(slots=True)
class _Reading:
    """Reads a file once: gives its jobs, lists its refused lines, counts both."""

    file: BinaryIO
    terms: Terms
    bars: Progress
    as_json: bool = field(kw_only=True)
    accepted: int = 0
    refused: int = 0
    batches: dict[tuple[str, str], int] = field(default_factory=dict)
    _seen: Seen = field(default_factory=Seen)

    def jobs(self) -> Iterator[JobLine]:
        """The lines that can be sent."""
        now = datetime.now(UTC)
        with self._bar() as (bar, tell):
            for line in files.lines(self.file):
                made = (
                    read_line(line.number, line.text, self.terms, now)
                    if line.text is not None
                    else too_long(line.number)
                )
                if isinstance(made, JobLine) and not self._seen.add(f"{made.tenant}/{made.job_id}"):
                    made = _twice(made)
                if isinstance(made, JobLine):
                    self._count(made)
                    yield made
                else:
                    self._list(made)
                if line.number % _PROGRESS_LINES == 0:
                    tell(bar)

    def to_the_end(self) -> None:
        """Read the whole file and give nothing."""
        for _ in self.jobs():
            pass

    def report(self, *, sent: bool) -> None:
        """Say what became of the file."""
        if self.as_json:
            screen.write_json(
                {
                    "event": "submitted" if sent else "checked",
                    "batch_id": self.terms.batch,
                    "jobs": self.accepted,
                    "refused": self.refused,
                }
            )
            return
        if self.refused > _LISTED:
            screen.say(f"and {self.refused - _LISTED:,} more refused lines; --json lists all")
        what = "sent" if sent else "could be sent"
        refused = f", {self.refused:,} lines refused" if self.refused else ""
        screen.write_text(f"{self.accepted:,} jobs {what} as batch {self.terms.batch}{refused}")

    @contextmanager
    def _bar(self) -> Iterator[Any]:
        size = files.size(self.file)
        bar = self.bars.add_task("reading", total=size)

        def tell(task: TaskID) -> None:
            self.bars.update(task, completed=self.file.tell(), description=f"{self.accepted:,} jobs, bytes read")

        yield bar, tell
        tell(bar)

    def _count(self, line: JobLine) -> None:
        self.accepted += 1
        key = line.tenant, line.batch_id
        self.batches[key] = self.batches.get(key, 0) + 1

    def _list(self, line: RefusedLine) -> None:
        self.refused += 1
        if self.as_json:
            screen.write_json({"event": "refused", **line.shown()})
        elif self.refused <= _LISTED:
            screen.say(f"line {line.number}: {line.code}: {line.message}")


def _twice(line: JobLine) -> RefusedLine:
    return RefusedLine(
        line.number,
        Code.ID_CONFLICT.value,
        f"an earlier line has the id {line.job_id} too; give each line one of its own",
    )
