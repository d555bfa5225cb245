"""`aibroker status`: where a job or a batch is, and why it is not further; without either, how much waits and why."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from broker import kafka, mongo
from broker.cli import database, queries, screen, waits
from broker.cli.follow import follow_batch
from broker.cli.formats import meaning
from broker.cli.invocation import DataOption, Invocation, JsonOption, TenantOption
from broker.errors import UsageError
from broker.settings import Settings

_SHOWN = {"payload": 0, "digest": 0, "row": 0, "result.output": 0, "result.output_text": 0}
_COLUMNS = ("priority", "state", "why_waiting", "jobs", "first_due_at", "meaning")
_ANNOUNCED = "announced"
NEVER_YEAR = 9999
"""The year in which a job is due that waits for its batch to be resumed."""


def status(
    context: typer.Context,
    *,
    job: Annotated[str | None, typer.Argument(metavar="[ID]", help="The job's id.")] = None,
    batch: Annotated[str | None, typer.Option(metavar="ID", help="Count the jobs of this batch instead.")] = None,
    tenant: TenantOption = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", help="Stay until all jobs of the batch have ended; the exit code is 1 if some did not succeed."
        ),
    ] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say where a job or a batch is: its state, why it waits, its attempts, which worker on which host has it, when it will probably start.

    The start is estimated from the jobs of its priority and tenant that are due no later and the rate at which workers have started such jobs
    in the last lease. Without ID and batch: how many jobs of each priority wait, and for what.
    """
    invocation: Invocation = context.obj
    if job is not None and batch is not None:
        raise UsageError("say which: `aibroker status ID` for a job, `aibroker status --batch ID` for a batch")
    if follow and batch is None:
        raise UsageError("say which batch to follow: `aibroker status --batch ID --follow`")
    settings = invocation.settings(data)
    owner = tenant or "default"
    if follow and batch is not None:
        _follow(settings, owner, batch, as_json=as_json)
        return
    if job is None and batch is None:
        _overview(settings, as_json=as_json)
        return
    found = asyncio.run(_found(settings, owner, job, batch))
    if as_json:
        screen.write_json(found)
    else:
        show(found)


async def _found(settings: Settings, tenant: str, job: str | None, batch: str | None) -> dict[str, Any]:
    async with database.opened(settings) as opened:
        if job is None:
            return await batch_status(opened, tenant, batch or "")
        found = await opened["jobs"].find_one({"_id": f"{tenant}/{job}"}, _SHOWN)
        if found is not None and found["state"] != _ANNOUNCED:
            return await _job(opened, found)
    unread = await kafka.backlog(settings)
    if found is None and not any(unread.values()):
        raise UsageError(
            f"the tenant {tenant} has no job {job}: all that was sent has been read, so it was never sent, or its time of keeping is over"
        )
    return not_seen(f"{tenant}/{job}", found, unread)


def _follow(settings: Settings, tenant: str, batch: str, *, as_json: bool) -> None:
    followed = asyncio.run(follow_batch(settings, tenant, batch))
    followed.report(as_json=as_json)
    if not followed.all_succeeded:
        raise typer.Exit(1)


def _overview(settings: Settings, *, as_json: bool) -> None:
    rows, paused = asyncio.run(_all(settings))
    if as_json:
        for row in rows:
            screen.write_json(row)
        return
    if rows:
        screen.write_table("Jobs that have not ended", [name.replace("_", " ") for name in _COLUMNS], map(_cells, rows))
    else:
        screen.write_text("no job waits or runs, and nothing is unread")
    for halt in paused:
        screen.write_text(halted(halt))


