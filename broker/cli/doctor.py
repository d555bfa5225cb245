"""`aibroker doctor`: what can be reached, what is missing, what waits, and what to do about it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import typer

from broker import kafka, mongo, settings, topics
from broker.cli import database, queries, screen, waits
from broker.cli.invocation import DataOption, Invocation, JsonOption
from broker.cli.status import NEVER_YEAR, halted
from broker.errors import AibrokerError, ServiceMissing, SettingsError
from broker.mongo_layout import INDEXES
from broker.settings import Provider, Settings

_CONNECT_S = 5
_COLOURS = {"ok": "green", "warning": "yellow", "missing": "red"}

Verdict = Literal["ok", "warning", "missing"]


@dataclass(slots=True, frozen=True)
class Finding:
    """One thing that was looked at; a remedy where it is not as it should be."""

    subject: str
    verdict: Verdict
    found: str
    remedy: str | None = None
    numbers: dict[str, Any] | None = None

    def shown(self) -> dict[str, Any]:
        """The finding in stable keys, for `--json`."""
        return {
            "subject": self.subject,
            "verdict": self.verdict,
            "found": self.found,
            "remedy": self.remedy,
            "numbers": self.numbers or {},
        }


def doctor(context: typer.Context, *, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Look at everything that is needed: what can be reached, in which version, what is missing, what waits and why.

    Ends with 3 where something is missing; what is slow or has piled up is only pointed at.
    """
    invocation: Invocation = context.obj
    findings = asyncio.run(_look(invocation, data, as_json=as_json))
    if not as_json:
        _show(findings)
    if any(finding.verdict == "missing" for finding in findings):
        raise typer.Exit(3)


async def _look(invocation: Invocation, data: Path | None, *, as_json: bool) -> list[Finding]:
    findings: list[Finding] = []
    async for finding in _findings(invocation, data):
        findings.append(finding)
        if as_json:
            screen.write_json(finding.shown())
    return findings


def _show(findings: list[Finding]) -> None:
    console = screen.output()
    for finding in findings:
        colour = _COLOURS[finding.verdict]
        console.print(f"[{colour}]{finding.verdict:<8}[/{colour}][bold]{finding.subject}[/bold]", end="  ")
        console.print(finding.found, markup=False)
        if finding.remedy:
            console.print(f"        {finding.remedy}", markup=False)


async def _findings(invocation: Invocation, data: Path | None) -> AsyncIterator[Finding]:
    try:
        of = invocation.settings(data)
    except (SettingsError, ServiceMissing) as error:
        yield Finding("settings", "missing", str(error))
        return
    yield _settings(of, invocation)
    async for finding in _of_kafka(of):
        yield finding
    async for finding in _of_mongo(of):
        yield finding
    if not of.providers:
        yield Finding(
            "providers", "missing", "none is set", remedy="set AIBROKER_PROVIDERS_OPENAI_BASE_URL and _API_KEY"
        )
    for name, provider in of.providers.items():
        yield await _of_provider(name, provider)


def _settings(of: Settings, invocation: Invocation) -> Finding:
    file = invocation.settings_file or Path(invocation.environment.get(settings.FILE_VARIABLE, settings.DEFAULT_FILE))
    source = f"from {file}" if file.exists() else "no file, the defaults and the environment"
    return Finding("settings", "ok", f"{source}; database {of.database}, topics {of.topic('*')}")


async def _of_kafka(of: Settings) -> AsyncIterator[Finding]:
    try:
        cluster = await kafka.check(of)
        counts = await kafka.partition_counts(of)
    except AibrokerError as error:
        yield Finding("Kafka", "missing", str(error))
        return
    yield Finding("Kafka", "ok", f"{of.kafka}, version {cluster.at_least} or newer, {cluster.brokers} broker(s)")
    wanted = topics.wanted(of)
    problem = topics.missing_topic(of, counts, wanted)
    if problem is not None:
        yield Finding("topics", "missing", problem)
        return
    kept = await topics.kept_s(of, sorted(topics.job_topics(of, counts)))
    problem = topics.retention_problem(of, kept)
    yield Finding("topics", "missing" if problem else "ok", problem or f"{len(wanted)} there")
    lag = await kafka.backlog(of)
    total = sum(lag.values())
    yield Finding(
        "unread jobs",
        "warning" if total else "ok",
        ", ".join(f"{name} {count:,}" for name, count in lag.items()),
        remedy="if this does not fall, start workers: `aibroker worker`" if total else None,
        numbers=dict(lag),
    )


