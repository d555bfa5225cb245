"""From a line of a file to a job: our own job lines and OpenAI's batch lines, decided purely.

A line of OpenAI's (`custom_id`, `method`, `url`, `body`) becomes the job `<batch>/<custom_id>`, because a `custom_id` is unique in its file only;
a job line without an id becomes `<batch>/<line number>`. What a line says itself wins over what the command says for all.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import re2

from broker import codec
from broker.json_values import completed
from schemas.codes import MEANING, Code
from schemas.job import MAX_RECORD_BYTES

OPERATION_OF_URL = {
    "/v1/chat/completions": "chat",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "responses",
    "/v1/moderations": "moderations",
}
"""What the `url` of an OpenAI batch line asks for."""
URL_OF_OPERATION = {operation: url for url, operation in OPERATION_OF_URL.items()}
CUSTOM_ID = "custom_id"
"""The name in a line of OpenAI's, and in the metadata of the job that it becomes."""

_OPENAI_FIELDS = frozenset({CUSTOM_ID, "method", "url", "body"})
_LONG_NUMBER = re2.compile(rb"\d{19}")  # three times as fast here as Python's
_INT64 = 2**63


@dataclass(slots=True, frozen=True)
class Terms:
    """What the command says for lines that do not say it themselves."""

    batch: str
    tenant: str
    deadline: str | None = None  # RFC 3339


@dataclass(slots=True, frozen=True)
class JobLine:
    """A line that can be sent: the job's whole object, id and batch included."""

    number: int
    tenant: str
    job_id: str
    batch_id: str
    job: dict[str, Any]
    value: bytes  # the same as JSON


@dataclass(slots=True, frozen=True)
class RefusedLine:
    """A line that cannot be sent, and why."""

    number: int
    code: str
    message: str

    def shown(self) -> dict[str, Any]:
        """The line's place, code and sentence, for `--json`."""
        return {"line": self.number, "code": self.code, "message": self.message}


def read_line(number: int, line: bytes, terms: Terms, now: datetime) -> JobLine | RefusedLine:
    """Say what a line of a file is; `number` counts from 1."""
    raw = _object(line)
    if isinstance(raw, codec.Refusal):
        return _refused(number, raw)
    made = _of_openai(raw, terms) if (theirs := _is_openai(raw)) else _of_ours(raw, terms, number)
    if isinstance(made, codec.Refusal):
        return _refused(number, made)
    value = orjson.dumps(made) if theirs else completed(line, raw, made)
    job = codec.check_written(made, value, now)
    if isinstance(job, codec.Refusal):
        return _refused(number, job)
    return JobLine(number, job.tenant, job.id or "", job.batch_id or "", made, value)


def too_long(number: int) -> RefusedLine:
    """What becomes of a line over the limit, which nobody reads to its end."""
    return RefusedLine(number, Code.TOO_LARGE.value, f"the line has more than {MAX_RECORD_BYTES:,} bytes; send less")


def _object(line: bytes) -> dict[str, Any] | codec.Refusal:
    try:
        raw = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return codec.Refusal(Code.UNDECODABLE, f"the line is not JSON: {error}")
    if not isinstance(raw, dict):
        return codec.Refusal(Code.UNDECODABLE, f"the line is not a JSON object; {MEANING[Code.UNDECODABLE]}")
    if _LONG_NUMBER.search(line) and _has_long_integer(_exact(line)):
        return codec.Refusal(Code.NUMBER_OUT_OF_RANGE, MEANING[Code.NUMBER_OUT_OF_RANGE])
    return raw


def _exact(line: bytes) -> Any:  # noqa: ANN401 any JSON value
    """The line with its integers as they stand there: the fast decoder makes floats of those over 64 bits."""
    try:
        return json.loads(line)
    except RecursionError:
        return None


def _has_long_integer(value: Any) -> bool:  # noqa: ANN401 any JSON value
    level = [value]
    while level:
        item = level.pop()
        if isinstance(item, dict):
            level.extend(item.values())
        elif isinstance(item, list):
            level.extend(item)
        elif isinstance(item, int) and not -_INT64 <= item < _INT64:
            return True
    return False


def _is_openai(raw: Mapping[str, Any]) -> bool:
    return CUSTOM_ID in raw or ("url" in raw and "method" in raw)


def _of_openai(raw: Mapping[str, Any], terms: Terms) -> dict[str, Any] | codec.Refusal:
    problem = _openai_problem(raw)
    if problem is not None:
        return problem
    job = {
        "id": f"{terms.batch}/{raw[CUSTOM_ID]}",
        "tenant": terms.tenant,
        "operation": OPERATION_OF_URL[raw["url"]],
        "batch_id": terms.batch,
        "metadata": {CUSTOM_ID: raw[CUSTOM_ID]},
        "body": raw["body"],
    }
    return {**job, "deadline": terms.deadline} if terms.deadline else job


def _openai_problem(raw: Mapping[str, Any]) -> codec.Refusal | None:
    """What OpenAI itself would refuse in a line of its batch format."""
    unknown = sorted(raw.keys() - _OPENAI_FIELDS)
    if unknown:
        return codec.Refusal(
            Code.UNKNOWN_FIELD,
            f"{unknown[0][:80]}: a line of OpenAI's batch format has custom_id, method, url and body",
        )
    if not isinstance(raw.get(CUSTOM_ID), str) or not raw[CUSTOM_ID]:
        return codec.Refusal(Code.INVALID_ID, "custom_id: must be a text, and unique in the file")
    if raw.get("method", "POST") != "POST":
        return codec.Refusal(Code.UNSUPPORTED_OPERATION, "method: must be POST")
    if raw.get("url") not in OPERATION_OF_URL:
        return codec.Refusal(Code.UNSUPPORTED_OPERATION, f"url: must be one of {', '.join(OPERATION_OF_URL)}")
    if not isinstance(raw.get("body"), dict):
        return codec.Refusal(Code.INVALID_JOB, "body: must be the request's JSON object")
    return None


def _of_ours(raw: dict[str, Any], terms: Terms, number: int) -> dict[str, Any]:
    made = {"tenant": terms.tenant, **raw}
    if made.get("batch_id") is None:
        made["batch_id"] = terms.batch
    if made.get("id") is None:
        made["id"] = f"{made['batch_id']}/{number}"
    if terms.deadline and made.get("deadline") is None:
        made["deadline"] = terms.deadline
    return made


def _refused(number: int, refusal: codec.Refusal) -> RefusedLine:
    code = refusal.code
    # An id is checked as a field of the job here; what is wrong with it has a code of its own wherever else it turns up.
    if code is Code.INVALID_JOB and refusal.message.startswith("id:"):
        return RefusedLine(number, Code.INVALID_ID.value, MEANING[Code.INVALID_ID])
    if code is Code.INVALID_JOB and refusal.message.startswith("tenant:"):
        return RefusedLine(number, Code.INVALID_TENANT.value, MEANING[Code.INVALID_TENANT])
    return RefusedLine(number, code.value, refusal.message)
