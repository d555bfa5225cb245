"""The table from a status and a body to an error class, a code and a sentence."""

import json

import pytest

from schemas.codes import Code
from workers.providers.errors import failure_of, failure_without_reply
from workers.providers.protocol import ErrorClass, Failure
from workers.transports.errors import AnswerTooLarge, NotSent, SentUnknown
from workers.transports.protocol import Reply

NOW = 1_790_000_000.0


def failing(status: int, body: object = None, headers: dict[str, str] | None = None) -> Failure:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return failure_of(Reply(status, headers or {}, content), NOW)


def openai_error(message: str = "", **names: str | None) -> dict[str, object]:
    return {"error": {"message": message, "type": None, "param": None, "code": None, **names}}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (302, ErrorClass.FAILED), (400, ErrorClass.REJECTED), (401, ErrorClass.CREDENTIAL), (402, ErrorClass.CREDENTIAL),
        (403, ErrorClass.CREDENTIAL), (404, ErrorClass.REJECTED), (405, ErrorClass.REJECTED), (408, ErrorClass.FAILED),
        (409, ErrorClass.FAILED), (413, ErrorClass.REJECTED), (422, ErrorClass.REJECTED), (425, ErrorClass.FAILED),
        (429, ErrorClass.THROTTLED), (500, ErrorClass.FAILED), (502, ErrorClass.FAILED), (503, ErrorClass.THROTTLED),
        (504, ErrorClass.FAILED), (529, ErrorClass.THROTTLED), (599, ErrorClass.FAILED),
    ],
)  # fmt: skip
@pytest.mark.parametrize("body", [b"", b"<html>busy</html>", b"null", b'{"error":{"message":"no"}}'])
def test_a_status_alone_decides_the_class(status: int, expected: ErrorClass, body: bytes) -> None:
    failure = failing(status, body)
    assert (failure.error_class, failure.status) == (expected, status)
    assert failure.final is (expected is ErrorClass.REJECTED)


@pytest.mark.parametrize(
    ("status", "body", "error_class", "code"),
    [
        (429, openai_error(code="rate_limit_exceeded", type="tokens"), ErrorClass.THROTTLED, Code.RATE_LIMITED),
        (429, openai_error(code="insufficient_quota", type="insufficient_quota"), ErrorClass.CREDENTIAL, Code.PROVIDER_QUOTA),
        (429, openai_error(type="insufficient_quota"), ErrorClass.CREDENTIAL, Code.PROVIDER_QUOTA),
        (429, openai_error(code="billing_not_active"), ErrorClass.CREDENTIAL, Code.PROVIDER_QUOTA),
        (429, openai_error("You exceeded your current quota, please check your plan and billing details."),
         ErrorClass.CREDENTIAL, Code.PROVIDER_QUOTA),
        (429, openai_error("Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 40000.",
                           code="rate_limit_exceeded"), ErrorClass.REJECTED, Code.PROVIDER_REJECTED),
        (400, openai_error(code="billing_hard_limit_reached"), ErrorClass.CREDENTIAL, Code.PROVIDER_QUOTA),
        (400, openai_error(code="context_length_exceeded"), ErrorClass.REJECTED, Code.CONTEXT_TOO_LONG),
        (400, openai_error("This model's maximum context length is 8192 tokens."), ErrorClass.REJECTED, Code.CONTEXT_TOO_LONG),
        (400, openai_error("Unknown parameter: 'x'.", type="invalid_request_error"),
         ErrorClass.REJECTED, Code.PROVIDER_REJECTED),
        (401, openai_error(code="invalid_api_key", type="invalid_request_error"),
         ErrorClass.CREDENTIAL, Code.CREDENTIAL_REFUSED),
        (403, openai_error(code="model_not_found"), ErrorClass.REJECTED, Code.MODEL_NOT_FOUND),
        (403, openai_error(code="unsupported_country_region_territory"), ErrorClass.CREDENTIAL, Code.CREDENTIAL_REFUSED),
        (404, openai_error(code="model_not_found"), ErrorClass.REJECTED, Code.MODEL_NOT_FOUND),
        (404, openai_error("Unknown request URL"), ErrorClass.REJECTED, Code.PROVIDER_REJECTED),
        (500, openai_error(code="insufficient_quota"), ErrorClass.FAILED, Code.PROVIDER_ERROR),
        (503, openai_error("The engine is overloaded", type="server_error"), ErrorClass.THROTTLED, Code.RATE_LIMITED),
        (400, [{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT",
                          "details": [{"reason": "API_KEY_INVALID"}]}}], ErrorClass.CREDENTIAL, Code.CREDENTIAL_REFUSED),
    ],
)  # fmt: skip
def test_the_body_decides_where_the_status_is_not_enough(
    status: int, body: object, error_class: ErrorClass, code: Code
) -> None:
    failure = failing(status, body)
    assert (failure.error_class, failure.code) == (error_class, code)


def test_the_wait_is_read_from_headers_body_and_words() -> None:
    assert failing(429, openai_error(), {"retry-after": "7"}).retry_after_s == 7
    assert failing(429, openai_error("Please try again in 1.2s.")).retry_after_s == 1.2
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "12s"}]
    assert failing(429, [{"error": {"code": 429, "message": "quota", "details": details}}]).retry_after_s == 12


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "the reason"}},
        {"error": "the reason"},
        {"message": "the reason"},
        {"detail": "the reason"},
        {"detail": [{"loc": ["body"], "msg": "the reason"}]},
        {"type": "error", "error": {"type": "overloaded_error", "message": "the reason"}},
        b"the reason",
    ],
)
def test_the_provider_s_own_words_are_in_the_sentence(body: object) -> None:
    assert failing(500, body).message == "The provider answered 500: the reason"


def test_an_answer_without_words_is_said_to_be_so() -> None:
    assert failing(502, b"").message == "The provider answered 502 without a word."


def test_the_words_are_cut_to_500_characters_and_hold_no_control_characters() -> None:
    message = failing(400, openai_error("a\x00b\x1b[31m\ud800" + "c" * 5_000)).message
    assert len(message) <= 500 + len("The provider answered 400: ")
    assert message.isprintable()


@pytest.mark.parametrize("secret", ["sk-proj-abcdef123456", "sk-abc****wxyz", "Bearer abcdef", "AIzaSyABCDEFGHIJK"])
def test_what_looks_like_a_key_is_masked(secret: str) -> None:
    message = failing(401, openai_error(f"Incorrect API key provided: {secret}.")).message
    assert secret.removeprefix("Bearer ") not in message
    assert "***" in message


def test_the_provider_s_request_id_is_kept() -> None:
    assert failing(500, b"", {"x-request-id": "req_1"}).request_id == "req_1"


def test_a_call_without_a_reply_has_a_class_of_its_own() -> None:
    not_sent, unknown = failure_without_reply(NotSent("no route")), failure_without_reply(SentUnknown("cut"))
    large = failure_without_reply(AnswerTooLarge("20 MB"))
    assert (not_sent.error_class, not_sent.spent, not_sent.final) == (ErrorClass.NOT_SENT, False, False)
    assert (unknown.error_class, unknown.spent, unknown.final) == (ErrorClass.SENT_UNKNOWN, True, False)
    assert (large.error_class, large.spent, large.final) == (ErrorClass.FAILED, True, True)
    assert (large.code, large.message) == (Code.ANSWER_TOO_LARGE, "20 MB")