async def _of_mongo(of: Settings) -> AsyncIterator[Finding]:
    try:
        async with database.opened(of) as opened:
            yield await _version(opened, of)
            yield await _collections(opened)
            async for finding in _waiting(opened):
                yield finding
            async for finding in _paused(opened):
                yield finding
            yield await _workers(opened)
    except AibrokerError as error:
        yield Finding("MongoDB", "missing", str(error))


async def _version(opened: mongo.Database, of: Settings) -> Finding:
    build = await opened.command("buildInfo")
    hello = await opened.command("hello")
    url = settings.effective(of)["mongo"]
    kind = f"replica set {hello['setName']}" if "setName" in hello else "sharded"
    return Finding("MongoDB", "ok", f"{url}, version {build['version']}, {kind}")


async def _collections(opened: mongo.Database) -> Finding:
    there = set(await opened.list_collection_names())
    missing = sorted({*INDEXES, "results"} - there)
    if missing:
        return Finding(
            "collections", "missing", f"there is no {', '.join(missing)}", remedy="make all with `aibroker topics`"
        )
    without = [
        f"{name}.{index['name']}"
        for name, indexes in INDEXES.items()
        if indexes
        for index in indexes
        if index["name"] not in await opened[name].index_information()
    ]
    if without:
        return Finding(
            "collections", "missing", f"no index {', '.join(without)}", remedy="make all with `aibroker topics`"
        )
    return Finding("collections", "ok", f"{len(INDEXES)} and the view results, with all indexes")


async def _waiting(opened: mongo.Database) -> AsyncIterator[Finding]:
    waiting = [row async for row in waits.totals(opened) if row["state"] == "waiting"]
    if not waiting:
        yield Finding("waiting jobs", "ok", "none")
    for row in waiting:
        priority, reason, jobs = row["priority"], row["why_waiting"], row["jobs"]
        remedy, more = _REMEDIES.get(str(reason)), " or more" if row["at_least"] else ""
        yield Finding(
            "waiting jobs",
            "warning" if remedy else "ok",
            f"{jobs:,}{more} {priority}, {reason}, {_due(row['first_due_at'])}",
            remedy=remedy,
            numbers={"priority": priority, "reason": reason, "jobs": jobs},
        )


def _due(first: datetime) -> str:
    return f"the first due at {screen.cell(first)}" if first.year < NEVER_YEAR else "due when they are resumed"


async def _paused(opened: mongo.Database) -> AsyncIterator[Finding]:
    """What an operator has paused, and may have forgotten."""
    async for halt in opened["halts"].find({"kind": "paused"}).sort("_id"):
        scope = {"*": "everything"}.get(halt["_id"], halt["_id"])
        yield Finding("paused", "warning", f"{scope}, since {screen.cell(halt['at'])}", remedy=halted(halt))


_REMEDIES = {
    "credential": "a provider refuses its key: renew it in the settings",
    "quota": "a tenant's quota is used up: wait for the next window, or raise it in the settings",
    "taken_over": "workers have died: look at their logs",
}


async def _workers(opened: mongo.Database) -> Finding:
    alive = await database.listed(opened, "workers", queries.live_workers())
    hosts = sorted({str(lease.get("host", "?")) for lease in alive})
    return Finding(
        "workers",
        "ok" if alive else "missing",
        f"{len(alive)} on {', '.join(hosts)}" if alive else "none lives",
        remedy=None if alive else "start one with `aibroker worker`, or everything with `aibroker up`",
        numbers={"alive": len(alive)},
    )


async def _of_provider(name: str, provider: Provider) -> Finding:
    address = urlsplit(provider.base_url)
    port = address.port or (443 if address.scheme == "https" else 80)
    subject = f"provider {name}"
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(address.hostname, port)
            writer.close()
            await writer.wait_closed()
    except (OSError, TimeoutError) as error:
        why = str(error) or "no answer"
        return Finding(
            subject,
            "missing",
            f"{provider.base_url}: {why}",
            remedy="check its base_url, the network, or a proxy between",
        )
    key = "with a key" if provider.api_key.get_secret_value() else "without a key"
    return Finding(subject, "ok", f"{provider.base_url} can be reached, {key}")
