"""What `results` writes."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

from broker.cli.formats import Format, blank_mark, custom_id, input_line, meaning, next_id, result_line
from broker.cli.lines import JobLine, Terms, read_line

NOW = datetime(2026, 12, 1, 8, tzinfo=UTC)
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


class Amount:
    """As the database's decimals behave."""

    def to_decimal(self) -> Decimal:
        """Give the exact amount."""
        return Decimal("0.0002076")


def document(job: dict[str, Any], **result: object) -> dict[str, Any]:
    """The document of a job that `submit` made, finished."""
    outcome = {
        "job_id": job["id"],
        "status": "succeeded",
        "output": {"id": "chatcmpl-1", "choices": []},
        "cost_usd": Amount(),
        "metadata": job.get("metadata"),
        "finished_at": NOW,
        **result,
    }
    return {
        "_id": f"acme/{job['id']}",
        "uid": "u1",
        "generation": 1,
        "job_id": job["id"],
        "batch_id": job.get("batch_id"),
        "state": outcome["status"],
        "payload": orjson.dumps(job),
        "result": outcome,
    }


def submitted(content: dict[str, Any], batch: str = "b1", number: int = 3) -> dict[str, Any]:
    line = read_line(number, orjson.dumps(content), Terms(batch, "acme", "2026-12-02T00:00:00Z"), NOW)
    assert isinstance(line, JobLine), line
    return line.job


OPENAI = {"custom_id": "request-1", "method": "POST", "url": "/v1/chat/completions", "body": BODY}


def test_a_result_is_written_as_on_the_wire() -> None:
    line = orjson.loads(result_line(document(submitted({"id": "inv-7", "body": BODY})), Format.AUTO))
    assert line["cost_usd"] == "0.0002076"
    assert line["finished_at"] == "2026-12-01T08:00:00.000Z"


def test_a_line_of_openais_comes_back_in_openais_batch_output() -> None:
    line = orjson.loads(result_line(document(submitted(OPENAI)), Format.AUTO))
    assert line.pop("id").startswith("batch_req_")
    assert line == {
        "custom_id": "request-1",
        "response": {"status_code": 200, "request_id": "chatcmpl-1", "body": {"id": "chatcmpl-1", "choices": []}},
        "error": None,
    }


def test_the_providers_own_request_id_is_told_where_it_is_known() -> None:
    found = {**document(submitted(OPENAI)), "row": {"request_id": "req-9"}}
    assert orjson.loads(result_line(found, Format.AUTO))["response"]["request_id"] == "req-9"


def test_a_failure_has_no_response_but_our_code_and_sentence() -> None:
    found = document(submitted(OPENAI), status="failed", code="provider_error", message="it failed", output=None)
    line = orjson.loads(result_line(found, Format.AUTO))
    assert line["response"] is None
    assert line["error"] == {"code": "provider_error", "message": "it failed"}


def test_an_answer_that_is_kept_as_text_is_written_as_the_json_that_it_is() -> None:
    found = document(submitted(OPENAI), output=None, output_text='{"a\\u0000b": 1}')
    assert orjson.loads(result_line(found, Format.AUTO))["response"]["body"] == {"a\0b": 1}


def test_the_format_can_be_chosen() -> None:
    found = document(submitted(OPENAI))
    assert "cost_usd" in orjson.loads(result_line(found, Format.RESULT))
    ours = document(submitted({"id": "inv-7", "body": BODY}))
    assert orjson.loads(result_line(ours, Format.OPENAI))["custom_id"] == "inv-7"


def test_metadata_that_only_looks_like_a_custom_id_is_none() -> None:
    assert custom_id(document(submitted({"id": "inv-7", "metadata": {"custom_id": "x"}, "body": BODY}))) is None


def test_a_line_of_openais_can_be_written_as_it_was() -> None:
    line = input_line(document(submitted(OPENAI)))
    assert line is not None
    assert orjson.loads(line) == OPENAI


def test_a_made_id_is_left_out_of_the_line_to_submit_again() -> None:
    line = input_line(document(submitted({"tags": {"team": "a"}, "body": BODY})))
    assert line is not None
    assert orjson.loads(line) == {"tenant": "acme", "tags": {"team": "a"}, "body": BODY}


def test_an_id_of_its_own_is_followed_by_the_next_one() -> None:
    line = input_line(document(submitted({"id": "inv-7", "body": BODY})))
    assert line is not None
    assert orjson.loads(line) == {"id": "inv-7~2", "tenant": "acme", "body": BODY}


def test_a_line_to_submit_again_leaves_the_old_batch() -> None:
    line = input_line(document(submitted({"id": "inv-7", "batch_id": "nightly", "body": BODY})))
    assert line is not None
    assert "batch_id" not in orjson.loads(line)


def test_next_ids_count_on_and_stay_within_the_limit() -> None:
    assert next_id("inv-7~2") == "inv-7~3"
    assert next_id("x" * 256) == "x" * 254 + "~2"


def test_what_kept_no_payload_cannot_be_written_again() -> None:
    found = document(submitted(OPENAI))
    del found["payload"]
    assert input_line(found) is None


def test_the_mark_of_a_batch_is_blank_and_its_own() -> None:
    assert blank_mark("b1").strip() == b""
    assert len({blank_mark(f"b{number}") for number in range(100)}) == 100


def test_an_unknown_code_has_no_sentence() -> None:
    assert meaning("of_a_later_version") == ""
    assert "deadline" in meaning("expired")
