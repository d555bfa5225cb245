"""The path of one job, on one screen: admit, route, hold, call, check, settle; one job in, one outcome out.

Each stage is an object that the composition root (`app.py`) puts in; a stage ends a job by raising `Ended`, or has it wait by raising `Postponed`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from schemas.codes import MEANING, Code
from schemas.result import Status
from workers.admit import Admission
from workers.call import Caller
from workers.counting import counted_input
from workers.engine.ready import Ready
from workers.outcome import Answered, Ended, Postponed, Running
from workers.providers.protocol import CannotBuild, Tokens
from workers.quota.protocol import Denied, Hold, Need, Quota
from workers.route import Router, Target
from workers.settle import ended, succeeded
from workers.stores.protocol import Finish, Waiting


@dataclass(slots=True)
class Pipeline:
    """The stages of a worker, in their order."""

    admission: Admission
    router: Router
    quota: Quota
    caller: Caller
    lowest: str  # the priority to which limits may send a job

    async def process(self, ready: Ready, under_way: dict[str, Running]) -> Finish | Waiting:
        """Bring one job to its outcome; `under_way` names it while it can be told to stop."""
        running: Running | None = None
        try:
            running = under_way[ready.claim.id] = await self.admission.admit(ready)
            targets, held = await self._held(running)
            with held as hold:
                target, answered = await self.caller.call(running, targets, hold)
                hold.settle(answered.tokens, answered.usd)
                ready.revoke = hold.revoke
            return await self._settle(running, target, answered)
        except Ended as end:
            return ended(ready, running, end)
        except CannotBuild as error:
            return ended(ready, running, Ended(Status.REJECTED, Code(error.code), str(error)))
        except Postponed as wait:
            return _waiting(ready, running, wait)
        finally:
            under_way.pop(ready.claim.id, None)

    async def _held(self, running: Running) -> tuple[Sequence[Target], Hold]:
        """The targets of a job, and what is reserved for what it will probably use: of a cheaper model where a limit says so.

        Raises:
            Ended: `quota_exceeded` where a limit rejects, `cost_limit` where the job's own limit is too low.
            Postponed: Where it is to wait, or to go on in the lowest priority.
        """
        targets, held = await self._hold(running)
        if isinstance(held, Denied) and held.policy == "cheaper_model":
            running.job = running.job.model_copy(update={"body": {**running.job.body, "model": held.model}})
            targets, held = await self._hold(running)
        if not isinstance(held, Denied):
            return targets, held
        if held.policy == "lower_priority":
            raise Postponed(datetime.now(UTC), "lower_priority", priority=self.lowest)
        if held.policy == "reject" or held.hopeless:
            raise Ended(Status.REJECTED, Code.QUOTA_EXCEEDED, held.message)
        if not held.doubtful:
            running.ready.claim.last_failure = Code.QUOTA_EXCEEDED
        raise Postponed(held.until, "quota", held.wait_key)

    async def _hold(self, running: Running) -> tuple[Sequence[Target], Hold | Denied]:
        """Hold what the dearest target would cost: a call may have to go to it. Before a job is rejected, its input is counted."""
        targets: Sequence[Target] = self.router.targets(running.job)
        estimate = self.caller.estimate(running, targets[0])
        targets = self.router.affordable(running.job, targets, estimate.input_tokens)
        held = await self._try(running, targets, estimate)
        if isinstance(held, Denied) and (held.hopeless or held.policy == "reject"):
            counted = await counted_input(running.operation, running.job.body, targets[0].model)
            if counted < estimate.input_tokens:
                held = await self._try(running, targets, estimate._replace(input_tokens=counted))
        return targets, held

    async def _try(self, running: Running, targets: Sequence[Target], estimate: Tokens) -> Hold | Denied:
        dearest = targets[0].price.cost(estimate)
        for target in targets[1:]:
            dearest = max(dearest, target.price.cost(estimate))
        claim, job, now = running.ready.claim, running.job, datetime.now(UTC)
        running.held_tokens = estimate.input_tokens + estimate.output_tokens
        need = Need(
            claim.tenant,
            job.model,
            running.held_tokens,
            dearest,
            claim.priority,
            claim.batch_id,
            job.tags,
        )
        return self.quota.try_hold(need, now) or await self.quota.hold(need, now)

    async def _settle(self, running: Running, target: Target, answered: Answered) -> Finish:
        """The outcome of an answered job, after the guards have seen the answer."""
        operation, answer = running.operation, answered.answer
        verdict = await self.admission.guards.check_long_answer(operation, answer.document, len(answer.output))
        running.findings.extend(verdict.findings)
        if verdict.action == "block":
            blocked = Ended(
                Status.REJECTED, Code.BLOCKED, f"the answer was blocked by a guard; {MEANING[Code.BLOCKED]}"
            )
            return ended(running.ready, running, blocked, row=answered.row)
        if verdict.body is not answer.document:
            text = json.dumps(verdict.body).encode()  # what is kept where no document can hold the answer
            answered = answered._replace(answer=answer._replace(document=verdict.body, output=text))
        return succeeded(running, target, answered)


def _waiting(ready: Ready, running: Running | None, wait: Postponed) -> Waiting:
    attempts = running.attempts if running else ready.claim.attempts
    nothing_sent = running is None or not running.sent
    deadline = datetime.fromtimestamp(ready.deadline, UTC)  # where it ends as expired, told at once
    claim = ready.claim
    return Waiting(
        *(claim.id, claim.fence, min(wait.until, deadline), wait.why, attempts, wait.wait_key, nothing_sent),
        last_failure=claim.last_failure,
        priority=wait.priority,
        deadline=deadline,
    )
