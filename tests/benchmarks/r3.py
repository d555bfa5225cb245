"""R3: the ledger is the provider's invoice to the last digit, over calls that are cached, retried, failed, or of jobs that ask to stream.

Two workers serve chat, responses, embeddings and moderations of six models. The simulator keeps an invoice of its own, in whole pico-dollars, and
imports nothing of ours. What is compared here is compared with plain clients; `aibroker usage reconcile` has to come to the same.

Then the same again by four workers of which one is killed every few seconds, and another started. Nobody can write down a call whose answer died with
its worker: only calls that a killed worker had open, or that were answered less than a second before, may be on the invoice alone.
"""

import asyncio
import os
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from broker.local.processes import Child
from broker.local.stack import Stack
from tests.benchmarks.ground import Entry, Figure, Options, Record, fresh, produce
from tests.faults.fleet import caught, incarnation
from tests.faults.history import Kill
from tests.faults.money import open_at_a_kill
from tests.faults.waiting import until_ended
from tests.integration.deployment import Deployment

CALLS = 100_000
CALLS_PER_JOB = 1.04
"""How many calls a job has on the mean, by the shares of the faults below."""
WITHIN_S = 1_500
PRIORITIES = ("interactive", "normal", "batch")
CHAT_MODELS = ("gpt-4o-mini", "gpt-4o", "o3-mini", "gpt-4.1-nano")
EVERY_S, KILLS = 8.0, 3
"""A kill every so often, and so many at least in a whole run."""
SETTINGS = "{worker: {slots: 200}, lease_s: 6, session_timeout_s: 6}"
BEHAVIOUR = {
    "default": {
        "latency": {"kind": "uniform", "low_ms": 5, "high_ms": 60},
        "answer": {"text_bytes": [10, 400], "cached_tokens": [0, 40], "reasoning_tokens": [0, 30]},
        "faults": {"500": 0.02, "429": 0.01, "400": 0.005, "cut_before": 0.01, "drip": 0.002},
        "fault_retry_after_s": 0.1,
        "drip": {"bytes": 100, "every_ms": 5},  # an embedding byte by byte would take an hour
    }
}
_SEED = 3


@dataclass(frozen=True)
class _Compared:
    """What a run left on both sides."""

    calls: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    states: Mapping[str, int]
    kills: Sequence[Kill]
    differ: Sequence[str]
    unknown: Sequence[Mapping[str, Any]]
    """Calls that killed workers had in their hands, without a row of their usage."""
    named: int
    """Differences that `usage reconcile` names."""

    @property
    def conditions(self) -> dict[str, Any]:
        """How much was compared, and the sums."""
        billed = [row for row in self.rows if not row["estimated"]]
        return {
            "states": dict(self.states),
            "calls": len(self.calls),
            "by_status": dict(Counter(str(call["status"]) for call in self.calls)),
            "by_fault": dict(Counter(call["fault"] for call in self.calls if call["fault"])),
            "cached": sum(1 for call in self.calls if call["cached_tokens"]),
            "rows_not_estimated": len(billed),
            "rows_estimated": len(self.rows) - len(billed),
            "invoice_usd": f"{sum((Decimal(call['cost']) for call in self.calls), Decimal(0)):f}",
            "ledger_usd": f"{sum((row['cost_usd'].to_decimal() for row in billed), Decimal(0)):f}",
            "kills": len(self.kills),
            "in_the_hands_of_the_killed": len(self.unknown),
            "in_the_hands_of_the_killed_usd": f"{sum((Decimal(call['cost']) for call in self.unknown), Decimal(0)):f}",
            "first_differences": self.differ[:5],
        }


async def measure(stack: Stack, options: Options) -> Entry:
    """Serve the jobs in peace, then with kills; compare every call each time, and the sums."""
    jobs = int(options.sized(CALLS) / CALLS_PER_JOB)
    peace = await _served(stack, options, jobs, workers=2)
    killed = await _served(stack, options, jobs, workers=4, kills=True)
    figures = {
        "calls that differ": Figure(len(peace.differ), "<=", 0),
        "differences that reconcile names": Figure(peace.named, "<=", 0),
        "share of the calls": Figure(len(peace.calls) / options.sized(CALLS), ">=", 0.95),
        "calls that differ, workers killed": Figure(len(killed.differ), "<=", 0),
        "differences that reconcile names beyond the calls of the killed": Figure(
            abs(killed.named - len(killed.unknown)), "<=", 0
        ),
        "workers killed": Figure(len(killed.kills), ">=", KILLS),
    }
    streamed = (
        "none: 18 % of the chat jobs ask for a stream, and the worker does not pass that on, because a result is whole"
    )
    conditions = {"jobs": jobs, "streamed": streamed, "peace": peace.conditions, "workers_killed": killed.conditions}
    return Entry(figures, conditions)


