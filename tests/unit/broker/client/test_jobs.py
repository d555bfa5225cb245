"""What becomes of a job between the user's hands and Kafka."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import pytest

from broker import Client
from broker.client.jobs import Form, JobLike, Prepared, Refused, prepare
from schemas.job import Job

NOW = datetime(2026, 12, 1, 8, tzinfo=UTC)
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
HERE = {"reply_to": "results.replies", "reply_partition": 3}


def prepared(job: JobLike, trace: str | None = None, **common: object) -> Prepared:
    form = Form("eu.jobs.normal", "urn:aibroker:eu", {"tenant": "acme", **common}, lambda: "made", trace)
    one = prepare(job, form, 0, NOW)
    assert isinstance(one, Prepared), one
    return one


def refused(job: JobLike) -> Refused:
    one = prepare(job, Form("t", "s", {"tenant": "acme"}, lambda: "made"), 7, NOW)
    assert isinstance(one, Refused)
    return one


def sent(one: Prepared) -> dict[str, Any]:
    assert one.record.value is not None
    message: dict[str, Any] = orjson.loads(one.record.value)
    return message


def test_a_job_without_id_and_tenant_gets_both() -> None:
    one = prepared({"body": BODY})
    assert sent(one) == {"body": BODY, "id": "made", "tenant": "acme"}
    assert (one.key, one.made_id) == ("acme/made", True)


def test_what_the_job_says_wins_over_what_all_have_in_common() -> None:
    one = prepared({"body": BODY, "id": "1", "tenant": "other", "batch_id": "mine"}, batch_id="all", max_attempts=2)
    assert sent(one) == {"body": BODY, "id": "1", "tenant": "other", "batch_id": "mine", "max_attempts": 2}
    assert (one.key, one.made_id) == ("other/1", False)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, HERE),
        ({"reply_to": "results"}, {"reply_to": "results"}),
        ({"reply_partition": 5}, {"reply_partition": 5}),
        ({"reply_to": "results.x", "reply_partition": 5}, {"reply_to": "results.x", "reply_partition": 5}),
    ],
)
def test_a_reply_address_is_the_jobs_or_the_clients_never_a_half_of_each(
    given: dict[str, Any], expected: dict[str, Any]
) -> None:
    message = sent(prepared({"body": BODY, **given}, **HERE))
    assert {name: value for name, value in message.items() if name.startswith("reply")} == expected


def test_the_headers_are_those_of_a_cloudevent_in_binary_mode() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    one = prepared({"body": BODY, "id": "a/b"}, trace)
    assert dict(one.record.headers) == {
        "ce_specversion": b"1.0",
        "ce_type": b"aibroker.job.v1",
        "ce_source": b"urn:aibroker:eu",
        "ce_id": b"a/b",
        "ce_subject": b"acme/a/b",
        "content-type": b"application/json",
        "traceparent": trace.encode(),
    }


def test_a_trace_that_is_none_is_not_passed_on() -> None:
    assert "traceparent" not in dict(prepared({"body": BODY}, "nonsense").record.headers)


def test_a_line_a_mapping_and_a_model_make_the_same_record() -> None:
    fields = {"body": BODY, "id": "1", "deadline": "2026-12-01T09:00:00Z", "max_cost_usd": "0.25"}
    lines = [prepared(orjson.dumps(fields)), prepared(orjson.dumps(fields).decode()), prepared(fields)]
    model = sent(prepared(Job.model_validate(fields)))
    assert [sent(line) for line in lines] == [{**fields, "tenant": "acme"}] * 3
    assert datetime.fromisoformat(model.pop("deadline")) == datetime(2026, 12, 1, 9, tzinfo=UTC)
    assert Decimal(model.pop("max_cost_usd")) == Decimal("0.25")
    assert model == {"body": BODY, "id": "1", "tenant": "acme"}


def test_ids_are_uuids_and_differ_within_a_client_and_between_clients() -> None:
    one, other = Client(), Client()
    ids = {client._new_id() for client in (one, other) for _ in range(1_000)}
    assert len(ids) == 2_000
    assert all(str(UUID(made)) == made and UUID(made).version == 4 for made in ids)


def test_what_the_user_handed_over_is_not_changed() -> None:
    job = {"body": BODY}
    prepared(job, **HERE)
    assert job == {"body": BODY}


@pytest.mark.parametrize(
    ("job", "code"),
    [
        (b"{", "undecodable"),
        (b"[]", "undecodable"),
        ({"body": {1, 2}}, "undecodable"),
        ({"body": BODY, "dedline": "2030-01-01T00:00:00Z"}, "unknown_field"),
        ({"body": BODY, "deadline": "2020-01-01T00:00:00Z"}, "deadline_in_past"),
        ({"body": BODY, "operation": "images"}, "not_supported_yet"),
        ({"body": {**BODY, "background": True}}, "background_refused"),
        ({"body": {**BODY, "user": "x" * 1_000_000}}, "too_large"),
        ({"body": {"model": "m", "messages": []}}, "invalid_job"),
        ({"body": BODY, "max_cost_usd": 0.5}, "invalid_job"),
    ],
)
def test_a_wrong_job_is_refused_with_the_code_of_its_result(job: JobLike, code: str) -> None:
    one = refused(job)
    assert one.code == code
    assert one.position == 7
    assert len(one.message.split()) > 2
    assert one.error().code == code


def test_a_refused_job_keeps_its_own_id_and_gets_none() -> None:
    assert refused({"body": BODY, "id": "mine", "nope": 1}).id == "mine"
    assert refused({"body": BODY, "nope": 1}).id is None
