"""`aibroker rerun`: runs jobs again that have ended without success, by their ids or by what became of them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from broker.cli import database, queries, screen
from broker.cli.asking import Desk, desk, refused
from broker.cli.durations import moment
from broker.cli.invocation import DataOption, Invocation, JsonOption
from broker.errors import UsageError
from broker.settings import Settings
from schemas.codes import Code
from schemas.result import Status

_AT_ONCE = 500
_UNHAPPY = [state for state in queries.TERMINAL if state != Status.SUCCEEDED]


@dataclass(slots=True, frozen=True)
class Wanted:
    """Which jobs shall run again."""

    ids: tuple[str, ...]
    tenant: str | None
    batch: str | None
    query: dict[str, Any]


def rerun(  # noqa: PLR0913 each is an option of the command
    context: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="These jobs.")] = None,
    *,
    batch: Annotated[str | None, typer.Option(metavar="ID", help="Those of this batch.")] = None,
    status: Annotated[
        str,
        typer.Option(
            metavar="NAMES", help=f"Those that ended so, with commas between; without it, all of {', '.join(_UNHAPPY)}."
        ),
    ] = "",
    code: Annotated[str | None, typer.Option(metavar="CODE", help="Those whose result has this code.")] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Those that ended then or later: a date, a time, or how long ago (24h)."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Those that ended before then.")] = None,
    tenant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose jobs; for ids and a batch `default` if not given.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only say how many there are; run nothing.")] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run jobs again that have ended without success: as the next generation, through all checks, with results where the last ones went.

    `aibroker rerun --batch B --status failed`, `aibroker rerun --code provider_error --since 2h`, `aibroker rerun inv-7 inv-8`

    Their deadlines begin anew unless the jobs name one themselves. A job that succeeded keeps no input and does not run again.
    """
    invocation: Invocation = context.obj
    query = _query(status, code, since, until, tenant=tenant, batch=batch)
    chosen = any((batch, status, code, since, until))
    if (ids and chosen) or not (ids or chosen or tenant):
        raise UsageError("say which: ids, or --batch, --status, --code, --since, --until, --tenant; not both")
    wanted = Wanted(tuple(ids or ()), tenant, batch, query)
    count = asyncio.run(_rerun(invocation.settings(data), wanted, check=check))
    if as_json:
        screen.write_json({"event": "checked" if check else "rerun", "jobs": count})
    elif check:
        screen.write_text(f"{count:,} jobs would run again")
    else:
        whose = f" --tenant {tenant}" if tenant else ""
        look = f"; `aibroker status --batch {batch}{whose}` shows how far they are" if batch else ""
        screen.write_text(f"{count:,} jobs are asked to run again{look}")


def _query(*words: str | None, tenant: str | None, batch: str | None) -> dict[str, Any]:
    """The filter of a selection, of the status, code, since and until as they were typed."""
    status, code, since, until = words
    statuses = queries.names(status or "")
    if Status.SUCCEEDED in statuses:
        raise refused(Code.ALREADY_SUCCEEDED, "--status succeeded")
    now = datetime.now(UTC)
    query = queries.finished(statuses or _UNHAPPY, tenant, batch) | {"payload": {"$exists": True}}
    if code is not None:
        query["result.code"] = code
    bounds = {name: moment(text, now) for name, text in (("$gte", since), ("$lt", until)) if text}
    # What fails again while the others are still being asked for is not asked for again.
    query["$expr"] = {"$lte": ["$finished_at", "$$NOW"]}
    return query | ({"finished_at": bounds} if bounds else {})


async def _rerun(settings: Settings, wanted: Wanted, *, check: bool) -> int:
    """Ask for all that is wanted, a message each; return how many there are."""
    count = 0
    async with desk(settings) as at:
        if wanted.batch is not None:
            await at.check_batch(wanted.tenant or "default", wanted.batch)
        async for chunk in _by_id(at, wanted) if wanted.ids else _selected(at, wanted):
            count += len(chunk)
            if not check:
                await at.ask_all({"action": "rerun", "tenant": tenant, "job_id": job} for tenant, job in chunk)
    return count


async def _selected(at: Desk, wanted: Wanted) -> AsyncIterator[list[tuple[str, str]]]:
    """(tenant, job id) of what the filter finds, some at a time."""
    chunk: list[tuple[str, str]] = []
    pipeline = [{"$match": wanted.query}, {"$project": {"tenant": 1, "job_id": 1}}]
    async for found in database.aggregate(at.opened, "jobs", pipeline):
        chunk.append((found["tenant"], found["job_id"]))
        if len(chunk) == _AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def _by_id(at: Desk, wanted: Wanted) -> AsyncIterator[list[tuple[str, str]]]:
    """The jobs that were named, if all of them can run again.

    Raises:
        ControlRefused: With the code of the first that cannot: nothing is asked for then.
    """
    tenant = wanted.tenant or "default"
    for job in wanted.ids:
        found = await at.opened["jobs"].find_one({"_id": f"{tenant}/{job}"}, {"state": 1})
        code = _why_not(found)
        if code is not None:
            raise refused(code, f"the job {job} of the tenant {tenant}")
    yield [(tenant, job) for job in dict.fromkeys(wanted.ids)]


def _why_not(found: dict[str, Any] | None) -> Code | None:
    if found is None or found["state"] == "announced":
        return Code.UNKNOWN_JOB
    if found["state"] not in queries.TERMINAL:
        return Code.NOT_ENDED
    return Code.ALREADY_SUCCEEDED if found["state"] == Status.SUCCEEDED else None
