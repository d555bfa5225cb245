"""`aibroker results`: results of finished jobs, or the lines of those that did not succeed, as lines of JSON."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from broker import mongo
from broker.cli import database, queries, screen
from broker.cli.formats import Format, blank_mark, input_line, result_line
from broker.cli.invocation import DataOption, Invocation, TenantOption
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
    as_input: Annotated[
        bool, typer.Option("--as-input", help="Write the lines that the jobs came from, ready to be submitted again.")
    ] = False,
    output_format: Annotated[
        Format,
        typer.Option("--format", help="auto: OpenAI's batch output for what was a line of OpenAI's, else our results."),
    ] = Format.AUTO,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write to this file, which appears when it is whole."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Nothing changes: results always are lines of JSON.")] = False,
    data: DataOption = None,
) -> None:
    """Write the results of finished jobs as lines of JSON.

    Without --batch and --job: all that are kept. With --as-input: the lines of those jobs that did not succeed (of the others none is kept), so
    that `aibroker results --batch B --as-input -o again.jsonl` and `aibroker submit again.jsonl` run them once more.
    """
    del as_json
    invocation: Invocation = context.obj
    if batch is not None and job is not None:
        raise UsageError("give --batch or --job, not both")
    statuses = queries.names(status)
    wanted = {"_id": f"{tenant or 'default'}/{job}"} if job is not None else queries.finished(statuses, tenant, batch)
    settings = invocation.settings(data)
    with _written(output) as file:
        write = _Lines(file, _again(batch) if as_input else _as_result(output_format))
        asyncio.run(_write(settings, wanted, write, payload=as_input))
    if output is not None or as_input:
        screen.say(write.summary(output))
    if as_input and write.lines:
        screen.say(_how_to_submit(output, tenant))


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


async def _write(settings: Settings, wanted: dict[str, Any], write: _Lines, *, payload: bool) -> None:
    async with database.opened(settings) as opened:
        async for document in _documents(opened, wanted, payload=payload):
            write.write(document)
        if "_id" in wanted and not write.lines + write.left_out:
            raise UsageError(await _why_not(opened, wanted["_id"]))


async def _documents(opened: mongo.Database, wanted: dict[str, Any], *, payload: bool) -> AsyncIterator[dict[str, Any]]:
    projection = {**_WRITTEN, "payload": 1} if payload else _WRITTEN
    match = wanted if "state" in wanted else {**wanted, "state": {"$in": list(queries.TERMINAL)}}
    async for document in database.aggregate(opened, "jobs", [{"$match": match}, {"$project": projection}]):
        yield document


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
