"""What every provider promises, each on its own wire; for OpenAI with the answers that it documents."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from schemas.codes import Code
from workers.providers.memory import MemoryProvider
from workers.providers.openai import OpenAI
from workers.providers.protocol import Answer, CannotBuild, ErrorClass, Failure, Provider, Request, Tokens
from workers.transports.memory import MemoryTransport
from workers.transports.protocol import Reply

NOW = 1_790_000_000.0
KEY = "sk-test-0123456789"
OPERATIONS = ("chat", "embeddings", "responses", "moderations")

CHAT: dict[str, Any] = {
    "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
    "object": "chat.completion",
    "created": 1741569952,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello! 😀", "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 19,
        "completion_tokens": 10,
        "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 0},
    },
    "service_tier": "default",
}
EMBEDDINGS: dict[str, Any] = {
    "object": "list",
    "data": [{"object": "embedding", "embedding": [0.0023064255, -0.009327292, -0.0028842222], "index": 0}],
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
RESPONSES: dict[str, Any] = {
    "id": "resp_67ccd2bed1ec8190b14f964abc054267",
    "object": "response",
    "created_at": 1741476542,
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "model": "gpt-4.1-2025-04-14",
    "output": [
        {
            "type": "message",
            "id": "msg_67ccd2bf17f0819081ff3bb2cf6508e6",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "In a peaceful grove", "annotations": []}],
        }
    ],
    "service_tier": "flex",
    "usage": {
        "input_tokens": 36,
        "input_tokens_details": {"cached_tokens": 8},
        "output_tokens": 87,
        "output_tokens_details": {"reasoning_tokens": 64},
        "total_tokens": 123,
    },
}
MODERATIONS: dict[str, Any] = {
    "id": "modr-0d9740456c391e43c445bf0f010940c7",
    "model": "omni-moderation-latest",
    "results": [{"flagged": True, "categories": {"violence": True}, "category_scores": {"violence": 0.9}}],
}
DOCUMENTED = {"chat": CHAT, "embeddings": EMBEDDINGS, "responses": RESPONSES, "moderations": MODERATIONS}
COUNTED = {
    "chat": Tokens(19, 4, 0, 10, 2),
    "embeddings": Tokens(8, 0, 0, 0, 0),
    "responses": Tokens(36, 8, 0, 87, 64),
    "moderations": None,
}


@dataclass(frozen=True)
class Wire:
    """One provider and how its good answers look on its wire."""

    provider: Provider
    answer: Callable[[str], bytes]
    with_tokens: Callable[[object], bytes]


def memory_answer(operation: str) -> bytes:
    counted = COUNTED[operation]
    return json.dumps({"output": DOCUMENTED[operation]} | ({"tokens": counted} if counted else {})).encode()


WIRES = {
    "openai": Wire(
        OpenAI("https://provider.test/v1/", SecretStr(KEY)),
        lambda operation: json.dumps(DOCUMENTED[operation]).encode(),
        lambda count: json.dumps(CHAT | {"usage": {"prompt_tokens": count, "completion_tokens": 1}}).encode(),
    ),
    "memory": Wire(
        MemoryProvider(),
        memory_answer,
        lambda count: json.dumps({"output": CHAT, "tokens": [count, 0, 0, 1, 0]}).encode(),
    ),
}


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> Wire:
    return WIRES[request.param]


def read(wire: Wire, body: bytes, *, status: int = 200, operation: str = "chat") -> Answer | Failure:
    return wire.provider.read(operation, Reply(status, {"x-request-id": "req_1"}, body), NOW)


def a_request(**changes: Any) -> Request:  # noqa: ANN401 - any field of a request
    body = {"model": "what-the-client-wrote", "messages": [{"role": "user", "content": "hi"}], "vendor_field": 1}
    return Request(**({"operation": "chat", "model": "m-1", "body": body, "request_id": "uid/1/2.1"} | changes))


# Building


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_call_carries_the_body_with_the_target_s_model_and_the_request_id(wire: Wire, operation: str) -> None:
    request = a_request(operation=operation)
    call = wire.provider.build(request, 12.5)
    assert orjson.loads(call.body) == {**request.body, "model": "m-1"}
    assert ("x-client-request-id", "uid/1/2.1") in call.headers
    assert call.timeout_s == 12.5
    assert operation in wire.provider.operations


def test_the_client_s_body_is_left_as_it_was(wire: Wire) -> None:
    request = a_request()
    wire.provider.build(request, 1.0)
    assert request == a_request()


def test_an_operation_that_is_not_served_is_refused(wire: Wire) -> None:
    with pytest.raises(CannotBuild) as raised:
        wire.provider.build(a_request(operation="divination"), 1.0)
    assert raised.value.code is Code.UNSUPPORTED_OPERATION


@pytest.mark.parametrize("value", [2**70, "\ud800", {1: 2}, object()])
def test_a_body_that_json_cannot_hold_is_refused(wire: Wire, value: object) -> None:
    with pytest.raises(CannotBuild) as raised:
        wire.provider.build(a_request(body={"x": value}), 1.0)
    assert raised.value.code is Code.INVALID_JOB


def test_neither_key_nor_content_prints(wire: Wire) -> None:
    call = wire.provider.build(a_request(), 1.0)
    shown = repr((wire.provider, call, a_request(), read(wire, wire.answer("chat"))))
    assert not any(word in shown for word in (KEY, "Bearer", "hi", "Hello"))


# Reading answers


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_answer_is_kept_in_openai_s_shape_with_its_usage(wire: Wire, operation: str) -> None:
    answer = read(wire, wire.answer(operation), operation=operation)
    assert isinstance(answer, Answer)
    assert orjson.loads(answer.output) == answer.document == DOCUMENTED[operation]
    assert (answer.usage, answer.storable, answer.request_id) == (COUNTED[operation], True, "req_1")


async def test_a_call_goes_out_and_its_reply_comes_back_by_a_transport(wire: Wire) -> None:
    transport = MemoryTransport(lambda _: Reply(200, {}, wire.answer("chat")))
    reply = await transport.send(wire.provider.build(a_request(), 1.0))
    assert isinstance(wire.provider.read("chat", reply, NOW), Answer)


def test_the_output_can_be_spliced_into_a_result(wire: Wire) -> None:
    answer = read(wire, wire.answer("chat"))
    assert isinstance(answer, Answer)
    assert orjson.loads(orjson.dumps({"output": orjson.Fragment(answer.output)})) == {"output": CHAT}


@pytest.mark.parametrize("value", ["NaN", "1e400", str(2**63), "1" + "0" * 400, '"\\ud800"', '{"\\u0000": 1}'])
def test_an_answer_that_no_document_can_hold_is_kept_as_text(wire: Wire, value: str) -> None:
    body = wire.answer("chat").replace(b'"logprobs": null', b'"logprobs": ' + value.encode())
    answer = read(wire, body)
    assert isinstance(answer, Answer)
    assert answer.storable is False
    assert value in answer.output.decode()
    assert answer.usage == COUNTED["chat"]


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{}", b"42", b'"text"', b"<html>", b'{"choices":', b"\xff\xfe", b"[" * 100_000]
)
def test_an_answer_that_is_none_has_failed_and_may_have_cost_money(wire: Wire, body: bytes) -> None:
    failure = read(wire, body)
    assert isinstance(failure, Failure)
    assert (failure.error_class, failure.code) == (ErrorClass.FAILED, Code.ANSWER_MALFORMED)
    assert failure.spent


@pytest.mark.parametrize("count", [-1, 1.5, "7", True, 10**12, 2**70, [], {"a": 1}])
def test_a_count_that_cannot_be_makes_the_answer_malformed(wire: Wire, count: object) -> None:
    failure = read(wire, wire.with_tokens(count))
    assert isinstance(failure, Failure)
    assert (failure.error_class, failure.code) == (ErrorClass.FAILED, Code.ANSWER_MALFORMED)


# Reading errors


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, ErrorClass.REJECTED), (401, ErrorClass.CREDENTIAL), (402, ErrorClass.CREDENTIAL),
        (403, ErrorClass.CREDENTIAL), (404, ErrorClass.REJECTED), (413, ErrorClass.REJECTED), (422, ErrorClass.REJECTED),
        (429, ErrorClass.THROTTLED), (500, ErrorClass.FAILED), (502, ErrorClass.FAILED), (503, ErrorClass.THROTTLED),
        (504, ErrorClass.FAILED), (529, ErrorClass.THROTTLED),
    ],
)  # fmt: skip
@pytest.mark.parametrize("body", [b"", b"busy", b'{"error":{"message":"m","type":"t","param":null,"code":null}}'])
def test_a_status_means_the_same_at_every_provider(wire: Wire, status: int, expected: ErrorClass, body: bytes) -> None:
    failure = read(wire, body, status=status)
    assert isinstance(failure, Failure)
    assert (failure.error_class, failure.status, failure.request_id) == (expected, status, "req_1")
    assert failure.message.startswith(f"The provider answered {status}")


def test_a_used_up_account_is_no_rate_limit(wire: Wire) -> None:
    failure = read(wire, b'{"error":{"message":"You exceeded","code":"insufficient_quota"}}', status=429)
    assert isinstance(failure, Failure)
    assert (failure.error_class, failure.code) == (ErrorClass.CREDENTIAL, Code.PROVIDER_QUOTA)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"message": "slow down", "code": 429}, ErrorClass.THROTTLED),
        ({"message": "bad gateway", "code": 502}, ErrorClass.FAILED),
        ({"message": "slow down", "code": "rate_limit_exceeded"}, ErrorClass.THROTTLED),
        ({"message": "broke", "code": "server_error"}, ErrorClass.FAILED),
        ({"message": "no", "code": "invalid_prompt"}, ErrorClass.REJECTED),
        ({"message": "who knows"}, ErrorClass.FAILED),
        ("who knows", ErrorClass.FAILED),
    ],
)
def test_an_error_behind_a_good_status_is_an_error(wire: Wire, error: object, expected: ErrorClass) -> None:
    failure = read(wire, json.dumps({"error": error}).encode())
    assert isinstance(failure, Failure)
    assert failure.error_class is expected


FIELDS = [
    "error", "message", "code", "type", "status", "choices", "usage", "output", "data", "results", "details", "reason",
    "retryDelay", "detail", "msg", "tokens", "model", "id", "prompt_tokens", "completion_tokens", "prompt_tokens_details",
    "finish_reason", "incomplete_details",
]  # fmt: skip
BODIES = st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode())
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "x-request-id", "x-ratelimit-reset-tokens"]), st.text(max_size=30)
)


@pytest.mark.parametrize("name", WIRES)
@pytest.mark.parametrize("operation", OPERATIONS)
@given(reply=st.builds(Reply, st.just(200) | st.integers(100, 999), HEADERS, BODIES))
@example(reply=Reply(200, {}, b'{"choices":[{"finish_reason":"\\ud800"}],"model":"\\ud800","id":"\\ud800"}'))
@example(reply=Reply(400, {}, b'{"error":{"message":' + b"[" * 500 + b"]" * 500 + b"}}"))
def test_whatever_comes_back_is_read_without_an_exception(name: str, operation: str, reply: Reply) -> None:
    outcome = WIRES[name].provider.read(operation, reply, NOW)
    if isinstance(outcome, Failure):
        assert outcome.message.encode()
        assert len(outcome.message) < 600
    else:
        words = (outcome.response_model, outcome.response_id, outcome.service_tier, *outcome.finish_reasons)
        assert all(word.encode() for word in words if word)
        assert outcome.usage is None or all(count >= 0 for count in outcome.usage)
        assert outcome.output.decode()
