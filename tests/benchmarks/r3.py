"""R3: the ledger is the provider's invoice to the last digit, over calls that are cached, retried, failed, or of jobs that ask to stream.

Two workers serve chat, responses, embeddings and moderations of six models. The simulator keeps an invoice of its own, in whole pico-dollars, and
imports nothing of ours. What is compared here is compared with plain clients; `aibroker usage reconcile` has to come to the same.
"""

import asyncio
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from broker.local.stack import Stack
from tests.benchmarks.ground import Entry, Figure, Options, Record, fresh, produce
from tests.faults.waiting import until_ended
from tests.integration.deployment import Deployment

CALLS = 100_000
CALLS_PER_JOB = 1.04
"""How many calls a job has on the mean, by the shares of the faults below."""
WITHIN_S = 1_500
PRIORITIES = ("interactive", "normal", "batch")
CHAT_MODELS = ("gpt-4o-mini", "gpt-4o", "o3-mini", "gpt-4.1-nano")
SETTINGS = "worker: {slots: 500}"
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


async def measure(stack: Stack, options: Options) -> Entry:
    """Serve the jobs, then compare every call, and the sums."""
    jobs = int(options.sized(CALLS) / CALLS_PER_JOB)
    async with fresh(stack, options, SETTINGS, BEHAVIOUR) as deployment:
        workers = await deployment.workers(2)
        await produce(deployment.services, _records(jobs))
        if not await until_ended(deployment.services, WITHIN_S):
            raise RuntimeError(f"the jobs did not end; a worker's log is {workers[0].log}")
        await deployment.stop(*workers)
        calls, rows = deployment.calls(), deployment.documents({}, "usage")
        states = Counter(document["state"] for document in deployment.documents({}))
        wrong = list(differences(calls, rows))
        told = await _reconciled(deployment, calls, options.folder)
    billed = [row for row in rows if not row["estimated"]]
    conditions = {
        "jobs": jobs,
        "states": dict(states),
        "calls": len(calls),
        "by_status": dict(Counter(str(call["status"]) for call in calls)),
        "by_fault": dict(Counter(call["fault"] for call in calls if call["fault"])),
        "cached": sum(1 for call in calls if call["cached_tokens"]),
        "rows_not_estimated": len(billed),
        "rows_estimated": len(rows) - len(billed),
        "invoice_usd": f"{sum((Decimal(call['cost']) for call in calls), Decimal(0)):f}",
        "ledger_usd": f"{sum((row['cost_usd'].to_decimal() for row in billed), Decimal(0)):f}",
        "first_differences": wrong[:5],
        "streamed": "none: 18 % of the chat jobs ask for a stream, and the worker does not pass that on, because a result is whole",
    }
    figures = {
        "calls that differ": Figure(len(wrong), "<=", 0),
        "differences that reconcile names": Figure(told, "<=", 0),
        "share of the calls": Figure(len(calls) / options.sized(CALLS), ">=", 0.95),
    }
    return Entry(figures, conditions)


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


def differences(calls: list[dict[str, Any]], rows: list[dict[str, Any]]) -> Iterator[str]:
    """Calls whose row says something else, or that have none, and rows that are no call."""
    known = {row["_id"]: row for row in rows if not row["estimated"]}
    if len(known) != sum(not row["estimated"] for row in rows):
        yield "two rows of the ledger have one key"
    for call in calls:
        row = known.pop(call["request_id"], None)
        charged = call["usage"] is not None or Decimal(call["cost"])
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
