"""From a record to a job and from a result to a record: nothing that anybody sends raises, and everything has its code."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest
from bson import Decimal128
from hypothesis import given
from hypothesis import strategies as st

from broker.codec import Decoded, NotAJob, Parsed, Place, Refusal, check, decode, digest, made_id, parse, storable
from broker.outgoing import dead_headers, encode, encode_result, result_headers, usage_event, usage_headers
from schemas.codes import Code
from schemas.job import MAX_RECORD_BYTES, Job
from schemas.result import MAX_RESULT_BYTES

pytestmark = pytest.mark.timeout(120)  # what every test has; who says so begins before short ones

NOW = datetime(2026, 12, 1, 8, 0, 0, 123_000, UTC)
MOST_READINGS = 60
PLACE = Place("cluster", "jobs.normal", 3, 42, NOW)
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELD_NAMES = st.sampled_from([*Job.model_fields, "dedline", "specversion", "type", "data"])
ENVELOPES = st.dictionaries(FIELD_NAMES, JSON | st.just(BODY), max_size=6) | st.fixed_dictionaries(
    {"body": st.just(BODY)},
    optional={
        "metadata": JSON,
        "id": st.text(max_size=3),
        "max_attempts": st.integers(0, 25),
        "tenant": st.just("acme"),
    },
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["ce_type", "ce_id", "ce_time", "content-type", "traceparent", "tracestate", "x"]),
        st.one_of(
            st.none(),
            st.binary(max_size=40),
            st.sampled_from([b"application/cloudevents+json", b"aibroker.job.v1", b"aibroker.job.v2", TRACE.encode()]),
        ),
    ),
    max_size=5,
)


def record(**fields: Any) -> bytes:  # noqa: ANN401 any JSON value
    return json.dumps({"body": BODY, **fields}).encode()


def job(value: bytes, headers: Any = (), place: Place = PLACE) -> Decoded:  # noqa: ANN401 headers of any kind
    found = decode(value, headers, place)
    assert isinstance(found, Decoded), found
    return found


def refused(value: bytes) -> Refusal:
    refusal = job(value).parsed.refusal
    assert refusal is not None
    return refusal


def not_a_job(value: bytes | None, headers: Any = ()) -> NotAJob:  # noqa: ANN401 headers of any kind
    found = decode(value, headers, PLACE)
    assert isinstance(found, NotAJob), found
    return found


def levels(count: int) -> bytes:
    """A record of so many levels."""
    inner = count - 2
    return b'{"body": {"model": "m", "messages": [1], "x": ' + b"[" * inner + b"]" * inner + b"}}"


@given(value=st.one_of(st.binary(max_size=200), ENVELOPES.map(lambda e: json.dumps(e).encode())), headers=HEADERS)
def test_whatever_comes_is_a_job_or_is_not(value: bytes, headers: list[tuple[str, bytes]]) -> None:
    found = decode(value, headers, PLACE)
    if isinstance(found, NotAJob):
        assert found.code in Code
        dead_headers(headers, found, PLACE, NOW)
        return
    again = parse(found.payload, PLACE.timestamp)
    assert again == found.parsed
    assert (again.job is None) != (again.refusal is None)
    assert 1 <= len(found.job_id) <= 256
    assert found.key == f"{found.tenant}/{found.job_id}"
    assert orjson.loads(orjson.dumps(again.metadata)) == again.metadata


@given(ENVELOPES)
def test_what_the_client_checks_is_what_the_worker_would_say(envelope: dict[str, Any]) -> None:
    checked = check(envelope, NOW)
    if isinstance(checked, Job):
        value = orjson.dumps(envelope)
        assert job(value).parsed.job == checked


@given(st.dictionaries(st.text(), st.integers(-(2**63), 2**63 - 1) | st.text(), max_size=5), st.randoms())
def test_a_digest_does_not_depend_on_the_order_of_names(body: dict[str, Any], chance: Any) -> None:  # noqa: ANN401 a Random
    shuffled = list(body.items())
    chance.shuffle(shuffled)
    assert digest({"body": body}) == digest({"body": dict(shuffled)})


def test_a_digest_is_that_of_operation_and_body_only() -> None:
    assert digest({"body": BODY}) == digest({"body": BODY, "operation": "chat", "id": "x", "metadata": 1})
    assert digest({"body": BODY}) != digest({"body": BODY, "operation": "responses"})
    assert digest({"body": BODY}) != digest({"body": {**BODY, "n": 2}})


def test_the_smallest_job_needs_no_headers() -> None:
    found = job(record())
    assert (found.tenant, found.job_id) == ("default", made_id(PLACE))
    assert (found.reply_topic, found.reply_partition, found.trace) == ("results", None, None)
    assert found.parsed.job is not None
    assert found.parsed.job.body == BODY
    assert found.payload == record()


@pytest.mark.parametrize("change", [{"offset": 43}, {"partition": 4}, {"topic": "jobs.batch"}, {"cluster": "other"}])
def test_a_made_id_is_that_of_the_place(change: dict[str, Any]) -> None:
    place = {"cluster": "cluster", "topic": "jobs.normal", "partition": 3, "offset": 42, "timestamp": NOW}
    assert job(record()).job_id == job(record(), place=Place(**place)).job_id
    assert job(record()).job_id != job(record(), place=Place(**{**place, **change})).job_id


def test_an_id_of_the_job_goes_before_that_of_the_event() -> None:
    headers = [("ce_id", b"of-the-event")]
    assert job(record(id="of-the-job"), headers).job_id == "of-the-job"
    assert job(record(), headers).job_id == "of-the-event"
    assert job(record(), [("ce_id", b"")]).job_id == made_id(PLACE)


def test_a_structured_event_is_opened() -> None:
    event = {"specversion": "1.0", "type": "aibroker.job.v1", "source": "/x", "id": "e-1", "data": {"body": BODY}}
    found = job(json.dumps(event).encode(), [("content-type", b"application/cloudevents+json; charset=UTF-8")])
    assert found.job_id == "e-1"
    assert orjson.loads(found.payload) == {"body": BODY}
    assert found.digest == digest({"body": BODY})


@pytest.mark.parametrize(
    ("value", "headers", "code"),
    [
        (None, (), Code.UNDECODABLE),
        (b"", (), Code.UNDECODABLE),
        (b"[]", (), Code.UNDECODABLE),
        (b'"x"', (), Code.UNDECODABLE),
        (b"{", (), Code.UNDECODABLE),
        (b'{"body": NaN}', (), Code.UNDECODABLE),
        (b'{"body": "\\ud800"}', (), Code.UNDECODABLE),
        (b"\xff", (), Code.UNDECODABLE),
        (levels(201), (), Code.UNDECODABLE),
        (record().ljust(MAX_RECORD_BYTES + 1), (), Code.TOO_LARGE),
        (record(), [("ce_type", b"aibroker.job.v2")], Code.UNKNOWN_VERSION),
        (record(), [("ce_type", b"\xff")], Code.UNKNOWN_VERSION),
        (record(), [("content-type", b"application/cloudevents-batch+json")], Code.UNDECODABLE),
        (record(), [("content-type", b"application/cloudevents+json")], Code.UNDECODABLE),
        (record(tenant="a/b"), (), Code.INVALID_TENANT),
        (record(tenant="acme\n"), (), Code.INVALID_TENANT),
        (record(tenant=None), (), Code.INVALID_TENANT),
        (record(id="a\n"), (), Code.INVALID_ID),
        (record(id=""), (), Code.INVALID_ID),
        (record(id=["a"]), (), Code.INVALID_ID),
        (record(), [("ce_id", b"\xc3\xa9")], Code.INVALID_ID),
    ],
)
def test_what_is_no_job_has_a_code(value: bytes | None, headers: Any, code: Code) -> None:  # noqa: ANN401 headers of any kind
    assert not_a_job(value, headers).code == code


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"dedline": "x"}, Code.UNKNOWN_FIELD, "dedline: did you mean deadline?"),
        ({"colour": "red"}, Code.UNKNOWN_FIELD, "colour: known are body, id, "),
        ({"body": None}, Code.INVALID_JOB, "body: Input should be a valid dictionary"),
        ({"body": {}}, Code.INVALID_JOB, "body.model: name the model"),
        ({"body": {"model": "m"}}, Code.INVALID_JOB, "body.messages: must be a list with at least one message"),
        ({"body": {"model": "m"}, "operation": "embeddings"}, Code.INVALID_JOB, "body.input: must hold a text"),
        ({"operation": "paint"}, Code.INVALID_JOB, "operation: must be one of chat, embeddings"),
        ({"operation": "images"}, Code.NOT_SUPPORTED_YET, "operation: images is not supported yet; chat, "),
        ({"deadline": "2026-12-01T07:00:00Z"}, Code.DEADLINE_IN_PAST, "deadline: "),
        ({"deadline": "tomorrow"}, Code.INVALID_JOB, "deadline: must be an RFC 3339 time"),
        ({"deadline": "9999-12-31T23:59:59-23:59"}, Code.INVALID_JOB, "deadline: must be an instant of the years"),
        ({"deadline": "0001-01-01T00:00:00+23:59"}, Code.INVALID_JOB, "deadline: must be an instant of the years"),
        (
            {"deadline": "2027-01-01T00:00:00Z", "not_before": "2027-01-01T00:00:00Z"},
            Code.INVALID_JOB,
            "not_before: must be before the deadline",
        ),
        ({"reply_to": "jobs.normal"}, Code.INVALID_JOB, "reply_to: String should match pattern"),
        ({"reply_partition": -1}, Code.INVALID_JOB, "reply_partition: Input should be greater than or equal to 0"),
        ({"max_cost_usd": 0.25}, Code.INVALID_JOB, "max_cost_usd: must be a string with a decimal number"),
        ({"metadata": "x" * 4_095}, Code.INVALID_JOB, "metadata: has more than 4,096 bytes"),
        ({"metadata": {"a\0b": 1}}, Code.INVALID_JOB, "metadata: integers must fit 64 bits, names must not hold"),
        ({"metadata": 2**63}, Code.INVALID_JOB, "metadata: integers must fit 64 bits"),
        ({"tags": {f"t{number}": "x" for number in range(17)}}, Code.INVALID_JOB, "tags: at most 16 tags are allowed"),
        ({"body": {**BODY, "background": True}}, Code.BACKGROUND_REFUSED, "body.background: "),
        ({"body": {**BODY, "seed": 10**30}}, Code.NUMBER_OUT_OF_RANGE, "body or metadata: "),
        ({"body": {**BODY, "seed": -(10**30)}}, Code.NUMBER_OUT_OF_RANGE, "body or metadata: "),
        ({"metadata": 10**30}, Code.NUMBER_OUT_OF_RANGE, "body or metadata: "),
    ],
)
def test_a_job_that_cannot_run_says_why(fields: dict[str, Any], code: Code, message: str) -> None:
    refusal = refused(record(**fields))
    assert (refusal.code, refusal.message[: len(message)]) == (code, message)


@pytest.mark.parametrize(
    "body",
    [
        {**BODY, "seed": 2**63 - 1},
        {**BODY, "temperature": 1e30},
        {**BODY, "user": "1234567890123456789012345"},
        {**BODY, "background": False},
        {**BODY, "messages": [{"role": "user", "content": "a\0b"}]},
    ],
)
def test_what_only_looks_wrong_is_a_job(body: dict[str, Any]) -> None:
    parsed = job(record(body=body)).parsed
    assert parsed.job is not None
    assert parsed.job.body == body


def test_a_record_may_have_as_many_bytes_and_levels_as_it_says() -> None:
    assert job(record().ljust(MAX_RECORD_BYTES)).parsed.job is not None
    assert job(levels(200)).parsed.job is not None


def test_a_refused_job_keeps_what_its_producer_knows_it_by() -> None:
    value = record(dedline="x", metadata={"row": 7}, batch_id="b", reply_to="results.mine", reply_partition=4)
    found = job(value)
    assert found.parsed == Parsed(None, found.parsed.refusal, "chat", {"row": 7}, "b", {})
    assert (found.reply_topic, found.reply_partition) == ("results.mine", 4)


@pytest.mark.parametrize("metadata", ["x" * 5_000, {"a\0b": 1}, 2**64 - 1])
def test_a_refused_job_echoes_no_metadata_that_could_not_be_stored(metadata: object) -> None:
    assert job(record(dedline="x", metadata=metadata)).parsed.metadata is None


@pytest.mark.parametrize(
    ("fields", "reply"),
    [
        ({"reply_to": 7}, ("results", None)),
        ({"reply_to": "jobs.normal", "reply_partition": 1}, ("results", None)),
        ({"reply_to": "results.x", "reply_partition": "1"}, ("results.x", None)),
        ({"reply_to": "results.x", "reply_partition": True}, ("results.x", None)),
        ({"reply_to": "results.x", "reply_partition": 2**31}, ("results.x", None)),
        ({"reply_partition": 5}, ("results", 5)),
    ],
)
def test_a_reply_address_that_is_none_is_answered_on_results(
    fields: dict[str, Any], reply: tuple[str, int | None]
) -> None:
    found = job(record(**fields))
    assert (found.reply_topic, found.reply_partition) == reply


@pytest.mark.parametrize("trace", [b"", b"00-zz-\xff", TRACE.encode() + b"x" * 2_000_000, TRACE.upper().encode(), None])
def test_a_trace_that_cannot_be_read_is_none(trace: bytes | None) -> None:
    assert job(record(), [("traceparent", trace)]).trace is None


def test_a_trace_is_kept() -> None:
    assert job(record(), [("traceparent", TRACE.encode())]).trace == TRACE
    assert job(record(), [("tracestate", b"a=b"), ("traceparent", TRACE.encode())]).trace == f"{TRACE} a=b"


@pytest.mark.parametrize(
    "fields",
    [
        {f"f{number}": 1 for number in range(75_000)},
        {"x" * 900_000: 1},
        {"tags": {f"t {number}": 1 for number in range(70_000)}},
        {"metadata": [[1] * 3] * 80_000},
        {"operation": ["x"] * 150_000},
        {"body": {**BODY, "x": [1234567890123456789] * 45_000}},
        {"body": {**BODY, "x": " " * 900_000}},
    ],
    ids=["fields", "a long field", "tags", "metadata", "operation", "long numbers", "blanks"],
)
def test_no_record_stops_the_loop_for_long(fields: dict[str, Any]) -> None:
    value = record(**fields)
    assert 600_000 < len(value) <= MAX_RECORD_BYTES
    ours = least_cpu_s(lambda: decode(value, (), PLACE))
    # What another reader needs for the same bytes, in the same minute: the machine may be slow, and what was quadratic took a hundred times as long.
    assert ours < MOST_READINGS * least_cpu_s(lambda: json.loads(value))


def least_cpu_s(work: Callable[[], object]) -> float:
    """The CPU seconds of the fastest of three runs."""
    times = []
    for _ in range(3):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ({"body": {"x": float("nan")}}, Code.UNDECODABLE),
        ({"body": {"x": [1.0, float("inf")]}}, Code.UNDECODABLE),
        ({"body": {"x": "\ud800"}}, Code.UNDECODABLE),
        ({"body": {"x": object()}}, Code.UNDECODABLE),
        ({"body": {"x": 2**64}}, Code.UNDECODABLE),
        ({"body": {1: "x"}}, Code.UNDECODABLE),
        ({"body": {"x": "x" * MAX_RECORD_BYTES}}, Code.TOO_LARGE),
        ({"body": json.loads(levels(210))}, Code.UNDECODABLE),
        ({"body": BODY, "dedline": "x"}, Code.UNKNOWN_FIELD),
        ({"body": BODY, "deadline": NOW - timedelta(seconds=1)}, Code.DEADLINE_IN_PAST),
        ({}, Code.INVALID_JOB),
    ],
)
def test_the_client_refuses_what_it_can_see_is_wrong(raw: dict[str, Any], code: Code) -> None:
    refusal = check(raw, NOW)
    assert isinstance(refusal, Refusal)
    assert refusal.code == code


def test_the_client_passes_what_is_right() -> None:
    checked = check({"body": {**BODY, "stop": None}, "deadline": NOW + timedelta(seconds=1)}, NOW)
    assert isinstance(checked, Job)
    assert checked.deadline == NOW + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("value", "depth", "fits"),
    [
        (None, 1, True),
        ({"a": 1}, 2, True),
        ({"a": 1}, 1, False),
        ([[[]]], 3, True),
        ([[[1]]], 3, False),
        (2**63 - 1, 1, True),
        (2**63, 1, False),
        (-(2**63), 1, True),
        ({"a\0": 1}, 5, False),
        ({"a": "\0"}, 5, True),
    ],
)
def test_what_a_document_can_hold(value: object, depth: int, fits: bool) -> None:
    assert storable(value, depth) is fits


RESULT = {
    "job_id": "inv 7/1",
    "tenant": "acme",
    "generation": 2,
    "status": "succeeded",
    "cost_usd": Decimal128(Decimal("2.076E-4")),
    "finished_at": NOW,
}


def test_a_result_is_json_with_plain_amounts_and_instants_in_z() -> None:
    assert orjson.loads(encode_result(RESULT)) == {
        **RESULT,
        "cost_usd": "0.0002076",
        "finished_at": "2026-12-01T08:00:00.123Z",
    }


def test_a_result_that_is_too_large_is_told_without_its_output() -> None:
    large = {**RESULT, "output": {"x": "y" * MAX_RESULT_BYTES}}
    told = orjson.loads(encode_result(large))
    assert told["output_in"] == "jobs"
    assert "output" not in told
    assert orjson.loads(encode_result({**RESULT, "output_text": "y" * MAX_RESULT_BYTES}))["output_in"] == "jobs"
    assert "output_in" not in orjson.loads(encode_result({**RESULT, "output": {"x": "y"}}))


def test_what_the_encoder_does_not_know_is_an_error_that_names_it() -> None:
    with pytest.raises(TypeError, match="not JSON serializable: object"):
        encode({"x": object()})


def test_a_result_that_is_sent_again_has_the_same_headers() -> None:
    headers = result_headers(RESULT, "acme/inv 7/1", "urn:aibroker:eu", TRACE)
    assert headers == [
        ("ce_specversion", b"1.0"),
        ("ce_type", b"aibroker.result.v1"),
        ("ce_source", b"urn:aibroker:eu"),
        ("ce_id", b"acme/inv 7/1/2"),
        ("ce_subject", b"acme/inv 7/1"),
        ("ce_time", b"2026-12-01T08:00:00.123Z"),
        ("content-type", b"application/json"),
        ("traceparent", TRACE.encode()),
    ]
    assert "traceparent" not in dict(result_headers(RESULT, "acme/x", "urn:aibroker:eu", None))


def test_a_usage_event_is_the_row_under_its_id() -> None:
    row = {"_id": "u/1/2.1", "tenant": "acme", "job_id": "x", "recorded_at": NOW, "cost_usd": Decimal128("0.10")}
    assert orjson.loads(usage_event(row)) == {
        "id": "u/1/2.1",
        "tenant": "acme",
        "job_id": "x",
        "recorded_at": "2026-12-01T08:00:00.123Z",
        "cost_usd": "0.1",
    }
    headers = dict(usage_headers(row, "urn:aibroker:eu", None))
    assert (headers["ce_type"], headers["ce_id"], headers["ce_subject"]) == (
        b"aibroker.usage.v1",
        b"u/1/2.1",
        b"acme/x",
    )


def test_a_dead_letter_keeps_its_headers_and_says_why_and_where() -> None:
    headers: Any = [("x", b"\xff"), ("y", None), ("aibroker-reason", b"an older one"), ("x", b"twice")]
    dead = dead_headers(headers, NotAJob(Code.INVALID_ID, "größe"), PLACE, NOW)
    assert dead == [
        ("x", b"\xff"),
        ("y", None),
        ("x", b"twice"),
        ("aibroker-reason", b"invalid_id"),
        ("aibroker-message", "größe".encode()),
        ("aibroker-topic", b"jobs.normal"),
        ("aibroker-partition", b"3"),
        ("aibroker-offset", b"42"),
        ("aibroker-at", b"2026-12-01T08:00:00.123Z"),
    ]