async def _all(settings: Settings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    unread = await kafka.backlog(settings)
    rows = [waits.row(priority, "not_seen", count) for priority, count in unread.items() if count]
    async with database.opened(settings) as opened:
        rows += [row async for row in waits.totals(opened)]
        return rows, await opened["halts"].find({"kind": "paused"}).sort("_id").to_list(None)


def _cells(row: Mapping[str, Any]) -> list[Any]:
    jobs = f"{row['jobs']:,} or more" if row["at_least"] else row["jobs"]
    return [jobs if name == "jobs" else row[name] for name in _COLUMNS]


def show(found: dict[str, Any]) -> None:
    """Write what was found as a table of two columns."""
    rows = [
        (name.replace("_", " "), value) for name, value in found.items() if value not in (None, []) and name != "states"
    ]
    states = [(f"  {name}", count) for name, count in (found.get("states") or {}).items()]
    title = f"Batch {found['batch_id']}" if "states" in found else f"Job {found['job_id']}"
    screen.write_table(title, ["", ""], [*_readable(rows), *states])


def _readable(rows: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [(name, _sentence(value)) for name, value in rows]


def _sentence(value: Any) -> Any:  # noqa: ANN401 whatever stands in a status
    if isinstance(value, dict):
        return ", ".join(f"{name} {count:,}" for name, count in value.items())
    if isinstance(value, list):
        return "\n".join(f"{entry['jobs']:,} {entry['state']}: {entry['code']}" for entry in value) or None
    return value


async def _job(opened: mongo.Database, found: dict[str, Any]) -> dict[str, Any]:
    halts = await opened["halts"].find(queries.halts(found["tenant"], found.get("batch_id"))).to_list(None)
    paused = [halt for halt in halts if halt["kind"] == "paused"]
    told = job_status(found, paused)
    if (owner := found.get("owner")) is not None:
        told["host"] = (await opened["workers"].find_one({"_id": owner}, {"host": 1}) or {}).get("host")
    turn = None if paused else await waits.turn(opened, found)
    return told if turn is None else told | turn.told(found["due_at"], datetime.now(UTC))


def not_seen(key: str, stub: Mapping[str, Any] | None, unread: Mapping[str, int]) -> dict[str, Any]:
    """What is told about a job that no worker has read: what may be before it in the log, and what was asked of it already."""
    asked = {name: value for name, value in (stub or {}).items() if name == "cancel"}
    told = job_status({"_id": key, "state": "not_seen", **asked})
    before = ", ".join(f"{count:,} of {priority}" for priority, count in unread.items() if count)
    told["meaning"] = (
        f"no worker has read it, if it was sent: {before} are unread"
        if before
        else "something was asked of it, but it was never sent"
    )
    return told | {"unread": dict(unread)}


def job_status(document: dict[str, Any], paused: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """What is told about a job under these pauses, in stable keys; None where nothing is to be said."""
    result = document.get("result") or {}
    why = document.get("why_waiting") if document["state"] == "waiting" else None
    why = "paused" if why and paused else why
    due_at = document.get("due_at") if why else None
    tenant, _, job_id = str(document["_id"]).partition("/")
    return {
        "job_id": job_id,
        "tenant": tenant,
        "state": document["state"],
        "why_waiting": why,
        "meaning": _meaning(why, paused) if why else meaning(result.get("code")) or None,
        "due_at": due_at if due_at is not None and due_at.year < NEVER_YEAR else None,
        **waits.NO_TURN,
        "unread": None,
        "last_failure": document.get("last_failure") if why else None,
        "priority": document.get("priority"),
        "batch_id": document.get("batch_id"),
        "generation": document.get("generation"),
        "attempts": result.get("attempts", document.get("attempts", 0)),
        "takeovers": document.get("takeovers") or None,
        "owner": document.get("owner"),
        "host": None,
        "fence": document.get("fence"),
        "arrived_at": document.get("arrived_at"),
        "finished_at": document.get("finished_at") or result.get("finished_at"),
        "code": result.get("code"),
        "message": result.get("message"),
        "cost_usd": result.get("cost_usd"),
        "cancel": document.get("cancel"),
        "published": None if not result else "outbox" not in document,
    }


def _meaning(why: str, paused: Sequence[dict[str, Any]]) -> str | None:
    said = "; ".join(halted(halt) for halt in paused)
    return said if why == "paused" and said else waits.MEANING.get(why)


def halted(halt: dict[str, Any]) -> str:
    """What a halt says: of what, why, and how it ends."""
    scope = str(halt["_id"])
    tenant, _, batch = scope.partition("/")
    of = f"--batch {batch} --tenant {tenant}" if batch else f"--tenant {tenant}"
    option = "--all" if scope == "*" else of
    why = f" ({halt['reason']})" if halt.get("reason") else ""
    return f"{halt['kind']}{why}: `aibroker resume {option}` ends that"


async def batch_status(opened: mongo.Database, tenant: str, batch: str) -> dict[str, Any]:
    """What is told about a batch, in stable keys.

    Raises:
        UsageError: Nobody knows it.
    """
    key = [(tenant, batch)]
    states = await database.state_counts(opened, queries.batch_counts(key))
    sealed = await opened["batches"].find_one({"_id": f"{tenant}/{batch}"})
    if not states and sealed is None:
        raise UsageError(
            f"the tenant {tenant} has no batch {batch}; its jobs may not have been read yet (`aibroker doctor` shows the lag)"
        )
    halts = [halted(halt) for halt in await opened["halts"].find(queries.halts(tenant, batch)).to_list(None)]
    sealed = sealed or {}
    limited = (sealed.get("limited") or {}).get("reason")
    codes = await database.listed(opened, "jobs", queries.batch_codes(key))
    done = sum(count for state, count in states.items() if state in queries.TERMINAL)
    return {
        "batch_id": batch,
        "tenant": tenant,
        "sealed_total": sealed.get("total"),
        "halted": "; ".join([*halts, *([f"over its limit: {limited}"] if limited else [])]) or None,
        "completed_at": (sealed.get("event") or {}).get("finished_at"),
        "jobs": sum(states.values()),
        "ended": done,
        "states": dict(sorted(states.items())),
        "codes": [queries.code_row(entry) for entry in codes],
    }
