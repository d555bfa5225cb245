"""The generated schemas are current, valid, and say the same of a message as the models do."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError
from pydantic import BaseModel
from pydantic import ValidationError as ModelError

from schemas import generate
from schemas.alert import AlertEvent
from schemas.batch import BatchEvent
from schemas.codes import Code
from schemas.control import Control
from schemas.job import Job
from schemas.result import Result
from schemas.usage import UsageEvent

MODELS: dict[str, type[BaseModel]] = {
    "job": Job,
    "result": Result,
    "usage": UsageEvent,
    "batch": BatchEvent,
    "alert": AlertEvent,
    "control": Control,
}

SMALLEST = {"body": {"model": "m", "messages": [{"role": "user", "content": "hi"}]}}
WHOLE = {
    **SMALLEST,
    "id": "inv-7781",
    "tenant": "acme",
    "operation": "responses",
    "reply_to": "results.invoices",
    "reply_partition": 3,
    "metadata": {"row": 7781},
    "tags": {"cost-centre": "4711"},
    "deadline": "2026-12-01T09:00:00+01:00",
    "not_before": "2026-12-01T07:00:00Z",
    "batch_id": "december",
    "execution": "at_most_once",
    "max_attempts": 3,
    "max_cost_usd": "0.25",
}
USAGE = {
    "input_tokens": 812,
    "cache_read_input_tokens": 0,
    "cache_creation_input_tokens": 0,
    "output_tokens": 143,
    "reasoning_output_tokens": 0,
}
RESULT = {
    "job_id": "inv-7781",
    "tenant": "acme",
    "generation": 1,
    "operation": "chat",
    "status": "succeeded",
    "output": {
        "id": "chatcmpl-1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {},
    },
    "usage": USAGE,
    "cost_usd": "0.0002076",
    "target": {
        "provider": "openai",
        "request_model": "gpt-4o-mini",
        "response_model": "gpt-4o-mini-2024-07-18",
        "region": None,
        "service_tier": "default",
    },
    "attempts": 1,
    "guards": [],
    "timing": {"queued_ms": 12, "provider_ms": 640, "total_ms": 659},
    "metadata": {"row": 7781},
    "finished_at": "2026-12-01T08:00:00.123Z",
}
REJECTED = {
    **{name: value for name, value in RESULT.items() if name not in {"output", "target"}},
    "status": "rejected",
    "code": "unknown_field",
    "message": "dedline: did you mean deadline?",
    "cost_usd": "0",
}
ROW = {
    **USAGE,
    "id": "4c7a/1/2.1",
    "at": "2026-12-01T08:00:00.100Z",
    "recorded_at": "2026-12-01T08:00:00.123Z",
    "tenant": "acme",
    "job_id": "inv-7781",
    "generation": 1,
    "batch_id": None,
    "priority": "normal",
    "operation": "chat",
    "provider": "openai",
    "credential": "main",
    "request_model": "gpt-4o-mini",
    "response_model": "gpt-4o-mini-2024-07-18",
    "response_id": "chatcmpl-1",
    "request_id": "req-1",
    "region": None,
    "service_tier": "default",
    "outcome": "succeeded",
    "finish_reasons": ["stop"],
    "cost_usd": "0.0002076",
    "price_id": "openai/gpt-4o-mini/2026-01-01",
    "billed": True,
    "estimated": False,
    "incarnation": "8f14",
    "queued_ms": 12,
    "provider_ms": 640,
    "tags": {},
}
ENDED = {
    "batch_id": "december",
    "tenant": "acme",
    "total": 12,
    "jobs": 12,
    "states": {"succeeded": 9, "failed": 3},
    "cost_usd": "0.0018684",
    "finished_at": "2026-12-01T08:00:00.123Z",
}
REACHED = {
    "limit_of": "tenant:acme",
    "tenant": "acme",
    "per": "day",
    "window_start": "2026-12-01T00:00:00Z",
    "window_end": "2026-12-02T00:00:00Z",
    "mode": "hard",
    "threshold": 80,
    "unit": "usd",
    "spent": {"requests": 812, "tokens": 91277, "usd": "8.0002076"},
    "limit": {"requests": None, "tokens": None, "usd": "10"},
    "limits_version": 3,
    "message": "tenant acme per day until 2026-12-02T00:00Z: 8.0002076 of 10 dollars are spent, 80 % or more",
    "noticed_at": "2026-12-01T08:00:00.123Z",
}
GOOD = [
    ("alert", REACHED),
    ("alert", {**REACHED, "per": "lifetime", "window_start": None, "window_end": None, "tenant": None}),
    ("alert", {**REACHED, "threshold": "forecast", "a_field_of_the_future": 1}),
    ("batch", ENDED),
    ("batch", {**ENDED, "code": "batch_limit", "message": "max_errors: 3 have failed", "a_field_of_the_future": 1}),
    ("job", SMALLEST),
    ("job", WHOLE),
    ("result", RESULT),
    ("result", REJECTED),
    ("result", {**RESULT, "a_field_of_the_future": 1}),
    ("usage", ROW),
    ("control", {"action": "cancel", "tenant": "acme", "job_id": "inv-7781", "reason": "a typing error"}),
    ("control", {"action": "seal", "tenant": "acme", "batch_id": "december", "total": 12, "max_cost_usd": "3"}),
    ("control", {"action": "pause", "everything": True, "reason": "too dear"}),
    (
        "control",
        {"action": "seal", "batch_id": "b", "total": 2, "max_errors": 0, "max_error_rate": 0.5, "reply_to": "results"},
    ),
    ("control", {"action": "reply", "job_id": "inv-7781", "reply_to": "results.replies", "reply_partition": 0}),
]
BAD = [
    ("alert", {**REACHED, "threshold": "soon"}),
    ("alert", {**REACHED, "per": "concurrent"}),
    ("alert", {**REACHED, "spent": {"requests": 1, "tokens": 1, "usd": 0.1}}),
    ("batch", {**ENDED, "states": {"done": 12}}),
    ("batch", {**ENDED, "cost_usd": 0.0018684}),
    ("job", {}),
    ("job", {**SMALLEST, "dedline": "2026-12-01T08:00:00Z"}),
    ("job", {**SMALLEST, "max_cost_usd": 0.25}),
    ("job", {**SMALLEST, "tenant": "Acme"}),
    ("job", {**SMALLEST, "max_attempts": 21}),
    ("job", {**SMALLEST, "tags": {"cost centre": "x"}}),
    ("job", {**SMALLEST, "tags": {f"t{number}": "x" for number in range(17)}}),
    ("job", {**SMALLEST, "operation": "paint"}),
    ("job", {**SMALLEST, "reply_to": "jobs.normal"}),
    ("result", {**RESULT, "status": "done"}),
    ("result", {**RESULT, "cost_usd": 0.0002076}),
    ("usage", {**ROW, "billed": None}),
    ("usage", {**ROW, "input_tokens": -1}),
    ("control", {"action": "seal", "batch_id": "b", "total": 2, "max_error_rate": 1.5}),
    ("control", {"action": "explode", "job_id": "inv-7781"}),
    ("control", {"action": "cancel", "job_id": "inv-7781", "when": "now"}),
]


def written(path: str) -> Any:  # noqa: ANN401 any JSON value
    return json.loads((generate.HERE / path).read_text(encoding="utf-8"))


def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = written(f"json/{name}.schema.json")
    return found


def read(name: str, message: dict[str, Any]) -> BaseModel:
    """What the model makes of a message, read as JSON."""
    return MODELS[name].model_validate_json(json.dumps(message))


def references(value: Any) -> Iterator[str]:  # noqa: ANN401 any JSON value
    if isinstance(value, dict):
        yield from (target for name, target in value.items() if name == "$ref")
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


@pytest.mark.parametrize("path", generate.generated(), ids=str)
def test_what_is_committed_is_what_the_models_say(path: Path) -> None:
    assert (generate.HERE / path).read_text(encoding="utf-8") == generate.generated()[path], "run `make schemas`"


def test_there_is_no_generated_file_that_nothing_generates() -> None:
    there = {path.relative_to(generate.HERE) for path in generate.HERE.rglob("*.json")}
    assert there == {path for path in generate.generated() if path.suffix == ".json"}


def test_check_ends_with_an_error_for_a_file_that_is_not_current(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "HERE", tmp_path / "schemas")
    (tmp_path / "schemas").mkdir()
    assert generate.main(["--check"]) == 1
    assert "schemas/json/job.schema.json is not current" in capsys.readouterr().err
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    (tmp_path / "schemas" / "CODES.md").write_text("stale", encoding="utf-8")
    assert generate.main(["--check"]) == 1


@pytest.mark.parametrize("name", MODELS)
def test_a_schema_is_a_schema(name: str) -> None:
    Draft202012Validator.check_schema(schema(name))


@pytest.mark.parametrize(("name", "message"), GOOD)
def test_a_good_message_is_good_for_the_schema_and_for_the_model(name: str, message: dict[str, Any]) -> None:
    Draft202012Validator(schema(name)).validate(message)
    read(name, message)


@pytest.mark.parametrize(("name", "message"), BAD)
def test_a_bad_message_is_bad_for_the_schema_and_for_the_model(name: str, message: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Draft202012Validator(schema(name)).validate(message)
    with pytest.raises(ModelError):
        read(name, message)


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = written("asyncapi.json")
    targets = list(references(document))
    assert targets
    for target in targets:
        place = document
        for step in target.removeprefix("#/").split("/"):
            place = place[step]


@pytest.mark.parametrize(("name", "message"), GOOD)
def test_the_asyncapi_document_says_the_same_of_a_message(name: str, message: dict[str, Any]) -> None:
    document = written("asyncapi.json")
    payload = document["components"]["messages"][name]["payload"]
    Draft202012Validator({**payload, "components": document["components"]}).validate(message)


def test_the_asyncapi_document_has_every_topic_and_its_key() -> None:
    document = written("asyncapi.json")
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert addresses == {
        *("jobs.{priority}", "jobs.control", "jobs.dead"),
        *("results", "results.{name}", "results.replies", "usage", "alerts"),
    }
    assert all(message["bindings"]["kafka"]["key"] for message in document["components"]["messages"].values())


def test_the_page_of_codes_has_every_code_with_its_sentence() -> None:
    page = (generate.HERE / "CODES.md").read_text(encoding="utf-8")
    assert all(f"| `{code}` | " in page for code in Code)
