"""May this job run, now and as it is: marks, refusals, deadlines, and what the guards say of its content."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from broker.tags import Tagging
from schemas.codes import MEANING, Code
from schemas.job import Job
from schemas.result import Status
from workers.engine.ready import Ready
from workers.engine.topics import Topics
from workers.guards.chain import Chain
from workers.outcome import Ended, Postponed, Running, expired

_DROPPED = frozenset({"stream", "stream_options"})
MAX_TAKEOVERS = 10
"""So many workers may die with a job before a person has to look at it."""


@dataclass(slots=True, frozen=True)
class Admission:
    """The first stage.

    Args:
        guards: The chain of both directions.
        topics: Which reply topics exist.
        tagging: Which tags a tenant's jobs may carry.
    """

    guards: Chain
    topics: Topics
    tagging: Tagging = field(default_factory=Tagging)

    async def admit(self, ready: Ready) -> Running:
        """Return the job as it may run.

        Raises:
            Ended: It is cancelled, refused, too late, blocked, or has outlived too many workers.
            Postponed: It is scheduled for later.
        """
        now = datetime.now(UTC)
        job = _runnable(ready, now)
        to = (job.reply_to, job.reply_partition)
        if not (self.topics.known(*to) or await self.topics.knows(*to)):
            where = job.reply_to if job.reply_partition is None else f"{job.reply_to}, partition {job.reply_partition}"
            raise Ended(
                Status.REJECTED, Code.REPLY_UNKNOWN, f"reply_to: there is no {where}; {MEANING[Code.REPLY_UNKNOWN]}"
            )
        if job.tags and (wrong := self.tagging.refusal(ready.claim.tenant, job.tags)) is not None:
            raise Ended(Status.REJECTED, Code.TAG_NOT_ALLOWED, wrong)
        if "stream" in job.body or "stream_options" in job.body:  # a result is whole
            job = job.model_copy(update={"body": {k: v for k, v in job.body.items() if k not in _DROPPED}})
        running = Running(ready, now, job, ready.parsed.operation, ready.claim.attempts)
        verdict = await self.guards.check_long_request(running.operation, job.body, len(ready.claim.payload))
        running.findings.extend(verdict.findings)
        if verdict.action == "block":
            message = f"{_found(verdict.findings)}; {MEANING[Code.BLOCKED]}"
            raise Ended(Status.REJECTED, Code.BLOCKED, message, findings=verdict.findings)
        if verdict.body is not job.body:
            running.job = job.model_copy(update={"body": verdict.body})
        return running


def _runnable(ready: Ready, now: datetime) -> Job:
    claim, parsed = ready.claim, ready.parsed
    if claim.cancel is not None:
        raise Ended(Status.CANCELLED, Code.CANCELLED, claim.cancel)
    if claim.takeovers >= MAX_TAKEOVERS:
        raise Ended(Status.DEAD, Code.WORKERS_LOST)
    if parsed.job is None:
        refusal = parsed.refusal
        raise Ended(Status.REJECTED, refusal.code if refusal else Code.INVALID_JOB, refusal.message if refusal else "")
    if claim.called and parsed.job.execution == "at_most_once":
        raise Ended(Status.FAILED, Code.OUTCOME_UNKNOWN)
    if now.timestamp() >= ready.deadline:
        raise expired(claim.last_failure)
    if parsed.job.not_before is not None and parsed.job.not_before > now:
        raise Postponed(parsed.job.not_before, "scheduled")
    return parsed.job


def _found(findings: list[dict[str, object]]) -> str:
    return "; ".join(f"{finding['guard']} found {finding['found']}" for finding in findings)
