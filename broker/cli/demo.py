"""`aibroker demo`: a thousand mixed jobs through a real Kafka, a real MongoDB, two workers and a simulated provider, and what became of them."""

import asyncio
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.progress import Progress, TaskID

from broker import kafka, mongo
from broker.cli import database, machine, queries, screen
from broker.cli import usage as usage_of
from broker.cli.formats import Format, meaning, result_line
from broker.cli.invocation import Invocation
from broker.cli.upload import Upload, ends_of
from broker.errors import AibrokerError
from broker.local.stack import Plan, Stack
from broker.settings import Settings

DEFAULT_DATA = Path(".aibroker-demo")
_WORKERS = 2
_LONGEST_S = 150.0
_LOOK_S = 0.3
_ANSWER_S = 10


@dataclass(slots=True, frozen=True)
class _Outcome:
    """What is shown at the end."""

    lines: int
    dead_letters: int
    calls_before: int
    calls_after: int
    seconds: float
    outcomes: list[dict[str, Any]]
    usage: list[dict[str, Any]]


def demo(
    context: typer.Context,
    *,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Keep all data in this folder.")] = DEFAULT_DATA,
) -> None:
    """Send 1,000 mixed jobs through the whole product on this machine, and show what became of them and what they cost.

    Three tenants and three priorities; some jobs are invalid, some hold personal data, some are over a quota, some fail at first, some lines are
    no jobs at all. Calls go to a simulated provider and cost nothing. Ends by itself; run it again, and nothing is paid for twice.
    """
    invocation: Invocation = context.obj
    # The demo says all of its settings itself: what is set for other deployments must not lead it there.
    environment = {name: value for name, value in invocation.environment.items() if not name.startswith("AIBROKER_")}
    found: list[_Outcome] = []

    async def run() -> None:
        found.append(await _run(data, environment))

    if not machine.run_until_stopped(run(), lambda: screen.say("stopping")):
        raise typer.Exit(machine.INTERRUPTED)
    _report(found[0], data)


async def _run(data: Path, environment: Mapping[str, str]) -> _Outcome:
    with resources.as_file(resources.files("deploy.demo")) as shipped:
        plan = Plan(
            data=data,
            environment=environment,
            simulator_arguments=("--behaviour", str(shipped / "behaviour.yaml")),
        )
        screen.say("starting Kafka, MongoDB, the simulated provider and two workers")
        async with Stack(plan, screen.say) as stack:
            settings, led = machine.settings_for(stack, environment, shipped / "settings.yaml")
            await machine.prepare(settings)
            await stack.start_workers(_WORKERS, led)
            simulator = stack.addresses.simulator or ""
            calls_before = await _calls(simulator)
            dead_before = await _dead_letters(settings)
            begun = time.monotonic()
            lines = await _through(settings, shipped, data)
            seconds = time.monotonic() - begun
            async with database.opened(settings) as opened:
                await _write_results(opened, data / "results.jsonl")
                return _Outcome(
                    lines=lines,
                    dead_letters=await _dead_letters(settings) - dead_before,
                    calls_before=calls_before,
                    calls_after=await _calls(simulator),
                    seconds=seconds,
                    outcomes=await database.listed(opened, "jobs", queries.outcomes()),
                    usage=await usage_of.rows(
                        opened, queries.usage(("tenant", "model"), queries.Period()), ("tenant", "model")
                    ),
                )


async def _through(settings: Settings, shipped: Path, data: Path) -> int:
    """Send every line as a foreign producer would, byte for byte, and wait until none of them goes on; return how many there were."""
    with screen.progress() as bars:
        sent = {priority.name: list(_lines(shipped / f"{priority.name}.jsonl")) for priority in settings.priorities}
        total = sum(len(lines) for lines in sent.values())
        bar = bars.add_task("jobs through", total=total)
        for name, lines in sent.items():
            async with Upload.to(settings, name) as upload:
                await upload.send(lines)
        try:
            async with asyncio.timeout(_LONGEST_S), database.opened(settings) as opened:
                await _all_ended(settings, opened, bars, bar)
        except TimeoutError:
            raise AibrokerError(
                f"the demo's jobs have not ended within {_LONGEST_S:.0f} s; the logs in {data / 'logs'} say why, and it can be run again"
            ) from None
    return total


async def _all_ended(settings: Settings, opened: mongo.Database, bars: Progress, bar: TaskID) -> None:
    """Wait until workers have read everything, and no document is left that has not ended."""
    total = bars.tasks[0].total or 0
    while True:
        unread = sum((await kafka.backlog(settings)).values())
        states = await database.state_counts(opened, queries.state_counts())
        going_on = sum(count for state, count in states.items() if state not in queries.TERMINAL)
        bars.update(bar, completed=max(0, total - unread - going_on))
        # A job's ledger row and result are on their way until its outbox is empty.
        if not unread and not going_on and not await opened["jobs"].count_documents({"outbox": {"$exists": True}}):
            return
        await asyncio.sleep(_LOOK_S)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            if stripped := line.rstrip(b"\r\n"):
                yield stripped


async def _calls(simulator: str) -> int:
    """How many calls the simulator has ever answered."""

    def ask() -> int:
        with urllib.request.urlopen(f"{simulator}/sim/stats", timeout=_ANSWER_S) as answer:  # noqa: S310 our own child's address
            return int(orjson.loads(answer.read())["calls"])

    return await asyncio.to_thread(ask)


async def _dead_letters(settings: Settings) -> int:
    return sum((await ends_of(settings, [settings.topic("jobs.dead")])).values())


async def _write_results(opened: mongo.Database, path: Path) -> None:
    with path.open("wb") as file:
        async for document in database.aggregate(opened, "jobs", [{"$match": queries.finished((), None, None)}]):
            file.write(result_line(document, Format.RESULT) + b"\n")


def _report(found: _Outcome, data: Path) -> None:
    rows = [
        (entry["_id"].get("tenant"), entry["_id"]["state"], entry["_id"].get("code"), entry["jobs"])
        for entry in found.outcomes
    ]
    screen.write_table(
        "What became of the jobs", ["tenant", "state", "code", "jobs", "what it means"], _with_meaning(rows)
    )
    usage_of.show(("tenant", "model"), found.usage)
    calls = found.calls_after - found.calls_before
    if found.calls_before and not calls:
        paid = f"Nothing was paid for twice: the provider got no call in this run, and {found.calls_before:,} in earlier ones."
    else:
        paid = f"The provider got {calls:,} calls; run it again on the same folder, and it gets none."
    jobs = sum(entry["jobs"] for entry in found.outcomes)
    through = found.lines - found.dead_letters
    text = f"""
{found.lines:,} lines sent in this run: {through:,} were jobs, {found.dead_letters:,} went to `jobs.dead`.
{jobs:,} different jobs have ended; this run took {found.seconds:.1f} s beside start and stop.
{paid}
Results lie in {data / "results.jsonl"}, in the topic `results` and in the collections `jobs` and `usage`. Nothing runs any more.

Try next:
  aibroker up --data {data}                      # leave it running, and in another terminal:
  aibroker usage --data {data} --by tenant,day
  aibroker results --data {data} --tenant acme --status rejected
"""
    screen.write_text(text.rstrip())


def _with_meaning(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [(*row, meaning(row[2])) for row in rows]
