"""Reads a file of jobs once: gives what can be sent, lists what cannot, counts both."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, BinaryIO

from rich.progress import Progress, TaskID

from broker.cli import files, screen
from broker.cli.arrived import Arrived, Ends
from broker.cli.lines import JobLine, RefusedLine, Terms, read_line, too_long
from broker.cli.seen import Seen
from broker.tags import Tagging
from schemas.codes import Code

_LISTED = 50
_PROGRESS_LINES = 500


@dataclass(slots=True)
class Reading:
    """One pass over a file; refused lines are listed on the way, the first fifty or, as JSON, all."""

    file: BinaryIO
    terms: Terms
    bars: Progress
    tagging: Tagging
    as_json: bool = field(kw_only=True)
    accepted: int = 0
    arrived_before: int = 0
    refused: int = 0
    batches: dict[tuple[str, str], int] = field(default_factory=dict)
    """How many jobs there are of each (tenant, batch)."""
    _seen: Seen = field(default_factory=Seen)

    def jobs(self, arrived: Arrived | None = None) -> Iterator[bytes]:
        """The records of the lines that can be sent and have not arrived."""
        now = datetime.now(UTC)
        with self._bar() as (bar, tell):
            for line in files.lines(self.file):
                made = self._read(line, now)
                if isinstance(made, JobLine):
                    self._count(made)
                    if arrived is not None and arrived.holds(made):
                        self.arrived_before += 1
                    else:
                        yield made.value
                else:
                    self._list(made)
                if line.number % _PROGRESS_LINES == 0:
                    tell(bar)

    def checked(self) -> Ends:
        """Read the whole file and send nothing."""
        for _ in self.jobs():
            pass
        return {}

    def report(self, *, sent: bool) -> None:
        """Say what became of the file."""
        batch = self.terms.batch
        if self.as_json:
            event = "submitted" if sent else "checked"
            counts = {"jobs": self.accepted, "refused": self.refused, "arrived_before": self.arrived_before}
            screen.write_json({"event": event, "batch_id": batch, **counts})
            return
        if self.refused > _LISTED:
            screen.say(f"and {self.refused - _LISTED:,} more refused lines; --json lists all")
        what = "sent" if sent else "could be sent"
        refused = f", {self.refused:,} lines refused" if self.refused else ""
        before = f", {self.arrived_before:,} of them had arrived before" if self.arrived_before else ""
        screen.write_text(f"{self.accepted:,} jobs {what} as batch {batch}{before}{refused}")

    def _read(self, line: files.Line, now: datetime) -> JobLine | RefusedLine:
        if line.text is None:
            return too_long(line.number)
        made = read_line(line.number, line.text, self.terms, now)
        if isinstance(made, RefusedLine):
            return made
        if (wrong := self.tagging.refusal(made.tenant, made.job.get("tags") or {})) is not None:
            return RefusedLine(line.number, Code.TAG_NOT_ALLOWED.value, wrong)
        if not self._seen.add(f"{made.tenant}/{made.job_id}"):
            sentence = f"an earlier line has the id {made.job_id} too; give each line one of its own"
            return RefusedLine(line.number, Code.ID_CONFLICT.value, sentence)
        return made

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
