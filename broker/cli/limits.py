"""`aibroker limits`: what is spent, held and left of each limit now, and how limits are changed, shown and looked up, version by version."""

import asyncio
import getpass
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from broker import mongo
from broker.cli import database, screen
from broker.cli.invocation import DataOption, Invocation, JsonOption
from broker.cli.limit_rows import limit_rows
from broker.errors import UsageError
from broker.limit_versions import LimitVersion, of_quotas, read_limits, restored, stored
from broker.limits import Limit
from broker.settings import Settings
from broker.settings_file import written

_COLUMNS = ("limit_of", "per", "mode", "unit", "limit", "spent", "held", "left", "passed_over", "window_end")
_ReasonOption = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the history.")]
_BasedOption = Annotated[
    int | None,
    typer.Option("--based-on", min=0, metavar="N", help="The version that this changes, if the file does not say it."),
]


def limits() -> typer.Typer:
    """Build the command with its subcommands."""
    app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})
    app.callback(invoke_without_command=True)(listing)
    app.command("set")(put)
    app.command("show")(show)
    app.command("history")(history)
    app.command("reset")(reset)
    return app


def listing(context: typer.Context, *, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show what is spent, held and left of each limit in its window, and change limits without a restart.

    `held` is reserved for calls that run, or granted to a worker for the next ones; `passed_over` are jobs that a soft or shadow limit let pass
    though all of it was used: what a hard one would have refused. Workers tell what they have spent every few seconds.
    """
    if context.invoked_subcommand is not None:
        return
    invocation: Invocation = context.obj
    version, rows = asyncio.run(_rows(invocation.settings(data)))
    if as_json:
        for row in rows:
            screen.write_json({**row, "version": version})
    elif rows:
        cells = ([row[name] for name in _COLUMNS] for row in rows)
        screen.write_table(f"Limits, version {version}", [name.replace("_", " ") for name in _COLUMNS], cells)
    else:
        screen.write_text(f"version {version} has no limits; deploy/limits.md says how they are set")


def put(
    context: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="`limits` and `quotas` as in the settings, in YAML.")],
    based_on: _BasedOption = None,
    reason: _ReasonOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have the limits of a file in place of all that hold now: workers heed them within a few seconds.

    The file says which `version` it changes, as `aibroker limits show` writes it: if somebody else has set limits meanwhile, nothing is changed.
    """
    invocation: Invocation = context.obj
    said = read_limits(file)
    based = said.version if based_on is None else based_on
    if based is None:
        raise UsageError(
            f"{file}: say which version it changes: begin with one that `aibroker limits show` writes, or add --based-on N"
        )
    _set(invocation.settings(data), _new(based, said.whole, reason), as_json=as_json)


def reset(
    context: typer.Context,
    *,
    based_on: Annotated[int, typer.Option("--based-on", min=0, metavar="N", help="The version that holds now.")],
    reason: _ReasonOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have the limits of the settings again, as a new version."""
    invocation: Invocation = context.obj
    _set(invocation.settings(data), _new(based_on, None, reason), as_json=as_json)


def show(
    context: typer.Context,
    *,
    version: Annotated[int | None, typer.Argument(min=0, metavar="[VERSION]", help="The last if not given.")] = None,
    data: DataOption = None,
) -> None:
    """Write the limits of a version as a file that can be changed and set."""
    invocation: Invocation = context.obj
    settings = invocation.settings(data)
    found = {said.version: said for said in asyncio.run(_versions(settings))}
    wanted = max(found, default=0) if version is None else version
    if wanted and wanted not in found:
        raise UsageError(f"there is no version {wanted} of the limits; `aibroker limits history` lists them")
    own = (*(limit for _, limit in of_quotas(settings.quotas)), *settings.limits)
    said = found[wanted].limits if wanted else None
    shown = [limit.model_dump(mode="json", exclude_defaults=True) for limit in (own if said is None else said)]
    screen.write_text(written({"version": wanted, "limits": shown}).rstrip())


def history(context: typer.Context, *, data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the versions: who set each, when and why, and how many limits it has."""
    invocation: Invocation = context.obj
    rows = [_told(said) for said in asyncio.run(_versions(invocation.settings(data)))]
    if as_json:
        for row in rows:
            screen.write_json(row)
    elif rows:
        screen.write_table("Versions of the limits", list(rows[0]), [list(row.values()) for row in rows])
    else:
        screen.write_text("limits were never set by command: those of the settings hold, as version 0")


def _told(said: LimitVersion) -> dict[str, Any]:
    count = "of the settings" if said.limits is None else len(said.limits)
    return {"version": said.version, "at": said.at, "by": said.by, "reason": said.reason, "limits": count}


def _new(based_on: int, limits: Sequence[Limit] | None, reason: str | None) -> LimitVersion:
    now = datetime.now(UTC)
    whole = None if limits is None else tuple(limits)
    return LimitVersion(version=based_on + 1, limits=whole, at=now, by=_who(), reason=reason)


def _who() -> str:
    try:
        return f"{getpass.getuser()}@{platform.node()}"
    except (KeyError, OSError):  # a user without a name
        return f"somebody@{platform.node()}"


def _set(settings: Settings, said: LimitVersion, *, as_json: bool) -> None:
    asyncio.run(_put(settings, said))
    if as_json:
        screen.write_json({"event": "limits_set", **_told(said)})
    else:
        screen.write_text(f"version {said.version} is set; every worker heeds it within a few seconds")


async def _put(settings: Settings, said: LimitVersion) -> None:
    """Add a version; of several that are based on the same one, one wins.

    Raises:
        UsageError: Another version holds than the one on which it is based.
    """
    async with database.opened(settings) as opened:
        last = await database.limits(opened)
        if (last.version if last is not None else 0) == said.version - 1:
            added = {"$setOnInsert": stored(said)}
            if (await opened["limits"].update_one({"_id": said.version}, added, upsert=True)).upserted_id is not None:
                return
            last = await database.limits(opened)
        now = "0, of the settings," if last is None else f"{last.version}, which {last.by} set,"
        raise UsageError(
            f"version {now} holds, and this changes version {said.version - 1}: nothing was set; "
            "put your change into what `aibroker limits show` writes, and set that"
        )


async def _versions(settings: Settings) -> list[LimitVersion]:
    async with database.opened(settings) as opened:
        return [restored(found) for found in await opened["limits"].find({}, sort=[("_id", 1)]).to_list(None)]


async def _rows(settings: Settings) -> tuple[int, list[dict[str, Any]]]:
    now = datetime.now(UTC)
    async with database.opened(settings) as opened:
        rules = settings.rulebook(await database.limits(opened))
        return rules.version, limit_rows(rules, await _books(opened, now), now)


async def _books(opened: mongo.Database, now: datetime) -> list[dict[str, Any]]:
    return await opened["quotas"].find({"looked_at_until": {"$gte": now}}, sort=[("_id", 1)]).to_list(None)
