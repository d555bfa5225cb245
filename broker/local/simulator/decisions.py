"""Decides what becomes of a request: refused, limited, struck by a fault or answered; draws, but neither waits nor writes."""

import hashlib
from collections.abc import Mapping
from random import Random
from typing import NamedTuple

from broker.local.simulator import answers, chance
from broker.local.simulator.asks import Ask
from broker.local.simulator.behaviour import Behaviour, ModelBehaviour
from broker.local.simulator.delivery import Delivery, Reply, broken, intact
from broker.local.simulator.limits import Limiter, Verdict, retry_headers
from broker.local.simulator.prices import FREE, MODELS, cost
from broker.local.simulator.refusals import NO_QUOTA, PLANNED, THROTTLING, Refused, error_body, planned_body
from broker.local.simulator.usage import EMBEDDINGS, MODERATIONS, Counts, text_tokens


class Request(NamedTuple):
    """What the decision needs to know of a request; `key` is the bearer key, null where none was sent."""

    id: str
    key: str | None
    client_request_id: str | None
    content: bytes


class Charge(NamedTuple):
    """What an answer costs once it has gone out whole."""

    counts: Counts
    pico: int
    usage_sent: bool


class Decision(NamedTuple):
    """What to do: after `latency_s` since the request came, deliver; `charge` only for good answers."""

    status: int
    delivery: Delivery
    latency_s: float = 0.0
    fault: str | None = None
    charge: Charge | None = None


