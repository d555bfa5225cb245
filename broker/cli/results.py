"""`aibroker results`: results of finished jobs, or the lines of those that did not succeed, as lines of JSON."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from broker import mongo
from broker.cli import database, files, ordered, queries, screen
from broker.cli.formats import Format, blank_mark, input_line, result_line
from broker.cli.invocation import DataOption, Invocation, TenantOption
from broker.cli.lines import Terms
from broker.errors import UsageError
from broker.settings import Settings

_WRITTEN = {
    "_id": 1,
    "uid": 1,
    "generation": 1,
    "job_id": 1,
    "batch_id": 1,
    "state": 1,
    "result": 1,
    "row.request_id": 1,
}

_Ordered = Annotated[
    str | None,
    typer.Option(
        "--ordered", metavar="FILE", help="Those of this file's jobs, in the order of its lines, as it was submitted."
    ),
]
_AsInput = Annotated[
    bool, typer.Option("--as-input", help="Write the lines that the jobs came from, ready to be submitted again.")
]
_Format = Annotated[
    Format,
    typer.Option("--format", help="auto: OpenAI's batch output for what was a line of OpenAI's, else our results."),
]
_Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Write to this file, which appears when it is whole."),
]


def results(  # noqa: PLR0913 each is an option of the command
    context: typer.Context,
    *,
    batch: Annotated[str | None, typer.Option(metavar="ID", help="Those of this batch.")] = None,
    job: Annotated[str | None, typer.Option(metavar="ID", help="That of this job.")] = None,
    tenant: TenantOption = None,
    status: Annotated[
        str,
        typer.Option(
            metavar="NAMES", help=f"Only jobs that ended so, with commas between: {', '.join(queries.TERMINAL)}."
        ),
    ] = "",
    in_order_of: _Ordered = None,
    as_input: _AsInput = False,
    output_format: _Format = Format.AUTO,
    output: _Output = None,
    as_json: Annotated[bool, typer.Option("--json", help="Nothing changes: results always are lines of JSON.")] = False,
    data: DataOption = None,
) -> None:
    """Write the results of finished jobs as lines of JSON.

    Without --batch, --job and --ordered: all that are kept. With --ordered, --batch is needed only if the file was submitted with one, and so is
    --tenant. With --as-input: the lines of those jobs that did not succeed (of the others none is kept), so that
    `aibroker results --batch B --as-input -o again.jsonl` and `aibroker submit again.jsonl` run them once more, as new jobs of a new batch;
    `aibroker rerun` runs the same jobs again.
    """
    del as_json
    invocation: Invocation = context.obj
    if (batch is not None or in_order_of is not None) and job is not None:
        raise UsageError("give --job, or --batch and --ordered, not both")
    statuses = queries.names(status)
    wanted = {"_id": f"{tenant or 'default'}/{job}"} if job is not None else queries.finished(statuses, tenant, batch)
    settings = invocation.settings(data)
    with _order(in_order_of, batch, tenant or "default") as (own_batch, keys), _written(output) as file:
        write = _Lines(file, _again(own_batch) if as_input else _as_result(output_format))
        asyncio.run(_write(settings, _Wanted(wanted, keys, payload=as_input), write))
    if output is not None or as_input:
        screen.say(write.summary(output))
    if as_input and write.lines:
        screen.say(_how_to_submit(output, tenant))


@dataclass(slots=True, frozen=True)
class _Wanted:
    """What documents must be like, which ones in which order if not all in any, and whether their payload is needed."""

    match: dict[str, Any]
    keys: Iterator[str] | None
    payload: bool = field(kw_only=True)


@contextlib.contextmanager
def _order(file: str | None, batch: str | None, tenant: str) -> Iterator[tuple[str | None, Iterator[str] | None]]:
    """The batch of a file and the keys of its jobs in its order; without a file the batch that was given, and no keys."""
    if file is None:
        yield batch, None
        return
    with files.opened(file, sys.stdin.buffer) as opened:
        terms = Terms(batch or files.fingerprint(opened), tenant)
        yield terms.batch, ordered.keys(opened, terms)


class _Lines:
    """Writes one line a document and counts them; a document of which nothing is to be written is counted apart."""

    def __init__(self, file: BinaryIO, line_of: Callable[[dict[str, Any], int], bytes | None]) -> None:
        self._file = file
        self._line_of = line_of
        self.lines = 0
        self.left_out = 0

    def write(self, document: dict[str, Any]) -> None:
        line = self._line_of(document, self.lines)
        if line is None:
            self.left_out += 1
            return
        self._file.write(line + b"\n")
        self.lines += 1

    def summary(self, output: Path | None) -> str:
        left_out = f"; {self.left_out:,} left out, because a job that succeeded keeps no input" if self.left_out else ""
        return f"{self.lines:,} lines written to {output or 'standard output'}{left_out}"


def _as_result(wanted: Format) -> Callable[[dict[str, Any], int], bytes | None]:
    return lambda document, _: result_line(document, wanted)


def _again(batch: str | None) -> Callable[[dict[str, Any], int], bytes | None]:
    def line_of(document: dict[str, Any], written: int) -> bytes | None:
        line = input_line(document)
        return line + blank_mark(batch) if line is not None and written == 0 else line

    return line_of


@contextlib.contextmanager
def _written(output: Path | None) -> Iterator[BinaryIO]:
    """The file to write to; one with a name gets it when it is whole, so that nothing half-written is left behind."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    draft = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            yield file
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)


async def _write(settings: Settings, wanted: _Wanted, write: _Lines) -> None:
    async with database.opened(settings) as opened:
        async for document in _documents(opened, wanted):
            write.write(document)
        if "_id" in wanted.match and not write.lines + write.left_out:
            raise UsageError(await _why_not(opened, wanted.match["_id"]))


def _documents(opened: mongo.Database, wanted: _Wanted) -> AsyncIterator[dict[str, Any]]:
    projection = {**_WRITTEN, "payload": 1} if wanted.payload else _WRITTEN
    match = {"state": {"$in": list(queries.TERMINAL)}, **wanted.match}
    if wanted.keys is not None:
        # the keys are all that is needed of tenant and batch, whose index would only be in the way
        return ordered.documents(opened, wanted.keys, {"state": match["state"]}, projection)
    return database.aggregate(opened, "jobs", [{"$match": match}, {"$project": projection}])


async def _why_not(opened: mongo.Database, key: str) -> str:
    """Why a job has no result: it goes on, or nobody knows it."""
    found = await opened["jobs"].find_one({"_id": key}, {"state": 1})
    tenant, _, job_id = key.partition("/")
    if found is None:
        return f"the tenant {tenant} has no job {job_id}; it may not have been read yet, or its time of keeping is over"
    return f"the job {job_id} has no result yet, it is {found['state']}; `aibroker status {job_id} --tenant {tenant}` says more"


def _how_to_submit(output: Path | None, tenant: str | None) -> str:
    options = f" --tenant {tenant}" if tenant else ""
    return f"run them again with: aibroker submit {output or 'FILE.jsonl'}{options}"
