"""`aibroker cancel`: ends a job, or all jobs of a batch."""

import asyncio
from typing import Annotated, Any

import typer

from broker.cli import queries, screen
from broker.cli.asking import BEFORE_READ, UNREAD, Desk, desk, refused
from broker.cli.invocation import DataOption, Invocation, JsonOption, TenantOption
from broker.errors import UsageError
from broker.settings import Settings
from schemas.codes import Code

ReasonOption = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Why; it is told in results and by `status`.")
]
UnreadOption = Annotated[
    bool, typer.Option("--unread", help="Also where none of the batch's jobs has been read by a worker yet.")
]


def cancel(
    context: typer.Context,
    *,
    job: Annotated[str | None, typer.Argument(metavar="[ID]", help="The job's id.")] = None,
    batch: Annotated[str | None, typer.Option(metavar="ID", help="All jobs of this batch instead.")] = None,
    tenant: TenantOption = None,
    reason: ReasonOption = None,
    unread: UnreadOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cancel a job, or a batch: what waits ends without a call, a call that runs is cut, and its cost is estimated.

    Jobs of a cancelled batch that arrive later are cancelled, too, until it is resumed (`aibroker resume --batch ID`). A job can be cancelled
    before it has been read.
    """
    invocation: Invocation = context.obj
    if (job is None) == (batch is None):
        raise UsageError("say which: `aibroker cancel ID` for a job, `aibroker cancel --batch ID` for a batch")
    message = {"action": "cancel", "tenant": tenant or "default", "job_id": job, "batch_id": batch, "reason": reason}
    done = asyncio.run(_cancelled(invocation.settings(data), message, unread=unread))
    if as_json:
        shown = {name: message[name] for name in ("tenant", "job_id", "batch_id")}
        screen.write_json({"event": "cancelled", **shown, "done": done})
        return
    subject, look = (f"the job {job}", job) if job is not None else (f"the batch {batch}", f"--batch {batch}")
    whose = f" --tenant {tenant}" if tenant else ""
    if done:
        screen.write_text(f"{subject} is cancelled; `aibroker status {look}{whose}` shows how far that is")
    else:
        screen.write_text(f"{subject} is asked to be cancelled; {UNREAD}")


async def _cancelled(settings: Settings, message: dict[str, Any], *, unread: bool) -> bool:
    tenant, job, batch = message["tenant"], message["job_id"], message["batch_id"]
    async with desk(settings) as at:
        if job is not None:
            await _check_job(at, tenant, job)
            return await at.done("jobs", f"{tenant}/{job}", await at.ask(message))
        if not unread:
            await at.check_batch(tenant, batch, BEFORE_READ)
        return await at.done("halts", f"{tenant}/{batch}", await at.ask(message))


async def _check_job(at: Desk, tenant: str, job: str) -> None:
    found = await at.opened["jobs"].find_one({"_id": f"{tenant}/{job}"}, {"state": 1})
    if found is not None and found["state"] in queries.TERMINAL:
        raise refused(Code.ALREADY_ENDED, f"the job {job} of the tenant {tenant} is {found['state']}")
