"""What is OpenAI's own: paths, headers, and the parts of its answers."""

import ctypes
import json
from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from schemas.codes import Code
from workers.providers.openai import OpenAI
from workers.providers.protocol import Answer, ErrorClass, Failure, Request, Tokens
from workers.transports.protocol import Reply

NOW = 1_790_000_000.0
KEY = "an/unusual+key"
OPENAI = OpenAI("https://provider.test/v1/", SecretStr(KEY))


def read(operation: str, document: object, *, status: int = 200) -> Answer | Failure:
    return OPENAI.read(operation, Reply(status, {}, json.dumps(document).encode()), NOW)


def chat(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any field of an answer
    return {"id": "1", "model": "m-2024", "choices": [{"message": {}, "finish_reason": "stop"}], **changes}


@pytest.mark.parametrize(
    ("operation", "path"),
    [
        ("chat", "/chat/completions"),
        ("embeddings", "/embeddings"),
        ("responses", "/responses"),
        ("moderations", "/moderations"),
    ],
)
def test_each_operation_has_its_path_below_the_base_url(operation: str, path: str) -> None:
    assert OPENAI.build(Request(operation, "m", {}, "r"), 1.0).url == f"https://provider.test/v1{path}"


def test_the_headers_are_those_of_json_the_key_and_the_request() -> None:
    assert dict(OPENAI.build(Request("chat", "m", {}, "uid/1/1.1"), 1.0).headers) == {
        "content-type": "application/json",
        "authorization": f"Bearer {KEY}",
        "x-client-request-id": "uid/1/1.1",
    }


def test_a_call_s_body_takes_no_more_memory_than_it_is_long() -> None:
    """Thousands of them are held for as long as their calls last."""
    body = OPENAI.build(Request("chat", "m", {"messages": ["words " * 200]}, "r"), 1.0).body
    usable = ctypes.CDLL(None).malloc_usable_size
    usable.argtypes, usable.restype = [ctypes.c_void_p], ctypes.c_size_t
    assert len(body) < usable(id(body)) < len(body) + 100


def test_without_a_key_none_is_sent() -> None:
    call = OpenAI("http://localhost/v1", SecretStr("")).build(Request("chat", "m", {}, "r"), 1.0)
    assert "authorization" not in dict(call.headers)


def test_calls_share_a_connection_only_where_the_provider_is_set_so() -> None:
    shared = OpenAI("http://localhost/v1", SecretStr(""), http2=True)
    request = Request("chat", "m", {}, "r")
    assert (shared.build(request, 1.0).http2, OPENAI.build(request, 1.0).http2) == (True, False)


def test_the_target_s_service_tier_is_asked_for_unless_the_job_says_another() -> None:
    flex = OpenAI("http://localhost/v1", SecretStr(""), service_tier="flex")
    assert orjson.loads(flex.build(Request("chat", "m", {}, "r"), 1.0).body)["service_tier"] == "flex"
    own = flex.build(Request("chat", "m", {"service_tier": "auto"}, "r"), 1.0)
    assert orjson.loads(own.body)["service_tier"] == "auto"
    assert "service_tier" not in orjson.loads(flex.build(Request("embeddings", "m", {}, "r"), 1.0).body)


def test_model_id_tier_and_reasons_are_read() -> None:
    answer = read(
        "chat", chat(service_tier="default", choices=[{"finish_reason": "stop"}, {"finish_reason": "length"}])
    )
    assert isinstance(answer, Answer)
    assert (answer.response_model, answer.response_id, answer.service_tier) == ("m-2024", "1", "default")
    assert answer.finish_reasons == ("stop", "length")


def test_an_answer_without_usage_is_one() -> None:
    answer = read("chat", chat())
    assert isinstance(answer, Answer)
    assert answer.usage is None


@pytest.mark.parametrize("choices", [None, [], {}, "text", [1], [[]]])
def test_an_answer_without_choices_has_failed_and_its_usage_is_known(choices: object) -> None:
    failure = read("chat", chat(choices=choices, usage={"prompt_tokens": 3, "completion_tokens": 4}))
    assert isinstance(failure, Failure)
    assert (failure.code, failure.usage) == (Code.ANSWER_MALFORMED, Tokens(3, 0, 0, 4, 0))
    assert failure.spent is False


def test_a_response_that_was_cut_is_an_answer_with_the_reason() -> None:
    document = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": []}
    answer = read("responses", document)
    assert isinstance(answer, Answer)
    assert answer.finish_reasons == ("max_output_tokens",)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("server_error", ErrorClass.FAILED),
        ("rate_limit_exceeded", ErrorClass.THROTTLED),
        ("invalid_prompt", ErrorClass.REJECTED),
    ],
)
def test_a_response_that_failed_is_judged_by_its_code_and_keeps_its_usage(code: str, expected: ErrorClass) -> None:
    usage = {"input_tokens": 5, "output_tokens": 0}
    document = {"status": "failed", "error": {"code": code, "message": "no"}, "output": [], "usage": usage}
    failure = read("responses", document)
    assert isinstance(failure, Failure)
    assert (failure.error_class, failure.usage) == (expected, Tokens(5, 0, 0, 0, 0))


@pytest.mark.parametrize("status", ["in_progress", "queued", "cancelled", 7, None, []])
def test_a_response_that_has_not_ended_is_malformed(status: object) -> None:
    failure = read("responses", {"status": status, "output": [{}]})
    assert isinstance(failure, Failure)
    assert failure.code is Code.ANSWER_MALFORMED


@pytest.mark.parametrize("status", [401, 200])
def test_the_key_is_masked_in_what_the_provider_says(status: int) -> None:
    failure = read("chat", {"error": {"message": "x" * 480 + f" no such key: {KEY}"}}, status=status)
    assert isinstance(failure, Failure)
    assert "an/un" not in failure.message
