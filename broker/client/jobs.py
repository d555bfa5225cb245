"""From what a user hands over to a record of a topic of jobs: fields filled in, checked as a worker would, refused before it is sent; pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from broker.codec import Refusal, check_written, written
from broker.errors import JobRefused
from broker.json_values import completed
from broker.lanes import Record
from broker.trace_context import trace_headers, trace_of
from schemas.codes import MEANING, Code
from schemas.job import JOB_TYPE, Job

JobLike = Mapping[str, Any] | Job | bytes | str
"""A job as users hand it over: a mapping as on the wire, a `schemas.job.Job`, or a line of JSON."""

_REPLY = frozenset({"reply_to", "reply_partition"})


@dataclass(slots=True, frozen=True)
class Refused:
    """A job that was not sent: its place in what was handed over (from 0), its id if it has one, and why."""

    position: int
    id: str | None
    code: str
    message: str

    def error(self) -> JobRefused:
        """The same as an exception."""
        return JobRefused(self.code, self.message)


class Prepared(NamedTuple):
    """A job that may be sent."""

    raw: Mapping[str, Any]
    key: str  # "<tenant>/<job id>"
    made_id: bool
    record: Record


@dataclass(slots=True, frozen=True)
class Form:
    """What the jobs of one call have in common.

    Args:
        topic: Where they go, with the prefix.
        source: `ce_source`.
        common: Fields that a job gets if it does not have them.
        new_id: Makes an id for a job that has none.
        trace: W3C traceparent, if the caller is traced.
    """

    topic: str
    source: str
    common: Mapping[str, Any]
    new_id: Callable[[], str]
    trace: str | None = None
    headers: tuple[tuple[str, bytes], ...] = field(init=False)

    def __post_init__(self) -> None:
        fixed = [
            ("ce_specversion", b"1.0"),
            ("ce_type", JOB_TYPE.encode()),
            ("ce_source", self.source.encode()),
            ("content-type", b"application/json"),
        ]
        trace = trace_of({"traceparent": self.trace.encode("utf-8", "replace")}) if self.trace else None
        fixed += trace_headers(trace) if trace else ()
        object.__setattr__(self, "headers", tuple(fixed))


def prepare(job: JobLike, form: Form, position: int, now: datetime) -> Prepared | Refused:
    """Make a record of a job, or say why it must not be sent: the codes are those that its result would have."""
    raw = _read(job) if isinstance(job, bytes | str) else _fields(job)
    if isinstance(raw, Refusal):
        return Refused(position, None, raw.code, raw.message)
    filled = {**form.common, **raw}
    if not _REPLY.isdisjoint(raw):  # one address, never a half of each
        for name in _REPLY.difference(raw):
            filled.pop(name, None)
    given = filled.get("id")
    if given is None:
        filled["id"] = form.new_id()
    value = completed(job, raw, filled) if isinstance(job, bytes | str) else written(filled)
    if not isinstance(value, Refusal):
        checked = check_written(filled, value, now)
        if not isinstance(checked, Refusal):
            key = f"{checked.tenant}/{checked.id}"
            return Prepared(filled, key, given is None, _record(form, checked.tenant, key, value))
        value = checked
    return Refused(position, given if isinstance(given, str) else None, value.code, value.message)


def _record(form: Form, tenant: str, key: str, value: bytes) -> Record:
    subject = key.encode()
    headers = (*form.headers, ("ce_id", subject[len(tenant) + 1 :]), ("ce_subject", subject))
    return Record(form.topic, value, None, headers)


def _read(line: bytes | str) -> dict[str, Any] | Refusal:
    try:
        raw = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return Refusal(Code.UNDECODABLE, f"the line is not JSON: {error}; {MEANING[Code.UNDECODABLE]}")
    if not isinstance(raw, dict):
        return Refusal(Code.UNDECODABLE, f"the line is no JSON object; {MEANING[Code.UNDECODABLE]}")
    return raw


def _fields(job: Mapping[str, Any] | Job) -> dict[str, Any]:
    if isinstance(job, dict):
        return job
    return job.model_dump(mode="json", exclude_unset=True) if isinstance(job, Job) else dict(job)
