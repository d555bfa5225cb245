"""R2: a budget of five dollars, a thousand jobs at once, four workers: what is billed above it, and how soon its rest is usable after all are killed.

With answers of one length nothing may be billed above the budget. With random lengths no more than the jobs that were open when it was crossed
had above their estimates: the ledger's rows say what was held for each. The workers are killed with calls open, and others start at once.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import orjson

from broker.local.stack import Stack
from tests.benchmarks.ground import Entry, Figure, Options, Record, fresh, produce
from tests.integration.deployment import Deployment, chat

BUDGET = Decimal(5)
TOKEN_USD = Decimal("0.0001")
LENGTH, LENGTHS = 100, (20, 200)
JOBS, WORKERS, SLOTS = 2_000, 4, 250
LEASE_S = 6
WITHIN_S = LEASE_S + 10
SERVED_S = 120
SETTINGS = f"""
limits: [{{scope: tenant, of: acme, per: lifetime, usd: "{BUDGET}"}}]
prices: [{{model: gpt-4o-mini, provider: openai, input: "0", output: "{TOKEN_USD * 1_000_000}"}}]
lease_s: {LEASE_S}
session_timeout_s: 6
worker: {{slots: {SLOTS}}}
"""
Rows = list[dict[str, Any]]


async def measure(stack: Stack, options: Options) -> Entry:
    """Use the budget up by answers of one length, by answers of random ones, and around the death of all workers."""
    fixed = await _spent(stack, options, {"output_tokens": LENGTH}, max_tokens=LENGTH)
    random = await _spent(stack, options, {"output_tokens": list(LENGTHS)})
    recovered_s, open_calls, killed = await _killed(stack, options)
    return Entry(
        {
            "dollars above the budget, one length": Figure(_over(fixed), "<=", 0),
            "dollars above the budget, random lengths": Figure(_over(random), "<=", float(_bound(random))),
            "dollars above the budget, all killed": Figure(_over(killed), "<=", 0),
            "seconds from the kill until the rest is used": Figure(recovered_s, "<=", WITHIN_S),
        },
        {
            "budget_usd": str(BUDGET),
            "jobs": JOBS,
            "workers": WORKERS,
            "slots": SLOTS,
            "lease_s": LEASE_S,
            "calls_open_at_the_kill": open_calls,
            "billed_usd": {"one length": str(_sum(fixed)), "random": str(_sum(random)), "killed": str(_sum(killed))},
            "bound": "what jobs that were open at the crossing had above what was held for them; those that had less are not subtracted",
        },
    )


def _records(**body: int) -> Iterator[Record]:
    for number in range(JOBS):
        job = chat(f"r2-{number}", tenant="acme")
        yield Record("jobs.normal", orjson.dumps({**job, "body": {**job["body"], **body}}))


def _behaviour(answer: Mapping[str, Any], milliseconds: int) -> dict[str, Any]:
    return {"default": {"latency": {"kind": "fixed", "ms": milliseconds}, "answer": dict(answer)}}


def _billed(deployment: Deployment) -> Rows:
    return deployment.documents({"billed": True}, "usage")


async def _spent(stack: Stack, options: Options, answer: Mapping[str, Any], **body: int) -> Rows:
    """Serve until nothing runs and the budget has no room; return the rows."""
    async with fresh(stack, options, SETTINGS, _behaviour(answer, 500)) as deployment:
        workers = await deployment.workers(WORKERS)
        await produce(deployment.services, _records(**body))

        def at_rest() -> bool:
            waiting = deployment.count({"state": "waiting", "why_waiting": "quota"})
            return waiting + deployment.count({"state": "succeeded"}) == JOBS and waiting > 0

        await deployment.until(at_rest, SERVED_S)
        await asyncio.sleep(2 * LEASE_S)  # what is given back by one worker is used by another
        await deployment.until(at_rest, SERVED_S)
        await deployment.stop(*workers)
        rows = _billed(deployment)
        if _sum(rows) < BUDGET - 3 * LENGTHS[1] * TOKEN_USD:
            raise RuntimeError(f"only {_sum(rows)} of {BUDGET} dollars were used")
        return rows


async def _killed(stack: Stack, options: Options) -> tuple[float, int, Rows]:
    """Kill all workers with a part of the budget used.

    Returns how many seconds later all of it is used, the start of others included, the calls that were open, and the rows.
    """
    async with fresh(stack, options, SETTINGS, _behaviour({"output_tokens": LENGTH}, 1_000)) as deployment:
        workers = await deployment.workers(WORKERS, AIBROKER_WORKER_SLOTS="25")
        await produce(deployment.services, _records(max_tokens=LENGTH))
        await deployment.until(lambda: len(_billed(deployment)) >= 100, SERVED_S)
        open_calls = sum(call["outcome"] == "open" for call in deployment.calls())
        killed = time.monotonic()
        await asyncio.gather(*(stack.kill_worker(worker) for worker in workers))
        workers = await deployment.workers(WORKERS)
        await deployment.until(lambda: _sum(_billed(deployment)) >= BUDGET, SERVED_S)
        recovered_s = time.monotonic() - killed
        await asyncio.sleep(LEASE_S)
        await deployment.stop(*workers)
        return recovered_s, open_calls, _billed(deployment)


def _sum(rows: Rows) -> Decimal:
    return sum((row["cost_usd"].to_decimal() for row in rows), Decimal(0))


def _over(rows: Rows) -> float:
    return float(max(_sum(rows) - BUDGET, Decimal(0)))


def _bound(rows: Rows) -> Decimal:
    """What the jobs that were open when the budget was crossed used above what was held for them."""
    spent, crossed = Decimal(0), None
    for row in sorted(rows, key=lambda row: row["at"]):
        spent += row["cost_usd"].to_decimal()
        if spent > BUDGET:
            crossed = row["at"]
            break
    if crossed is None:
        return Decimal(0)
    open_then = [row for row in rows if row["at"] >= crossed]
    above = [row["input_tokens"] + row["output_tokens"] - row["held_tokens"] for row in open_then]
    return sum((max(tokens, 0) * TOKEN_USD for tokens in above), Decimal(0))
