"""`aibroker workers` and `aibroker drain`: which workers there are, what they do, and how one is asked to end after its last call."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer

from broker import mongo
from broker.cli import database, queries, screen
from broker.cli.invocation import DataOption, Invocation, JsonOption
from broker.errors import UsageError
from broker.settings import Settings

_COLUMNS = ("incarnation", "host", "pid", "version", "state", "lease_s", "running", "claimed")


def workers(context: typer.Context, *, data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the workers: host, version, what is left of each one's lease, its state, and the jobs that it runs.

    `running` is what a worker said last, every lease at most; `claimed` are the jobs that are in its name now, those that wait there for a slot
    included. A fenced worker was declared dead, and its jobs went to others; an expired one has not renewed its lease in time and soon is.
    """
    invocation: Invocation = context.obj
    rows = asyncio.run(_listed(invocation.settings(data)))
    if as_json:
        for row in rows:
            screen.write_json(row)
    elif rows:
        screen.write_table("Workers", [name.replace("_", " ") for name in _COLUMNS], map(_cells, rows))
    else:
        screen.write_text("no worker lives; start one with `aibroker worker`")


def drain(
    context: typer.Context,
    *,
    incarnations: Annotated[
        list[str] | None, typer.Argument(metavar="[INCARNATION]...", help="Which, by the first letters of each.")
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Ask every worker of the deployment.")] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask workers to take nothing more, to finish the calls that run, to hand back the rest, and to end with 0.

    It works across machines: a worker reads it with its next renewal. Unlike SIGTERM it sets the calls no limit of time; a SIGTERM to a worker
    that drains does. `aibroker workers` shows how far they are.
    """
    invocation: Invocation = context.obj
    if bool(incarnations) == everyone:
        raise UsageError(
            "say which: `aibroker drain INCARNATION` as `aibroker workers` lists it, or `aibroker drain --all`"
        )
    settings = invocation.settings(data)
    asked = asyncio.run(_asked(settings, None if everyone else incarnations or []))
    if as_json:
        for incarnation in asked:
            screen.write_json({"incarnation": incarnation, "state": "draining"})
    else:
        screen.write_text(
            f"{len(asked)} workers are asked; each sees it within {settings.lease_s / 3:.0f} s and ends when its last call is over"
        )


async def _listed(settings: Settings) -> list[dict[str, Any]]:
    async with database.opened(settings) as opened:
        return [await _row(opened, found) for found in await database.listed(opened, "workers", queries.workers())]


async def _row(opened: mongo.Database, found: Mapping[str, Any]) -> dict[str, Any]:
    claimed = await opened["jobs"].count_documents({"state": "claimed", "owner": found["_id"]}, hint="claimed")
    return worker_row(found, claimed)


async def _asked(settings: Settings, beginnings: Sequence[str] | None) -> list[str]:
    async with database.opened(settings) as opened:
        found = await database.listed(opened, "workers", queries.workers())
        living = [worker["_id"] for worker in found if "fenced" not in worker]
        asked = living if beginnings is None else chosen(beginnings, living)
        await opened["workers"].update_many(*queries.drain(asked))
        return asked


def chosen(beginnings: Iterable[str], living: Sequence[str]) -> list[str]:
    """The incarnations that these beginnings stand for, each once.

    Raises:
        UsageError: One stands for none, or for several.
    """
    asked: dict[str, None] = {}
    for beginning in beginnings:
        fitting = [incarnation for incarnation in living if incarnation.startswith(beginning)]
        if len(fitting) != 1:
            many = f"{len(fitting)} workers begin so: write more of it" if fitting else "no worker that lives begins so"
            raise UsageError(f"{beginning}: {many}; `aibroker workers` lists them")
        asked[fitting[0]] = None
    return list(asked)


def worker_row(found: Mapping[str, Any], claimed: int) -> dict[str, Any]:
    """What is told about a worker, in stable keys; None where it said nothing yet."""
    told = found.get("told") or {}
    return {
        "incarnation": found["_id"],
        "host": found.get("host"),
        "pid": found.get("pid"),
        "version": found.get("version"),
        "state": _state(found),
        "lease_s": found.get("lease_s"),
        "running": told.get("running"),
        "claimed": claimed,
        "told_at": told.get("at"),
        "health": found.get("health"),
    }


def _state(found: Mapping[str, Any]) -> str:
    if "fenced" in found:
        return "fenced"
    if (found.get("lease_s") or 0.0) <= 0:
        return "expired"
    return "draining" if "drain" in found else "living"


def _cells(row: Mapping[str, Any]) -> list[Any]:
    """The row for people: what is left of a lease in whole seconds."""
    return [round(row[name]) if name == "lease_s" and row[name] is not None else row[name] for name in _COLUMNS]
