"""Bad records, each with the place where it has to end and the code that it has to carry; some are good and only look bad.

`dead` means: its bytes, key and headers, untouched, in `jobs.dead`. `result` means: a result of that status on `reply`. Every id and every
tenant is its own, so that all can be sent at once, in any order; only `first` has to be sent before, to the same partition.
"""

import gzip
import json
import random
from dataclasses import dataclass
from typing import Any, Literal

Headers = tuple[tuple[str, bytes | None], ...]
BODY: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 16}
"""The request of a job that succeeds."""


@dataclass(frozen=True)
class BadRecord:
    """A record, where it ends and with which code; `job_id` only where a result is told under it, and `reply` where."""

    name: str
    value: bytes | None
    end: Literal["dead", "result"]
    code: str | None
    status: str | None = None
    headers: Headers = ()
    job_id: str = ""
    tenant: str = "default"
    reply: str = "results"
    first: bytes | None = None

    @property
    def key(self) -> str:
        """The key of its result."""
        return f"{self.tenant}/{self.job_id}"


def written(**fields: Any) -> bytes:  # noqa: ANN401 any JSON value
    """A job record; fields that are None are left out."""
    job = {"body": BODY, **fields}
    return json.dumps({name: value for name, value in job.items() if value is not None}).encode()


def _dead(name: str, value: bytes | None, code: str = "undecodable", headers: Headers = ()) -> BadRecord:
    return BadRecord(name, value, "dead", code, headers=headers)


def _id(name: str) -> str:
    return "bad-" + name.replace(" ", "-")


def _rejected(name: str, code: str, **fields: Any) -> BadRecord:  # noqa: ANN401 any JSON value
    return BadRecord(name, written(id=_id(name), **fields), "result", code, "rejected", job_id=_id(name))


def _raw(name: str, text: str, code: str | None = None, status: str = "succeeded") -> BadRecord:
    """A record as it is typed; `ID` in it becomes its id."""
    return BadRecord(name, text.replace("ID", _id(name)).encode(), "result", code, status, job_id=_id(name))


def _fine(name: str, headers: Headers = (), **fields: Any) -> BadRecord:  # noqa: ANN401 any JSON value
    value = written(id=_id(name), **fields)
    return BadRecord(name, value, "result", None, "succeeded", headers, job_id=_id(name))


