"""What was used and what became of the job: the ledger row, the result, and the frozen outcome; everything as it is stored and published.

A document holds milliseconds and what is published shows them, both cut and not rounded: so what is sent again from the document is the same event.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from broker.codec import Decoded, Refusal
from schemas.result import Status
from workers.amounts import NO_DOLLARS, amount
from workers.engine.ready import OUTPUT_WEIGHT, Ready
from workers.outcome import Answered, Ended, Running
from workers.providers.protocol import Answer, Tokens
from workers.route import Target
from workers.stores.protocol import Claim, Finish, Row

_NOTHING_USED = Tokens()._asdict()
_MILLISECOND = timedelta(milliseconds=1)
SUCCEEDED = Status.SUCCEEDED.value


def units_of(result: Mapping[str, Any]) -> float:
    """Cost units of what a result says was used."""
    used = result["usage"]
    return float(used["input_tokens"] + OUTPUT_WEIGHT * used["output_tokens"])


class Attempt(NamedTuple):
    """What a row says of one call: the `n`-th under its fence, and whether its counts are our estimate."""

    n: int
    tokens: Tokens
    cost: int  # in the target's price's units
    outcome: str
    estimated: bool
    provider_ms: int
    quota_keys: Sequence[str] = ()
    answer: Answer | None = None


def ledger_row(running: Running, target: Target, attempt: Attempt, incarnation: str) -> Row:
    """One row of the ledger, not billed yet."""
    claim, answer, tokens, now = running.ready.claim, attempt.answer, attempt.tokens, datetime.now(UTC)
    return Row(
        {
            "_id": request_id(claim, attempt.n),
            "at": now,
            "recorded_at": now,
            "tenant": claim.tenant,
            "job_id": claim.job_id,
            "generation": claim.generation,
            "batch_id": claim.batch_id,
            "priority": claim.priority,
            "operation": running.operation,
            "provider": target.provider,
            "credential": target.credential,
            "request_model": target.model,
            "response_model": answer.response_model if answer else None,
            "response_id": answer.response_id if answer else None,
            "request_id": answer.request_id if answer else None,
            "region": target.region,
            "service_tier": (answer.service_tier if answer else None) or target.service_tier,
            "outcome": attempt.outcome,
            "finish_reasons": list(answer.finish_reasons) if answer else [],
            "input_tokens": tokens.input_tokens,
            "cache_read_input_tokens": tokens.cache_read_input_tokens,
            "cache_creation_input_tokens": tokens.cache_creation_input_tokens,
            "output_tokens": tokens.output_tokens,
            "reasoning_output_tokens": tokens.reasoning_output_tokens,
            "cost_usd": amount(attempt.cost, target.price.scale),
            "price_id": target.price.id,
            "billed": False,
            "estimated": attempt.estimated,
            "incarnation": incarnation,
            "held_tokens": running.held_tokens,
            "quota_keys": list(attempt.quota_keys),
            "queued_ms": _milliseconds(claim.arrived_at, running.started_at),
            "provider_ms": attempt.provider_ms,
            "tags": dict(running.job.tags),
        }
    )


def request_id(claim: Claim, n: int) -> str:
    """The key of a row and the `X-Client-Request-Id` of its call: `<uid>/<generation>/<fence>.<n>`."""
    return f"{claim.uid}/{claim.generation}/{claim.fence}.{n}"


def succeeded(running: Running, target: Target, answered: Answered) -> Finish:
    """The outcome of a job that was answered."""
    row = answered.row
    row["billed"] = True
    result = _result(running.ready, running, Status.SUCCEEDED, row=row)
    result["attempts"] += 1
    result["target"] = _target(target, answered.answer)
    if answered.answer.storable:
        result["output"] = answered.answer.document
    else:
        result["output_text"] = answered.answer.output.decode("utf-8", "replace")
    return Finish(running.ready.claim.id, running.ready.claim.fence, SUCCEEDED, result, row, keep_payload=False)


def ended(ready: Ready, running: Running | None, end: Ended, *, row: dict[str, Any] | None = None) -> Finish:
    """The outcome of a job that ends without an answer that its producer gets; `row`: what its last attempt cost all the same."""
    claim, billed = ready.claim, {**row, "billed": True} if row is not None else None
    result = _result(ready, running, end.status, row=billed)
    result["code"], result["message"] = end.code.value, end.message
    if end.findings:
        result["guards"] = list(end.findings)
    return Finish(claim.id, claim.fence, end.status.value, result, billed, keep_payload=True)


def refused_result(decoded: Decoded, refusal: Refusal, now: datetime) -> dict[str, Any]:
    """The result of a record whose id belongs to another job: generation 0, no document."""
    return {
        "job_id": decoded.job_id,
        "tenant": decoded.tenant,
        "generation": 0,
        "operation": decoded.parsed.operation,
        "status": Status.REJECTED.value,
        "code": refusal.code.value,
        "message": refusal.message,
        "usage": dict(_NOTHING_USED),
        "cost_usd": "0",
        "target": None,
        "attempts": 0,
        "guards": [],
        "timing": {"queued_ms": 0, "provider_ms": 0, "total_ms": 0},
        "metadata": decoded.parsed.metadata,
        "finished_at": now,
    }


def _result(ready: Ready, running: Running | None, status: Status, *, row: Mapping[str, Any] | None) -> dict[str, Any]:
    claim, now = ready.claim, datetime.now(UTC)
    started = running.started_at if running else now
    result: dict[str, Any] = {
        "job_id": claim.job_id,
        "tenant": claim.tenant,
        "generation": claim.generation,
        "operation": ready.parsed.operation,
        "status": str(status),
        "usage": _used(row or _NOTHING_USED),
        "cost_usd": row["cost_usd"] if row else NO_DOLLARS,
        "target": None,
        "attempts": running.attempts if running else claim.attempts,
        "guards": running.findings if running else [],
        "timing": {
            "queued_ms": _milliseconds(claim.arrived_at, started),
            "provider_ms": running.provider_ms if running else 0,
            "total_ms": _milliseconds(claim.arrived_at, now),
        },
        "metadata": ready.parsed.metadata,
        "finished_at": now,
    }
    if claim.batch_id is not None:
        result["batch_id"] = claim.batch_id
    return result


def _used(row: Mapping[str, Any]) -> dict[str, int]:
    return {
        "input_tokens": row["input_tokens"],
        "cache_read_input_tokens": row["cache_read_input_tokens"],
        "cache_creation_input_tokens": row["cache_creation_input_tokens"],
        "output_tokens": row["output_tokens"],
        "reasoning_output_tokens": row["reasoning_output_tokens"],
    }


def _target(target: Target, answer: Answer) -> dict[str, Any]:
    return {
        "provider": target.provider,
        "request_model": target.model,
        "response_model": answer.response_model,
        "region": target.region,
        "service_tier": answer.service_tier or target.service_tier,
    }


def _milliseconds(start: datetime, end: datetime) -> int:
    return max((end - start) // _MILLISECOND, 0)
