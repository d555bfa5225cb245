"""From a line of a file to a job."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from broker.cli.lines import JobLine, RefusedLine, Terms, read_line

NOW = datetime(2026, 12, 1, 8, tzinfo=UTC)
TERMS = Terms(batch="b1", tenant="acme")
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def read(content: object, terms: Terms = TERMS, number: int = 7) -> JobLine | RefusedLine:
    line = content if isinstance(content, bytes) else orjson.dumps(content)
    return read_line(number, line, terms, NOW)


def sent(content: object, terms: Terms = TERMS) -> JobLine:
    line = read(content, terms)
    assert isinstance(line, JobLine), line
    return line


def refused(content: object) -> RefusedLine:
    line = read(content)
    assert isinstance(line, RefusedLine), line
    return line


def openai(**changes: object) -> dict[str, Any]:
    return {"custom_id": "request-1", "method": "POST", "url": "/v1/chat/completions", "body": CHAT, **changes}


def test_a_job_line_without_an_id_is_named_by_batch_and_line_number() -> None:
    line = sent({"body": CHAT})
    assert (line.number, line.tenant, line.job_id, line.batch_id) == (7, "acme", "b1/7", "b1")
    assert line.job == {"body": CHAT, "tenant": "acme", "id": "b1/7", "batch_id": "b1"}


def test_what_a_job_line_says_itself_wins() -> None:
    terms = Terms(batch="b1", tenant="acme", deadline="2026-12-02T00:00:00.000Z")
    said = {"id": "inv-7", "tenant": "globex", "batch_id": "nightly", "deadline": "2026-12-03T00:00:00Z", "body": CHAT}
    assert sent(said, terms).job == said


def test_a_batch_id_of_null_is_none_said() -> None:
    assert sent({"batch_id": None, "body": CHAT}).job_id == "b1/7"


def test_a_line_of_openais_becomes_a_job_of_the_batch() -> None:
    terms = Terms(batch="b1", tenant="acme", deadline="2026-12-02T00:00:00.000Z")
    assert sent(openai(), terms).job == {
        "id": "b1/request-1",
        "tenant": "acme",
        "operation": "chat",
        "batch_id": "b1",
        "metadata": {"custom_id": "request-1"},
        "body": CHAT,
        "deadline": "2026-12-02T00:00:00.000Z",
    }


@pytest.mark.parametrize(
    ("url", "operation", "body"),
    [
        ("/v1/chat/completions", "chat", CHAT),
        ("/v1/embeddings", "embeddings", {"model": "m", "input": "hi"}),
        ("/v1/responses", "responses", {"model": "m", "input": "hi"}),
        ("/v1/moderations", "moderations", {"model": "m", "input": "hi"}),
    ],
)
def test_the_url_of_a_line_of_openais_names_the_operation(url: str, operation: str, body: dict[str, Any]) -> None:
    assert sent(openai(url=url, body=body)).job["operation"] == operation


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"{", "undecodable", "not JSON"),
        (b"[]", "undecodable", "not a JSON object"),
        (b'{"body": {"model": "m", "x": NaN}}', "undecodable", "not JSON"),
        (b'{"body": {"model": "m", "messages": [1], "seed": 1%s}}' % (b"0" * 30), "number_out_of_range", "64 bits"),
        ({"dedline": "x", "body": CHAT}, "unknown_field", "did you mean deadline?"),
        ({"id": "é", "body": CHAT}, "invalid_id", "printable ASCII"),
        ({"tenant": "a/b", "body": CHAT}, "invalid_tenant", "tenant"),
        ({"deadline": "2026-11-01T00:00:00Z", "body": CHAT}, "deadline_in_past", "deadline"),
        ({"body": {**CHAT, "text": "x" * 1_000_000}}, "too_large", "1,000,000"),
        (openai(custom_id=7), "invalid_id", "custom_id"),
        (openai(custom_id="x" * 300), "invalid_id", "printable ASCII"),
        (openai(method="GET"), "unsupported_operation", "POST"),
        (openai(url="/v1/completions"), "unsupported_operation", "/v1/embeddings"),
        (openai(body="hi"), "invalid_job", "body"),
        (openai(body={"model": "m", "messages": []}), "invalid_job", "messages"),
        (openai(priority="high"), "unknown_field", "priority"),
    ],
)
def test_a_line_that_cannot_be_sent_is_refused_with_code_and_sentence(content: object, code: str, words: str) -> None:
    line = refused(content)
    assert (line.number, line.code) == (7, code)
    assert words in line.message


def test_an_integer_of_64_bits_and_a_long_fraction_pass() -> None:
    assert sent(b'{"body": {"model": "m", "messages": [1], "seed": 9223372036854775807}}')
    assert sent(b'{"body": {"model": "m", "messages": [1], "top_p": 0.1234567890123456789012}}')


def test_a_refused_line_is_listed_with_stable_keys() -> None:
    assert refused(b"{").shown().keys() == {"line", "code", "message"}
