"""Calls a target until there is an answer, the job ends, or it has to wait longer than a moment; error classes decide money and retries."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.events import Events
from broker.outputs import WITHOUT_OUTPUT, Outputs, choices, estimated_output
from broker.prices import Prices
from broker.settings import Estimates
from broker.telemetry import Telemetry
from broker.tokens import Ratios
from schemas.codes import Code
from schemas.result import Status
from workers.engine.failpoints import Failpoints
from workers.engine.halts import Halts, rest, stop
from workers.engine.leases import Leases
from workers.engine.persistence import until_known
from workers.engine.publisher import Publisher
from workers.engine.ready import OUTPUT_WEIGHT
from workers.gates import Gates
from workers.outcome import SHUTDOWN, Answered, Ended, Postponed, Running, expired
from workers.providers.errors import failure_without_reply
from workers.providers.protocol import Answer, ErrorClass, Failure, Provider, Request, Tokens
from workers.quota.protocol import Hold
from workers.route import DEFAULT_TIER, Target, at_tier
from workers.settle import Attempt, ledger_row, request_id
from workers.stores.control import Halt, HaltKind
from workers.stores.protocol import Fate, Store
from workers.transports.errors import NotSent, TransportError
from workers.transports.protocol import Call, Reply, Transport

SHORT_WAIT_S = 2.0
"""Shorter waits are spent in memory, longer ones are documents."""
CALL_LIMIT_S = 600.0
SHORTEST_CALL_S = 0.001
COUNTED = frozenset({ErrorClass.FAILED, ErrorClass.SENT_UNKNOWN})
"""The classes that `max_attempts` counts; the others are bounded by the deadline."""


class FencedJobError(Exception):
    """Another worker has this job: drop it."""


@dataclass(slots=True)
class Caller:
    """The stage that spends money.

    Every call ends by min(deadline, target's timeout, 600 s), and carries `X-Client-Request-Id`, the key of its ledger row.
    """

    store: Store
    publisher: Publisher
    leases: Leases
    halts: Halts
    providers: dict[str, Provider]
    transport: Transport
    gates: Gates
    prices: Prices
    ratios: Ratios
    outputs: Outputs
    estimates: Estimates
    telemetry: Telemetry
    failpoints: Failpoints
    release: Callable[[str], None]
    events: Events

    async def call(self, running: Running, targets: Sequence[Target], hold: Hold) -> tuple[Target, Answered]:
        """Return the answer and whose it is.

        Raises:
            Ended: The job is over.
            Postponed: It has to wait.
            FencedJobError: It is somebody else's.
        """
        while True:
            target = await self._open_target(running, targets)
            outcome, seconds = await self._once(running, target)
            self.telemetry.call(target.provider, target.model, _class_of(outcome), seconds)
            if isinstance(outcome, Answer):
                return target, self._answered(running, target, outcome, hold, seconds)
            await self._failed(running, target, outcome)

    def estimate(self, running: Running, target: Target) -> Tokens:
        """What the job will probably use: learned input, and output up to what it asks for."""
        claim = running.ready.claim
        learned = self.outputs.estimate(claim.tenant, target.model, self._tag(running), self.estimates.percentile)
        output = estimated_output(running.operation, running.job.body, learned)
        return Tokens(self.ratios.estimate(target.model, claim.tenant, len(claim.payload)), 0, 0, output)

    def _tag(self, running: Running) -> str:
        return running.job.tags.get(self.estimates.tag, "") if self.estimates.tag is not None else ""

    # -- before a call ------------------------------------------------------------------------------------------------
    async def _open_target(self, running: Running, targets: Sequence[Target]) -> Target:
        """The first target whose gate is open, after a short wait at most."""
        while True:
            self._may_call(running)
            now = time.time()
            blocks: list[tuple[float, str, str, str]] = []
            for target in targets:
                block = self._blocked(target, now)
                if block is None:
                    return target
                blocks.append(block)
            until, why, key, running.ready.claim.last_failure = min(blocks)
            await self._pause(running, until - now, why, key or None)

    def _may_call(self, running: Running) -> None:
        """Let it be known, directly before each call, that none may begin; retries and waits in memory last for long."""
        if time.time() >= running.ready.deadline:
            raise expired(running.ready.claim.last_failure)
        if running.stopped is not None:
            raise _stop(running)
        if (halt := self.halts.of(running.ready.claim)) is not None:
            raise _halted(halt)
        if self.leases.drain_asked.is_set():
            raise Postponed(datetime.now(UTC), "handed_back")
        if not self.leases.healthy():
            raise Postponed(datetime.now(UTC), "lease")

    def _blocked(self, target: Target, now: float) -> tuple[float, str, str, str] | None:
        """Until when a target is closed, why, the key that may open it earlier, and the code of what closed it."""
        cooldown = self.gates.gate(target.credential, target.model).cooldown_until
        if cooldown > now:
            return cooldown, "rate_limited", "", Code.RATE_LIMITED
        breaker = self.gates.breaker(target.credential)
        until = breaker.blocked(now)
        return None if until is None else (until, "credential", f"credential:{target.credential}", breaker.code)

    async def _pause(self, running: Running, seconds: float, why: str, key: str | None) -> None:
        """Wait in memory, or as a document where it takes longer."""
        wait_s = seconds + self.gates.jitter_s(seconds)
        if wait_s > SHORT_WAIT_S:
            raise Postponed(datetime.now(UTC) + timedelta(seconds=wait_s), why, key)
        await self._stoppable(running, asyncio.sleep(max(wait_s, 0.0)))

    # -- one call -----------------------------------------------------------------------------------------------------
    async def _once(self, running: Running, target: Target) -> tuple[Answer | Failure, float]:
        """One call and what became of it, and how many seconds it took."""
        ready, provider = running.ready, self.providers[target.credential]
        running.calls += 1
        timeout_s = max(min(ready.deadline - time.time(), target.timeout_s, CALL_LIMIT_S), SHORTEST_CALL_S)
        request = Request(running.operation, target.model, running.job.body, request_id(ready.claim, running.calls))
        call = provider.build(request, timeout_s)
        if running.job.execution == "at_most_once":
            await self._mark(running)
        self.failpoints.hit("before_call")
        self.gates.gate(target.credential, target.model).called()
        started = time.perf_counter()
        sent = await self._send(running, target, call)
        seconds = time.perf_counter() - started
        self.failpoints.hit("after_call")
        running.provider_ms += round(seconds * 1000)
        return provider.read(running.operation, sent, time.time()) if isinstance(sent, Reply) else sent, seconds

    async def _mark(self, running: Running) -> None:
        claim = running.ready.claim
        marking = until_known(lambda: self.store.mark_called(claim.id, claim.fence), self.events, "mark_called")
        if await self._stoppable(running, marking) is Fate.FENCED:
            raise FencedJobError
        self._may_call(running)

    async def _send(self, running: Running, target: Target, call: Call) -> Reply | Failure:
        sent_before, running.sent, running.stoppable = running.sent, True, True
        try:
            reply = await self.transport.send(call)
        except TransportError as error:
            running.sent = sent_before if isinstance(error, NotSent) else True
            return failure_without_reply(error)
        except asyncio.CancelledError:
            stop = _told_to_stop(running)
            if stop is None:
                raise
            await self._spent(running, target, "cancelled", None)
            raise stop from None
        else:
            running.sent = sent_before  # this call is over, whatever it says
            return reply
        finally:
            running.stoppable = False

    async def _stoppable(self, running: Running, work: Awaitable[Any]) -> Any:  # noqa: ANN401 what the work returns
        """Do some work; a job that was told to stop ends or waits instead of passing the cancellation on."""
        running.stoppable = True
        try:
            return await work
        except asyncio.CancelledError:
            stop = _told_to_stop(running)
            if stop is None:
                raise
            raise stop from None
        finally:
            running.stoppable = False

    # -- after a call -------------------------------------------------------------------------------------------------
    def _answered(self, running: Running, target: Target, answer: Answer, hold: Hold, seconds: float) -> Answered:  # noqa: PLR0917 what a row needs
        if self.gates.breaker(target.credential).accepted():
            self.release(f"credential:{target.credential}")
        claim, tokens = running.ready.claim, answer.usage
        estimated = tokens is None
        if tokens is None:
            tokens = self.estimate(running, target)
        else:
            self._learn(running, target, tokens)
        if answer.service_tier not in {None, target.service_tier or DEFAULT_TIER}:
            target = at_tier(target, answer.service_tier or DEFAULT_TIER, self.prices)
        cost = target.price.amount(tokens)
        usd = target.price.dollars(cost)
        milliseconds = round(seconds * 1000)
        attempt = Attempt(running.calls, tokens, cost, "succeeded", estimated, milliseconds, hold.keys, answer)
        row = ledger_row(running, target, attempt, self.store.owner)
        self.telemetry.used(
            target.provider,
            target.model,
            claim.tenant,
            input_tokens=tokens.input_tokens,
            output_tokens=tokens.output_tokens,
            usd=float(usd),
        )
        return Answered(answer, row, tokens.input_tokens + tokens.output_tokens, usd)

    def _learn(self, running: Running, target: Target, tokens: Tokens) -> None:
        claim = running.ready.claim
        if not tokens.cache_read_input_tokens:
            self.ratios.learn(target.model, claim.tenant, len(claim.payload), tokens.input_tokens)
        if running.operation not in WITHOUT_OUTPUT:
            of_one = tokens.output_tokens // choices(running.job.body)
            self.outputs.learn(claim.tenant, target.model, self._tag(running), of_one)
        error = tokens.input_tokens + tokens.output_tokens - running.held_tokens
        self.telemetry.estimated(target.provider, target.model, error)

    async def _failed(self, running: Running, target: Target, failure: Failure) -> None:
        """Back where another call may be tried at once; else the job ends or waits."""
        running.ready.claim.last_failure = failure.code
        self.events.debug(
            "call.failed", job=running.ready.claim.id, error_class=failure.error_class.value, code=failure.code
        )
        if failure.spent or failure.usage is not None:
            await self._spent(running, target, failure.error_class.value, failure.usage)
        breaker, now = self.gates.breaker(target.credential), time.time()
        if failure.error_class is not ErrorClass.CREDENTIAL:
            breaker.gave_up()
        match failure.error_class:
            case ErrorClass.REJECTED:
                raise Ended(Status.REJECTED, failure.code, failure.message)
            case ErrorClass.CREDENTIAL:
                until = breaker.refused(now, failure.code)
                self.events.error("credential.refused", credential=target.credential, code=failure.code, until=until)
            case ErrorClass.THROTTLED:
                gate = self.gates.gate(target.credential, target.model)
                gate.cool(
                    now
                    + (
                        failure.retry_after_s
                        if failure.retry_after_s is not None
                        else self.gates.backoff_s(running.calls)
                    )
                )
            case ErrorClass.NOT_SENT:
                await self._pause(running, self.gates.backoff_s(running.calls), "not_sent", None)
            case _:
                await self._retry(running, target, failure)

    async def _retry(self, running: Running, target: Target, failure: Failure) -> None:
        running.attempts += 1
        if running.job.execution == "at_most_once" and failure.error_class is ErrorClass.SENT_UNKNOWN:
            raise Ended(Status.FAILED, Code.OUTCOME_UNKNOWN, failure.message)
        if failure.final or running.attempts >= running.job.max_attempts:
            raise Ended(Status.FAILED, failure.code, failure.message)
        wait_s = failure.retry_after_s if failure.retry_after_s is not None else self.gates.backoff_s(running.attempts)
        if not self.gates.gate(target.credential, target.model).may_retry():
            wait_s = max(wait_s, 2 * SHORT_WAIT_S)
        await self._pause(running, wait_s, "retry", None)

    async def _spent(self, running: Running, target: Target, outcome: str, usage: Tokens | None) -> None:
        """Put what an attempt without an answer has cost, or may have cost, on the ledger before the job moves on, and on its tenant's share."""
        tokens = usage or self.estimate(running, target)
        running.ready.spent += tokens.input_tokens + OUTPUT_WEIGHT * tokens.output_tokens
        cost = target.price.amount(tokens)
        attempt = Attempt(running.calls, tokens, cost, outcome, usage is None, running.provider_ms)
        row = ledger_row(running, target, attempt, self.store.owner)
        await self.publisher.record_now([row])


def _halted(halt: Halt) -> Ended | Postponed:
    """How a job leaves that a halt keeps from another call."""
    return Postponed(*rest(halt, datetime.now(UTC))) if halt.kind is HaltKind.PAUSED else stop(halt)


def _told_to_stop(running: Running) -> Ended | Postponed | None:
    """How a job leaves whose task was cancelled because it was told to stop; None: the cancellation is somebody else's."""
    task = asyncio.current_task()
    if running.stopped is None or task is None:
        return None
    running.stoppable = False
    task.uncancel()
    return _stop(running)


def _stop(running: Running) -> Ended | Postponed:
    """How a job leaves that was told to stop: cancelled, or back to wait where this process ends."""
    if running.stopped is not SHUTDOWN:
        return Ended(Status.CANCELLED, Code.CANCELLED, running.stopped or "")
    if running.job.execution == "at_most_once" and running.sent:
        return Ended(Status.FAILED, Code.OUTCOME_UNKNOWN)
    return Postponed(datetime.now(UTC), "handed_back")


def _class_of(outcome: Answer | Failure) -> str:
    return "succeeded" if isinstance(outcome, Answer) else outcome.error_class.value