def _body(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 any JSON value
    return {**BODY, **fields}


def _said(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


_TYPED = '{"id": "ID", "body": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 16%s}}'
_STRUCTURED: Headers = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)


def _event(name: str, **fields: Any) -> bytes:  # noqa: ANN401 any JSON value
    event = {"specversion": "1.0", "type": "aibroker.job.v1", "source": "/tests", "id": _id(name), **fields}
    return json.dumps({"data": {"body": BODY}, **event}).encode()


NOT_JOBS = (
    _dead("random bytes", random.Random(7).randbytes(4_000)),
    _dead("an array", b"[]"),
    _dead("a string", b'"hello"'),
    _dead("a number", b"42"),
    _dead("null, the word", b"null"),
    _dead("no value", None),
    _dead("an empty value", b""),
    _dead("white space", b" \n\t "),
    _dead("2 MB", written(id="bad-2-mb", metadata="x" * 2_000_000), "too_large"),
    _dead("one byte too many", written(id="x").ljust(1_000_001), "too_large"),
    _dead("NaN", written(id="x", body=_body(temperature=float("nan")))),
    _dead("infinity", written(id="x", body=_body(temperature=float("inf")))),
    _dead("1e400", (_TYPED % ', "seed": 1e400').encode()),
    _dead("a lone surrogate", (_TYPED.replace("hi", r"\ud800") % "").encode()),
    _dead("a lone surrogate in bytes", (_TYPED % "").encode().replace(b"hi", b"\xed\xa0\x80")),
    _dead("20,000 brackets", b'{"body": ' + b"[" * 20_000 + b"]" * 20_000 + b"}"),
    _dead("300 levels", b'{"body": ' + b'{"a":' * 300 + b"1" + b"}" * 301),
    _dead("cut in the middle", written(id="x")[:40]),
    _dead("two objects", written(id="x") * 2),
    _dead("a trailing comma", b'{"body": {"model": "m"},}'),
    _dead("single quotes", b"{'body': {'model': 'm'}}"),
    _dead("a byte order mark", b"\xef\xbb\xbf" + written(id="x")),
    _dead("UTF-16", written(id="x").decode().encode("utf-16")),
    _dead("Latin-1", written(id="x").replace(b"hi", b"caf\xe9")),
    _dead("a raw control character", written(id="x").replace(b"hi", b"h\x01i")),
    _dead("gzip", gzip.compress(written(id="x"), mtime=0), headers=(("content-encoding", b"gzip"),)),
    _dead("an unknown ce_type", written(id="x"), "unknown_version", (("ce_type", b"aibroker.job.v9"),)),
    _dead("a result", written(id="x"), "unknown_version", (("ce_type", b"aibroker.result.v1"),)),
    _dead("an unknown event", _event("x", type="com.example.order"), "unknown_version", _STRUCTURED),
    _dead("an event without an object", _event("x", data=[1]), "undecodable", _STRUCTURED),
    _dead("a batch of events", _event("x"), headers=(("content-type", b"application/cloudevents-batch+json"),)),
    _dead("a tenant with a slash", written(id="x", tenant="acme/eu"), "invalid_tenant"),
    _dead("a tenant in capitals", written(id="x", tenant="Acme"), "invalid_tenant"),
    _dead("a tenant that is a number", written(id="x", tenant=7), "invalid_tenant"),
    _dead("an empty tenant", written(id="x", tenant=""), "invalid_tenant"),
    _dead("an id with a newline", written(id="a\nb"), "invalid_id"),
    _dead("an id of 257 characters", written(id="x" * 257), "invalid_id"),
    _dead("an empty id", written(id=""), "invalid_id"),
    _dead("an id that is a number", written(id=7), "invalid_id"),
    _dead("an id beyond ASCII", written(id="größe"), "invalid_id"),
    _dead("a ce_id beyond ASCII", written(), "invalid_id", (("ce_id", "größe".encode()),)),
    BadRecord(
        "the same id, another body",
        written(id="bad-twice", body=_body(messages=_said("another question"))),
        "dead",
        "id_conflict",
        "rejected",
        job_id="bad-twice",
        first=written(id="bad-twice"),
    ),
)
"""What ends in `jobs.dead`."""

REFUSED = (
    _rejected("dedline", "unknown_field", dedline="2030-01-01T00:00:00Z"),
    _rejected("an unknown model", "unknown_model", body=_body(model="gpt-nobody-knows")),
    _rejected("a deadline in the past", "deadline_in_past", deadline="2020-01-01T00:00:00Z"),
    _rejected("a deadline without a zone", "invalid_job", deadline="2030-01-01T00:00:00"),
    _rejected("a deadline in words", "invalid_job", deadline="tomorrow"),
    _rejected("a deadline as a number", "invalid_job", deadline=1_900_000_000),
    _rejected(
        "a start after the deadline", "invalid_job", deadline="2090-01-01T00:00:00Z", not_before="2091-01-01T00:00:00Z"
    ),
    _rejected("a start in the year 2091", "scheduled_too_late", not_before="2091-01-01T00:00:00Z"),
    _rejected("an unknown reply topic", "reply_unknown", reply_to="results.nobody"),
    _rejected("partition 99", "reply_unknown", reply_partition=99),
    _rejected("a reply to the jobs", "invalid_job", reply_to="jobs.normal"),
    _rejected("a negative partition", "invalid_job", reply_partition=-1),
    _raw("10 to the 30th", _TYPED % f', "seed": {10**30}', "number_out_of_range", "rejected"),
    _rejected("no body", "invalid_job", body=None),
    _rejected("a body that is a list", "invalid_job", body=[1, 2]),
    _rejected("a body that is a text", "invalid_job", body="hi"),
    _rejected("no messages", "invalid_job", body={"model": "gpt-4o-mini"}),
    _rejected("empty messages", "invalid_job", body=_body(messages=[])),
    _rejected("no model", "invalid_job", body={"messages": _said("hi")}),
    _rejected("a model that is a number", "invalid_job", body=_body(model=4)),
    _rejected("embeddings of nothing", "invalid_job", operation="embeddings", body={"model": "text-embedding-3-small"}),
    _rejected("17 tags", "invalid_job", tags={f"t{number}": "x" for number in range(17)}),
    _rejected("a tag name with a blank", "invalid_job", tags={"cost centre": "x"}),
    _rejected("a tag that is a number", "invalid_job", tags={"row": 7}),
    _rejected("metadata of 5 kB", "invalid_job", metadata="x" * 5_000),
    _rejected("a NUL in a name of metadata", "invalid_job", metadata={"a\0b": 1}),
    _rejected("a limit as a number", "invalid_job", max_cost_usd=0.25),
    _rejected("a negative limit", "invalid_job", max_cost_usd="-1"),
    _rejected("a limit too low", "cost_limit", max_cost_usd="0.000000001", body=_body(max_tokens=10_000)),
    _rejected("a negative number of attempts", "invalid_job", max_attempts=-1),
    _rejected("21 attempts", "invalid_job", max_attempts=21),
    _rejected("attempts as a text", "invalid_job", max_attempts="5"),
    _rejected("an unknown execution", "invalid_job", execution="exactly_once"),
    _rejected("an unknown operation", "invalid_job", operation="paint"),
    _rejected("images", "not_supported_yet", operation="images", body={"model": "gpt-image-1", "prompt": "a cat"}),
    _rejected(
        "background",
        "background_refused",
        operation="responses",
        body={"model": "gpt-4o-mini", "input": "hi", "background": True},
    ),
    _rejected("a batch id with a newline", "invalid_job", batch_id="a\nb"),
    _rejected("a message without a role", "provider_rejected", body=_body(messages=[{"content": "hi"}])),
    _rejected("a negative token limit", "provider_rejected", body=_body(max_tokens=-5)),
)
"""What is a job that cannot run: a `rejected` result."""

FINE = (
    _fine("900,000 blanks", body=_body(messages=_said(" " * 900_000))),
    BadRecord(
        "as large as it may be",
        written(id="bad-large").ljust(1_000_000),
        "result",
        None,
        "succeeded",
        job_id="bad-large",
    ),
    _fine("900,000 letters", body=_body(messages=_said("a" * 900_000))),
    BadRecord(
        "a structured event",
        _event("a structured event"),
        "result",
        None,
        "succeeded",
        _STRUCTURED,
        _id("a structured event"),
    ),
    _raw("a name twice", _TYPED % ', "user": "a", "user": "b"'),
    _fine("a name of the tokenizer", body=_body(messages=_said("<|endoftext|><|im_start|>"))),
    _fine("a NUL in the text", body=_body(messages=_said("a\0b"))),
    _fine("an emoji of four bytes", body=_body(messages=_said("😀" * 50))),
    _fine("a name with a dollar and a dot", metadata={"$set": 1, "a.b": 2, "": 3}),
    _fine("an id/with slashes and blanks"),
    _fine("an empty ce_type", headers=(("ce_type", b""),)),
    _fine("a header without a value", headers=(("traceparent", None), ("x", b"\xff"))),
    _fine("a broken traceparent", headers=(("traceparent", b"00-zz-\xff"),)),
    _fine("a stream", body=_body(stream=True, stream_options={"include_usage": True})),
    _fine("a field of the provider's future", body=_body(reasoning_mood="happy")),
)
"""What only looks bad: it succeeds, and kills no worker."""

ALL = NOT_JOBS + REFUSED + FINE
