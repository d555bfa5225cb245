"""From a record's bytes to a job: every decision about what is a job is made here, purely; the other way is `outgoing.py`.

What cannot be read, or names no valid id or tenant, is `NotAJob` and goes to `jobs.dead`. A job that can be read but not run carries a
`Refusal`, which becomes its `rejected` result. CloudEvents 1.0 is read in binary and in structured mode.
"""

import hashlib
import math
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any, NamedTuple

import orjson
from pydantic import ValidationError

from broker.json_values import DEPTH, floats, has_long_number, storable, too_deep
from broker.trace_context import trace_of
from schemas.codes import MEANING, Code
from schemas.job import JOB_TYPE, MAX_METADATA_BYTES, MAX_RECORD_BYTES, NOT_SUPPORTED_YET, Job, Operation

Headers = Sequence[tuple[str, bytes]]
"""Kafka headers."""

NAMESPACE = uuid.UUID("5c1a0d43-5f0f-5d3e-9d55-1a1b0a6f6d5e")
"""The UUIDv5 namespace of ids that are made of a record's place."""

_ID = re.compile(r"[\x20-\x7e]{1,256}")
_TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_REPLY = re.compile(r"results(\.[a-zA-Z0-9._-]{1,100})?")
_ZEROS = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else byte for byte in range(256))
_LONG_NUMBER = b"0" * 19  # of a text whose digits are all zeros: half the time of a regular expression
_METADATA_DEPTH = 50
_JOB_FIELDS = tuple(Job.model_fields)
_KNOWN = frozenset(_JOB_FIELDS)


class Place(NamedTuple):
    """Where a record stood: the timestamp is the broker's or the producer's, in UTC."""

    cluster: str
    topic: str
    partition: int
    offset: int
    timestamp: datetime


@dataclass(slots=True, frozen=True)
class NotAJob:
    """A record that is kept in `jobs.dead` as it is."""

    code: Code
    message: str


@dataclass(slots=True, frozen=True)
class Refusal:
    """Why a job that can be read cannot run."""

    code: Code
    message: str


class Parsed(NamedTuple):
    """What a payload says: the job, or why it cannot run and as much of its envelope as can be read."""

    job: Job | None
    refusal: Refusal | None
    operation: str
    metadata: Any
    batch_id: str | None
    tags: Mapping[str, str]


class Decoded(NamedTuple):
    """A record that is a job: who it is, and what its payload says."""

    tenant: str
    job_id: str
    payload: bytes
    digest: bytes
    reply_topic: str
    reply_partition: int | None
    trace: str | None
    parsed: Parsed

    @property
    def key(self) -> str:
        """`<tenant>/<job id>`."""
        return f"{self.tenant}/{self.job_id}"


def decode(value: bytes | None, headers: Headers, place: Place) -> Decoded | NotAJob:
    """Say what a record is."""
    if value is None:
        return NotAJob(Code.UNDECODABLE, "the record has no value; send one JSON object a record")
    if len(value) > MAX_RECORD_BYTES:
        return NotAJob(Code.TOO_LARGE, f"the record has {len(value):,} bytes; {MAX_RECORD_BYTES:,} are allowed")
    named = {name: content for name, content in headers if content is not None} if headers else {}
    opened = _open(value, named)
    if isinstance(opened, NotAJob):
        return opened
    raw, payload, event_id, kind = opened
    if kind != JOB_TYPE:
        return NotAJob(Code.UNKNOWN_VERSION, f"ce_type is {kind[:80]!r}; {MEANING[Code.UNKNOWN_VERSION]}")
    who = _identity(raw, event_id, place)
    if isinstance(who, NotAJob):
        return who
    reply_topic, reply_partition = _reply(raw)
    trace = trace_of(named) if named else None
    parsed = _parse(raw, payload, place.timestamp)
    return Decoded(*who, payload, digest(raw), reply_topic, reply_partition, trace, parsed)


def parse(payload: bytes, arrived_at: datetime) -> Parsed:
    """Say what a stored payload says; the same as when it was decoded first."""
    raw = orjson.loads(payload)
    return _parse(raw if isinstance(raw, dict) else {}, payload, arrived_at)