async def _served(stack: Stack, options: Options, jobs: int, *, workers: int, kills: bool = False) -> _Compared:
    async with fresh(stack, options, SETTINGS, BEHAVIOUR) as deployment:
        fleet = await deployment.workers(workers)
        await produce(deployment.services, _records(jobs))
        ended = asyncio.create_task(until_ended(deployment.services, WITHIN_S))
        killed = await _killed(deployment, fleet, ended) if kills else []
        if not await ended:
            raise RuntimeError(f"the jobs did not end; a worker's log is {fleet[0].log}")
        await deployment.stop(*fleet)
        calls, rows = deployment.calls(), deployment.documents({}, "usage")
        states = Counter(document["state"] for document in deployment.documents({}))
        unknown = list(unwritten(calls, rows, killed))
        ids = {call["request_id"] for call in unknown}
        differ = list(differences([call for call in calls if call["request_id"] not in ids], rows))
        return _Compared(
            calls, rows, states, killed, differ, unknown, await _reconciled(deployment, calls, options.folder)
        )


async def _killed(deployment: Deployment, fleet: list[Child], ended: "asyncio.Task[bool]") -> list[Kill]:
    """Kill one of the workers every few seconds until all jobs have ended, and start another in its place."""
    chance, kills = random.Random(_SEED), list[Kill]()
    while not (await asyncio.wait([ended], timeout=EVERY_S))[0]:
        victim = chance.choice(fleet)
        if kill := await caught(victim, deployment.services, incarnation(victim)):
            await deployment.stack.kill_worker(victim)
            kills.append(kill)
            fleet.remove(victim)
            fleet += await deployment.workers(1)
    return kills


def unwritten(
    calls: Iterable[Mapping[str, Any]], rows: Iterable[Mapping[str, Any]], kills: Sequence[Kill]
) -> Iterator[Mapping[str, Any]]:
    """Calls on the invoice without a row of their usage, which a killed worker had open or had just been answered."""
    known = {row["_id"] for row in rows if not row["estimated"]}
    for call in calls:
        if _charged(call) and call["request_id"] not in known and open_at_a_kill(call, kills):
            yield call


def _records(count: int) -> Iterator[Record]:
    chance = random.Random(_SEED)
    for number in range(count):
        value = orjson.dumps({"id": f"r3-{number}", "tenant": f"t{number % 5}", "max_attempts": 20, **_job(chance)})
        yield Record(f"jobs.{PRIORITIES[number % 3]}", value)


def _job(chance: random.Random) -> dict[str, Any]:
    text = " ".join(chance.choice(("alpha", "beta", "gamma", "delta")) for _ in range(chance.randint(3, 120)))
    drawn = chance.random()
    if drawn < 0.1:
        return {"operation": "embeddings", "body": {"model": "text-embedding-3-small", "input": text}}
    if drawn < 0.15:
        return {"operation": "moderations", "body": {"model": "omni-moderation-latest", "input": text}}
    model = chance.choice(CHAT_MODELS)
    if drawn < 0.25:
        return {"operation": "responses", "body": {"model": model, "input": text}}
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
    if drawn < 0.4:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return {"body": body}


def _charged(call: Mapping[str, Any]) -> bool:
    return call["usage"] is not None or bool(Decimal(call["cost"]))


def differences(calls: list[dict[str, Any]], rows: list[dict[str, Any]]) -> Iterator[str]:
    """Calls whose row says something else, or that have none, and rows that are no call."""
    known = {row["_id"]: row for row in rows if not row["estimated"]}
    if len(known) != sum(not row["estimated"] for row in rows):
        yield "two rows of the ledger have one key"
    for call in calls:
        row = known.pop(call["request_id"], None)
        charged = _charged(call)
        if row is None:
            if charged:
                yield f"{call['request_id']}: {call['cost']} on the invoice, no row"
        elif not charged or row["cost_usd"].to_decimal() != Decimal(call["cost"]):
            yield f"{call['request_id']}: {row['cost_usd']} in the ledger, {call['cost']} on the invoice"
        elif _counts(row) != tuple(
            call[name] for name in ("prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
        ):
            yield f"{call['request_id']}: {_counts(row)} tokens in the ledger, {call} on the invoice"
    yield from (f"{key}: a row that is no call" for key in known)


def _counts(row: dict[str, Any]) -> tuple[int, ...]:
    names = ("input_tokens", "cache_read_input_tokens", "output_tokens", "reasoning_output_tokens")
    return tuple(row[name] for name in names)


async def _reconciled(deployment: Deployment, calls: list[dict[str, Any]], folder: Path) -> int:
    """How many differences the command names."""
    invoice = folder / "invoice.jsonl"
    invoice.write_bytes(b"".join(orjson.dumps(call, option=orjson.OPT_APPEND_NEWLINE) for call in calls))
    program = "import os, sys; from broker.cli.application import run; sys.exit(run(sys.argv[1:], os.environ))"
    arguments = ("usage", "reconcile", "--invoice", str(invoice), "--json")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", program, *arguments),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **deployment.environment},
    )
    out, _ = await asyncio.wait_for(process.communicate(), 300)
    if process.returncode not in {0, 1}:
        raise RuntimeError(f"reconcile ended with {process.returncode}")
    return len(out.splitlines())