class Desk:
    """Keeps what decisions remember: the limits' buckets, how often each job has called, the source of chance."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.restart()

    def restart(self) -> None:
        """Forgets all buckets and jobs; chance begins anew."""
        self._limiters: dict[tuple[str, str], Limiter] = {}
        self._calls_of_job: dict[str | bytes, int] = {}
        self.change(self.behaviour)

    def change(self, behaviour: Behaviour) -> None:
        """Behaves otherwise from now on; buckets keep what they hold, jobs keep their counts."""
        self.behaviour = behaviour
        self._random = Random(behaviour.seed)  # noqa: S311 - a simulation that can be repeated, not a secret
        self._of_model: dict[str, ModelBehaviour] = {}

    def admit(self, key: str | None) -> None:
        """Raises `Refused` for a missing or bad key."""
        if not key:
            raise Refused(401, "You didn't provide an API key in an Authorization header (Bearer auth).")
        if key in self.behaviour.keys.bad:
            raise Refused(401, f"Incorrect API key provided: {key[:3]}***.", code="invalid_api_key")

    def refuse(self, request: Request, refused: Refused) -> Decision:
        """The answer to a request that was refused before it could be limited."""
        return Decision(refused.status, _plain(refused.status, refused.body(), {"x-request-id": request.id}))

    def decide(self, request: Request, ask: Ask, unix_now: float) -> Decision:
        """What becomes of a well-formed request; raises `Refused` for an unknown model."""
        how = self._behaviour_of(ask.model)
        case = _Case(request, ask, how, unix_now, {"x-request-id": request.id})
        if request.key in self.behaviour.keys.no_quota:
            return _planned(case, NO_QUOTA)
        if how.limits.rpm is not None or how.limits.tpm is not None:
            limiter = self._limiter(request.key or "", ask.model, how, unix_now)
            verdict = limiter.ask(_counted(ask), unix_now)
            case.headers.update(limiter.headers(unix_now))
            if verdict.refused_by:
                return _limited(case, verdict)
        fault = self._fault(how, request)
        latency_s = chance.latency_s(how.latency, self._random)
        decision = _planned(case, fault) if fault and fault in PLANNED else self._answer(case, fault)
        return decision._replace(latency_s=latency_s)

    def _behaviour_of(self, model: str) -> ModelBehaviour:
        known = self._of_model.get(model)
        if known is None:
            if not (self.behaviour.any_model or model in MODELS or model in self.behaviour.models):
                message = f"The model `{model[:100]}` does not exist or you do not have access to it."
                raise Refused(404, message, code="model_not_found")
            known = self._of_model[model] = self.behaviour.of(model)
        return known

    def _limiter(self, key: str, model: str, how: ModelBehaviour, now: float) -> Limiter:
        limiter = self._limiters.get((key, model))
        if limiter is None:
            limiter = self._limiters[key, model] = Limiter(how.limits, now)
        elif limiter.limits != how.limits:
            limiter.change(how.limits, now)
        return limiter

    def _fault(self, how: ModelBehaviour, request: Request) -> str | None:
        if how.fail_first.calls:
            job = _job_of(request)
            before = self._calls_of_job.get(job, 0)
            self._calls_of_job[job] = before + 1
            if before < how.fail_first.calls:
                return how.fail_first.fault
        return chance.fault(how.faults, self._random) if how.faults else None

    def _answer(self, case: "_Case", fault: str | None) -> Decision:
        ask, how = case.ask, case.how
        content = self._content(case)
        if ask.stream:
            parts = tuple(answers.events(ask, content, how.answer.stream_chunk_bytes))
            reply = Reply(200, parts, case.headers, stream=True, gap_s=how.answer.stream_gap_ms / 1000)
        else:
            reply = Reply(200, (answers.body(ask, content),), case.headers)
        delivery = broken(reply, fault, how.drip, how.oversized_bytes) if fault else intact(reply)
        if not delivery.whole or ask.path == MODERATIONS:
            return Decision(200, delivery, fault=fault)
        counts = content.counts
        price = how.price.as_price() if how.price else MODELS[ask.model].price if ask.model in MODELS else FREE
        pico = cost(price, counts.prompt, counts.cached, counts.output)
        return Decision(200, delivery, fault=fault, charge=Charge(counts, pico, not ask.stream or ask.include_usage))

    def _content(self, case: "_Case") -> answers.Content:
        ask, answer, random = case.ask, case.how.answer, self._random
        model = MODELS[ask.model].snapshot if ask.model in MODELS else ask.model
        content = answers.Content(case.request.id, int(case.now), model, "", "stop", Counts(ask.prompt_tokens))
        if ask.path in (EMBEDDINGS, MODERATIONS):
            return content
        text = answers.words(chance.amount(answer.text_bytes, random)) if answer.text is None else answer.text
        visible = text_tokens(text) if answer.output_tokens is None else chance.amount(answer.output_tokens, random)
        reasoning = chance.amount(answer.reasoning_tokens, random)
        output, finish = visible + reasoning, "stop"
        if ask.max_tokens is not None and output > ask.max_tokens:
            output, finish = ask.max_tokens, "length"
            text = text[: 4 * max(0, output - reasoning)]
        cached = min(chance.amount(answer.cached_tokens, random), ask.prompt_tokens)
        counts = Counts(ask.prompt_tokens, cached, output * ask.choices, min(reasoning, output) * ask.choices)
        return content._replace(text=text, finish_reason=finish, counts=counts)


class _Case(NamedTuple):
    """One request while it is decided; times are unix seconds."""

    request: Request
    ask: Ask
    how: ModelBehaviour
    now: float
    headers: dict[str, str]


def _job_of(request: Request) -> str | bytes:
    """What names the job: the request id up to its last slash, or the body where there is none."""
    if request.client_request_id is None:
        return hashlib.sha256(request.content).digest()
    head, slash, _ = request.client_request_id.rpartition("/")
    return head if slash else request.client_request_id


def _counted(ask: Ask) -> int:
    """What counts against the limit of tokens, before it is known what will be used."""
    return ask.prompt_tokens + (ask.max_tokens or 0) * ask.choices


def _plain(status: int, body: bytes, headers: Mapping[str, str]) -> Delivery:
    return intact(Reply(status, (body,), headers))


def _planned(case: _Case, name: str) -> Decision:
    planned = PLANNED[name]
    if name in THROTTLING:
        limits, wait_s = case.how.limits, case.how.fault_retry_after_s
        case.headers.update(retry_headers(limits.retry_after, wait_s, case.now))
    return Decision(planned.status, _plain(planned.status, planned_body(planned), case.headers), fault=name)


def _limited(case: _Case, verdict: Verdict) -> Decision:
    limits, kind = case.how.limits, verdict.refused_by or ""
    name, limit = ("RPM", limits.rpm) if kind == "requests" else ("TPM", limits.tpm)
    what = f"{case.ask.model} in organization org-simulator on {kind} per min ({name}): Limit {limit:g}"
    if verdict.wait_s is None:
        message = f"Request too large for {what}, Requested {_counted(case.ask)}."
    else:
        message = f"Rate limit reached for {what}. Please try again in {verdict.wait_s:.3f}s."
    case.headers.update(retry_headers(limits.retry_after, verdict.wait_s, case.now))
    return Decision(429, _plain(429, error_body(message, kind, None, "rate_limit_exceeded"), case.headers))