def digest(raw: Mapping[str, Any]) -> bytes:
    """SHA-256 over operation and canonical body: what makes two jobs with one id the same job."""
    body = orjson.dumps(raw.get("body"), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(b"%s\n%s" % (str(raw.get("operation", Operation.CHAT)).encode(), body)).digest()


def check(raw: Mapping[str, Any], now: datetime) -> Job | Refusal:
    """Say of a job that is about to be sent what the worker would say of it, as far as that can be seen from here."""
    payload = written(raw)
    return payload if isinstance(payload, Refusal) else check_written(raw, payload, now)


def written(raw: Mapping[str, Any]) -> bytes | Refusal:
    """Write a job as JSON, refusing what JSON does not have; what has been read from JSON needs no more than `orjson.dumps`."""
    try:
        payload = orjson.dumps(raw)
    except (TypeError, ValueError) as error:
        return Refusal(Code.UNDECODABLE, f"the job cannot be written as JSON: {error}")
    if len(payload) <= MAX_RECORD_BYTES and b"null" in payload and not all(map(math.isfinite, floats(raw))):
        return Refusal(Code.UNDECODABLE, "the job holds NaN or an infinity, which are no JSON; leave them out")
    return payload


def check_written(raw: Mapping[str, Any], payload: bytes, now: datetime) -> Job | Refusal:
    """Do what `check` does with a job that is written already."""
    if len(payload) > MAX_RECORD_BYTES:
        return Refusal(Code.TOO_LARGE, f"the job has {len(payload):,} bytes; {MAX_RECORD_BYTES:,} are allowed")
    if too_deep(raw, payload):
        return Refusal(Code.UNDECODABLE, f"the job is nested deeper than {DEPTH} levels; flatten it")
    return _judge(raw, payload, now)


def _open(value: bytes, named: Mapping[str, bytes]) -> tuple[dict[str, Any], bytes, str | None, str] | NotAJob:
    """Return the job's object and bytes, the event's id and the event's type, out of binary or structured mode."""
    try:
        raw = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        return NotAJob(Code.UNDECODABLE, f"the record is not JSON: {error}; {MEANING[Code.UNDECODABLE]}")
    if not isinstance(raw, dict):
        return NotAJob(Code.UNDECODABLE, f"the record is a JSON {_kind(raw)}; {MEANING[Code.UNDECODABLE]}")
    if too_deep(raw, value):
        return NotAJob(Code.UNDECODABLE, f"the record is nested deeper than {DEPTH} levels; flatten it")
    content = named.get("content-type", b"")
    if not content.startswith(b"application/cloudevents"):
        event_id = named.get("ce_id")
        return raw, value, _text(event_id) if event_id else None, _text(named.get("ce_type", b"")) or JOB_TYPE
    data = raw.get("data")
    if content.startswith(b"application/cloudevents-batch") or not isinstance(data, dict):
        return NotAJob(
            Code.UNDECODABLE, "a structured CloudEvent must be one event whose data is the job's JSON object"
        )
    event_id = raw.get("id")
    return data, orjson.dumps(data), event_id if isinstance(event_id, str) else None, str(raw.get("type", JOB_TYPE))


def _identity(raw: Mapping[str, Any], event_id: str | None, place: Place) -> tuple[str, str] | NotAJob:
    tenant = raw.get("tenant", "default")
    if not isinstance(tenant, str) or not _TENANT.fullmatch(tenant):
        return NotAJob(Code.INVALID_TENANT, MEANING[Code.INVALID_TENANT])
    job_id = raw.get("id")
    if job_id is None:
        job_id = event_id or made_id(place)
    if not isinstance(job_id, str) or not _ID.fullmatch(job_id):
        return NotAJob(Code.INVALID_ID, MEANING[Code.INVALID_ID])
    return tenant, job_id


def made_id(place: Place) -> str:
    """The id of a job that has none: the same again when its record is read again."""
    milliseconds = int(place.timestamp.timestamp() * 1000)
    return str(uuid.uuid5(NAMESPACE, f"{place.cluster}/{place.topic}/{place.partition}/{place.offset}/{milliseconds}"))


def _reply(raw: Mapping[str, Any]) -> tuple[str, int | None]:
    """Where a result can go, even if the rest of the job is wrong."""
    topic, partition = raw.get("reply_to", "results"), raw.get("reply_partition")
    if not isinstance(topic, str) or not _REPLY.fullmatch(topic):
        return "results", None
    good = isinstance(partition, int) and not isinstance(partition, bool) and 0 <= partition < 2**31
    return topic, partition if good else None


def _parse(raw: Mapping[str, Any], payload: bytes, arrived_at: datetime) -> Parsed:
    job = _judge(raw, payload, arrived_at)
    if isinstance(job, Refusal):
        return _refused(raw, job)
    return Parsed(job, None, job.operation.value, job.metadata, job.batch_id, job.tags)


def _judge(raw: Mapping[str, Any], payload: bytes, arrived_at: datetime) -> Job | Refusal:
    if not raw.keys() <= _KNOWN:  # looked for here, because pydantic would describe each of 100,000
        return _unknown(next(name for name in raw if name not in _KNOWN))
    try:
        job = Job.model_validate(raw)
    except ValidationError as error:
        return _explain(error)
    return _refusal(job, payload, arrived_at) or job


def _refused(raw: Mapping[str, Any], refusal: Refusal) -> Parsed:
    metadata, batch_id = raw.get("metadata"), raw.get("batch_id")
    return Parsed(
        job=None,
        refusal=refusal,
        operation=str(raw.get("operation", Operation.CHAT))[:64],
        metadata=metadata if _metadata_problem(metadata) is None else None,
        batch_id=batch_id if isinstance(batch_id, str) and _ID.fullmatch(batch_id) else None,
        tags={},
    )


def _refusal(job: Job, payload: bytes, arrived_at: datetime) -> Refusal | None:
    """What the envelope's types cannot say."""
    if job.operation in NOT_SUPPORTED_YET["operation"]:
        return Refusal(
            Code.NOT_SUPPORTED_YET, f"operation: {job.operation.value} is not supported yet; {_supported()} are"
        )
    if _LONG_NUMBER in payload.translate(_ZEROS) and has_long_number([job.body, job.metadata]):
        return Refusal(Code.NUMBER_OUT_OF_RANGE, f"body or metadata: {MEANING[Code.NUMBER_OUT_OF_RANGE]}")
    if job.body.get("background"):
        return Refusal(Code.BACKGROUND_REFUSED, f"body.background: {MEANING[Code.BACKGROUND_REFUSED]}")
    problem = (_metadata_problem(job.metadata) if job.metadata is not None else None) or _body_problem(job)
    if problem:
        return Refusal(Code.INVALID_JOB, problem)
    return _untimely(job, arrived_at) if job.deadline is not None else None


def _untimely(job: Job, arrived_at: datetime) -> Refusal | None:
    if job.deadline is not None and job.deadline < arrived_at:
        return Refusal(Code.DEADLINE_IN_PAST, f"deadline: {MEANING[Code.DEADLINE_IN_PAST]}")
    if job.deadline is not None and job.not_before is not None and job.not_before >= job.deadline:
        return Refusal(Code.INVALID_JOB, "not_before: must be before the deadline")
    return None


def _supported() -> str:
    return ", ".join(operation for operation in Operation if operation not in NOT_SUPPORTED_YET["operation"])


def _body_problem(job: Job) -> str | None:
    if not job.model:
        return "body.model: name the model"
    if job.operation is Operation.CHAT:
        messages = job.body.get("messages")
        if not isinstance(messages, list) or not messages:
            return "body.messages: must be a list with at least one message"
    elif job.operation in {Operation.EMBEDDINGS, Operation.MODERATIONS} and not job.body.get("input"):
        return "body.input: must hold a text or a list of texts"
    return None


def _metadata_problem(metadata: Any) -> str | None:  # noqa: ANN401 any JSON value
    """Why metadata could not be echoed: too large, too deep, or nothing that a document can hold."""
    if metadata is None:
        return None
    if len(orjson.dumps(metadata)) > MAX_METADATA_BYTES:
        return f"metadata: has more than {MAX_METADATA_BYTES:,} bytes of compact JSON"
    if not storable(metadata, _METADATA_DEPTH):
        return f"metadata: integers must fit 64 bits, names must not hold U+0000, {_METADATA_DEPTH} levels are allowed"
    return None


def _unknown(name: str) -> Refusal:
    near = get_close_matches(name[:80], _JOB_FIELDS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_JOB_FIELDS)}"
    return Refusal(Code.UNKNOWN_FIELD, f"{name[:80]}: {hint}")


def _explain(error: ValidationError) -> Refusal:
    """One sentence for the first problem."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part) for part in problem["loc"]) or "job"
    return Refusal(Code.INVALID_JOB, f"{field[:80]}: {problem['msg'].removeprefix('Value error, ')}")


def _kind(value: object) -> str:
    return {list: "array", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")
