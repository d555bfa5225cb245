"""What is stored and published of a job's end: rows and results as the schemas say, exact to the last digit."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import bson
import pytest
from bson import CodecOptions, Decimal128
from jsonschema import Draft202012Validator

from broker.codec import Decoded, Place, Refusal, decode
from broker.outgoing import encode_result, result_headers, usage_event
from broker.prices import Prices
from schemas import generate
from schemas.codes import Code
from schemas.result import Result, Status
from schemas.usage import UsageEvent
from tests.builders import BODY, a_payload, a_ready, a_running, an_answer, some_settings
from workers.outcome import Answered, Ended, Running
from workers.providers.memory import MemoryProvider
from workers.providers.protocol import Answer, Tokens
from workers.route import Router, Target
from workers.settle import Attempt, ended, ledger_row, refused_result, request_id, succeeded, units_of

TOKENS = Tokens(10, 2, 1, 5, 3)


def schema(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((generate.HERE / "json" / f"{name}.schema.json").read_text()))


def target(running: Running) -> Target:
    settings = some_settings(
        providers={"main": {"base_url": "http://x", "models": ["m"], "region": "eu", "service_tier": "flex"}}
    )
    return Router(settings, Prices(settings.prices)).targets(running.job)[0]


def answer(content: str = "hi") -> Answer:
    read = MemoryProvider().read("chat", an_answer(content, TOKENS), 0.0)
    assert isinstance(read, Answer)
    return read


def row(running: Running, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 an attempt's fields
    aimed = target(running)
    attempt = Attempt(
        1, TOKENS, aimed.price.amount(TOKENS), "succeeded", False, 640, ["tenant:acme/day/2026-12-01T00:00Z"], answer()
    )
    return ledger_row(running, aimed, attempt._replace(**fields), "us")


def answered(running: Running, said: Answer | None = None) -> Answered:
    said = said or answer()
    return Answered(said, row(running, answer=said), 15, Decimal(1))


def published(result: dict[str, Any]) -> Result:
    """What a consumer reads, after the schema has said yes."""
    value = encode_result(result)
    schema("result").validate(json.loads(value))
    return Result.model_validate_json(value)


@pytest.mark.parametrize("microseconds", [0, 499, 999, 123_499, 123_999, 999_999])
def test_what_is_published_is_the_same_from_here_and_from_what_was_stored(microseconds: int) -> None:
    running = a_running(metadata={"row": 7})
    finish = succeeded(running, target(running), answered(running))
    assert finish.row is not None
    instant = datetime(2026, 12, 1, 8, 0, 0, microseconds, UTC)
    result, made = {**finish.result, "finished_at": instant}, {**finish.row, "at": instant, "recorded_at": instant}
    stored = bson.decode(bson.encode({"result": result, "row": made}), CodecOptions(tz_aware=True, tzinfo=UTC))
    assert encode_result(stored["result"]) == encode_result(result)
    assert usage_event(stored["row"]) == usage_event(made)
    headers = [result_headers(told, "acme/job", "urn:x", None) for told in (stored["result"], result)]
    assert headers[0] == headers[1]


def test_a_row_has_everything_that_an_invoice_needs() -> None:
    running = a_running(tags={"row": "7"}, batch_id="b", fence=3, generation=2)
    made = row(running, n=4)
    value = usage_event(made)
    schema("usage").validate(json.loads(value))
    event = UsageEvent.model_validate_json(value)
    assert event.id == made["_id"] == "uid/2/3.4" == request_id(running.ready.claim, 4)
    assert (event.tenant, event.job_id, event.batch_id, event.priority) == ("acme", "job", "b", "normal")
    assert (event.provider, event.credential, event.region, event.service_tier) == ("openai", "main", "eu", "flex")
    assert (event.request_model, event.response_model, event.response_id) == ("m", "memory", "memory-1")
    assert (event.request_id, event.finish_reasons, event.price_id) == ("req-1", ["stop"], "settings/m")
    assert (event.input_tokens, event.output_tokens, event.reasoning_output_tokens) == (10, 5, 3)
    assert (event.billed, event.estimated, event.outcome, event.tags) == (False, False, "succeeded", {"row": "7"})
    assert made["quota_keys"] == ["tenant:acme/day/2026-12-01T00:00Z"]


def test_amounts_are_exact() -> None:
    made = row(a_running())
    assert isinstance(made["cost_usd"], Decimal128)
    assert made["cost_usd"].to_decimal() == Decimal("0.00002")
    assert UsageEvent.model_validate_json(usage_event(made)).cost_usd == Decimal("0.00002")


def test_a_row_without_an_answer_names_what_is_known() -> None:
    made = row(a_running(), answer=None, outcome="sent_unknown", estimated=True, quota_keys=())
    assert (made["response_model"], made["request_id"], made["finish_reasons"]) == (None, None, [])
    assert (made["service_tier"], made["estimated"], made["quota_keys"]) == ("flex", True, [])


def test_a_success_is_told_with_its_answer_and_billed_once() -> None:
    running = a_running(metadata={"row": 7}, attempts=1, batch_id="b")
    running.provider_ms = 640
    finish = succeeded(running, target(running), answered(running))
    assert (finish.state, finish.keep_payload) == ("succeeded", False)
    assert finish.row is not None
    assert finish.row["billed"] is True
    result = published(finish.result)
    assert (result.status, result.attempts, result.metadata, result.batch_id) == (Status.SUCCEEDED, 2, {"row": 7}, "b")
    assert result.cost_usd == finish.row["cost_usd"].to_decimal()
    assert (result.usage.input_tokens, result.usage.output_tokens) == (10, 5)
    assert result.output is not None
    assert result.output["choices"][0]["message"]["content"] == "hi"
    assert result.target is not None
    assert (result.target.request_model, result.target.response_model) == ("m", "memory")
    assert (result.timing.provider_ms, result.code, result.message) == (640, None, None)
    assert result.timing.queued_ms >= 1_000
    assert result.finished_at.microsecond % 1_000 == 0
    assert units_of(finish.result) == 10 + 4 * 5


def test_an_answer_that_no_document_can_hold_is_kept_as_text() -> None:
    running = a_running()
    said = answer()._replace(storable=False, output=b'{"seed": 1e999}')
    result = published(succeeded(running, target(running), answered(running, said)).result)
    assert (result.output, result.output_text) == (None, '{"seed": 1e999}')


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.SUCCEEDED])
def test_every_other_end_has_a_code_and_a_sentence_and_keeps_the_payload(status: Status) -> None:
    running = a_running(attempts=3)
    finish = ended(running.ready, running, Ended(status, Code.PROVIDER_ERROR))
    result = published(finish.result)
    assert (finish.state, finish.keep_payload, finish.row) == (status.value, True, None)
    assert (result.status, result.code, result.attempts) == (status, "provider_error", 3)
    assert result.message == "The provider failed at every attempt; run the job again later."
    assert (result.cost_usd, result.output, result.target) == (Decimal(0), None, None)


def test_what_an_answer_cost_that_nobody_gets_is_billed_all_the_same() -> None:
    running = a_running()
    finish = ended(running.ready, running, Ended(Status.REJECTED, Code.BLOCKED), row=row(running))
    assert finish.row is not None
    assert finish.row["billed"] is True
    assert published(finish.result).cost_usd == Decimal("0.00002")


@pytest.mark.parametrize(
    "fields",
    [
        {"deadline": "2020-01-01T00:00:00Z"},
        {"dedline": "x"},
        {},
    ],
    ids=["refused", "unknown field", "cancelled before it ran"],
)
def test_who_never_ran_is_told_with_what_its_producer_knows_it_by(fields: dict[str, Any]) -> None:
    ready = a_ready(
        operation="embeddings", body={"model": "m", "input": "x"}, metadata={"row": 7}, batch_id="b", **fields
    )
    result = published(ended(ready, None, Ended(Status.CANCELLED, Code.CANCELLED)).result)
    assert (result.operation, result.metadata, result.batch_id) == ("embeddings", {"row": 7}, "b")


def test_a_conflict_is_told_under_generation_0() -> None:
    place = Place("c", "jobs.normal", 0, 1, datetime.now(UTC))
    decoded = decode(a_payload(id="x", tenant="acme", metadata=[1], body=BODY), (), place)
    assert isinstance(decoded, Decoded)
    result = published(refused_result(decoded, Refusal(Code.ID_CONFLICT, "another job"), datetime.now(UTC)))
    assert (result.job_id, result.tenant, result.generation) == ("x", "acme", 0)
    assert (result.status, result.code, result.message, result.metadata) == (
        Status.REJECTED,
        "id_conflict",
        "another job",
        [1],
    )
