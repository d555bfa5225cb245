"""`aibroker status`: where a job or a batch is, and why it is not further."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from broker import mongo
from broker.cli import database, queries, screen
from broker.cli.formats import meaning
from broker.cli.invocation import DataOption, Invocation, JsonOption, TenantOption
from broker.errors import UsageError

_SHOWN = {"payload": 0, "digest": 0, "row": 0, "result.output": 0, "result.output_text": 0}
_REASONS = {
    "queued": "there are more jobs than workers have room for",
    "scheduled": "its not_before is not reached",
    "retry": "it failed and is tried again later",
    "not_sent": "the provider could not be reached; it is tried again later",
    "rate_limited": "the provider's rate limit is used up",
    "quota": "the tenant's quota is used up; it goes on in the next window, or when the quota is raised",
    "credential": "the provider refused the key, or its account has no credit left; renew it or top it up",
    "lease": "its worker is not sure that it is alive to the others; it or another one takes it again",
    "taken_over": "its worker died; another one takes it",
    "handed_back": "its worker was stopped; another one takes it",
    "rerun": "it runs again",
    "paused": "it is paused",
}
_NEVER = 9999
"""The year in which a job is due that waits for its batch to be resumed."""


def status(
    context: typer.Context,
    *,
    job: Annotated[str | None, typer.Argument(metavar="[ID]", help="The job's id.")] = None,
    batch: Annotated[str | None, typer.Option(metavar="ID", help="Count the jobs of this batch instead.")] = None,
    tenant: TenantOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say where a job or a batch is: its state, why it waits, its attempts, who works on it, since when."""
    invocation: Invocation = context.obj
    if (job is None) == (batch is None):
        raise UsageError("say which: `aibroker status ID` for a job, `aibroker status --batch ID` for a batch")
    settings = invocation.settings(data)

    async def read() -> dict[str, Any]:
        async with database.opened(settings) as opened:
            owner = tenant or "default"
            return await (_job(opened, owner, job) if job is not None else batch_status(opened, owner, batch or ""))

    found = asyncio.run(read())
    if as_json:
        screen.write_json(found)
    else:
        show(found)


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
    if isinstance(value, list):
        return "\n".join(f"{entry['jobs']:,} {entry['state']}: {entry['code']}" for entry in value) or None
    return value


async def _job(opened: mongo.Database, tenant: str, job: str) -> dict[str, Any]:
    found = await opened["jobs"].find_one({"_id": f"{tenant}/{job}"}, _SHOWN)
    if found is None:
        raise UsageError(
            f"the tenant {tenant} has no job {job}; it may not have been read yet (`aibroker doctor` shows the lag), or its time of keeping is over"
        )
    halts = await opened["halts"].find(queries.halts(tenant, found.get("batch_id"))).to_list(None)
    return job_status(found, [halt for halt in halts if halt["kind"] == "paused"])


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
        "due_at": due_at if due_at is not None and due_at.year < _NEVER else None,
        "last_failure": document.get("last_failure") if why else None,
        "priority": document.get("priority"),
        "batch_id": document.get("batch_id"),
        "generation": document.get("generation"),
        "attempts": result.get("attempts", document.get("attempts", 0)),
        "takeovers": document.get("takeovers") or None,
        "owner": document.get("owner"),
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
    return said if why == "paused" and said else _REASONS.get(why)


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
