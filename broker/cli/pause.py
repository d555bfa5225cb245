"""`aibroker pause` and `aibroker resume`: keep a batch, a tenant or everything from running, and let it go on."""

import asyncio
from typing import Annotated, Any

import typer

from broker.cli import screen
from broker.cli.asking import BEFORE_READ, UNREAD, desk
from broker.cli.cancel import ReasonOption, UnreadOption
from broker.cli.invocation import DataOption, Invocation, JsonOption
from broker.errors import UsageError
from broker.settings import Settings
from schemas.control import Control

_Batch = Annotated[str | None, typer.Option("--batch", metavar="ID", help="This batch, of --tenant or of `default`.")]
_Tenant = Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="All jobs of this tenant.")]
_All = Annotated[bool, typer.Option("--all", help="Everything, whoever pays: the emergency stop.")]


def pause(
    context: typer.Context,
    *,
    batch: _Batch = None,
    tenant: _Tenant = None,
    everything: _All = False,
    reason: ReasonOption = None,
    unread: UnreadOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let no job of a batch, of a tenant, or at all begin, until it is resumed. Calls that run go on.

    Jobs are still read and kept; they wait, and `aibroker status` says why. Every worker knows of it within a second or two.
    """
    invocation: Invocation = context.obj
    message = _message("pause", batch, tenant, everything=everything) | {"reason": reason}
    done = asyncio.run(_asked(invocation.settings(data), message, check=batch is not None and not unread))
    _report(message, done=done, as_json=as_json)


def resume(
    context: typer.Context,
    *,
    batch: _Batch = None,
    tenant: _Tenant = None,
    everything: _All = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a batch, a tenant or everything that was paused go on at once. Each is resumed as it was paused.

    A batch that was cancelled takes jobs again; those that have ended as cancelled run again by `aibroker rerun`.
    """
    invocation: Invocation = context.obj
    message = _message("resume", batch, tenant, everything=everything)
    done = asyncio.run(_asked(invocation.settings(data), message, check=False))
    _report(message, done=done, as_json=as_json)


def _message(action: str, batch: str | None, tenant: str | None, *, everything: bool) -> dict[str, Any]:
    """The message; one subject and no more, because everything in place of one batch is no small mistake."""
    if (batch is None and tenant is None) != everything:
        raise UsageError(f"say what: `aibroker {action} --batch ID`, `--tenant NAME` or `--all`, one of them alone")
    if everything:
        return {"action": action, "everything": True}
    return {"action": action, "tenant": tenant or "default", "batch_id": batch}


async def _asked(settings: Settings, message: dict[str, Any], *, check: bool) -> bool:
    async with desk(settings) as at:
        if check:
            await at.check_batch(message["tenant"], message["batch_id"], BEFORE_READ)
        scope = Control.model_validate({name: value for name, value in message.items() if value is not None}).scope
        return await at.done("halts", scope, await at.ask(message))


def _report(message: dict[str, Any], *, done: bool, as_json: bool) -> None:
    what = {"pause": "paused", "resume": "resumed"}[message["action"]]
    if as_json:
        scope = {name: message.get(name) for name in ("tenant", "batch_id")}
        screen.write_json({"event": what, "everything": message.get("everything", False), **scope, "done": done})
        return
    subject = "everything"
    if message.get("batch_id"):
        subject = f"the batch {message['batch_id']} of the tenant {message['tenant']}"
    elif not message.get("everything"):
        subject = f"the tenant {message['tenant']}"
    screen.write_text(f"{subject} is {what}" if done else f"{subject} is asked to be {what}; {UNREAD}")
