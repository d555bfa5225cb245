"""What `results` writes: our results, OpenAI's batch output, or the original lines again, decided purely from job documents.

A document is recognised as a line of OpenAI's by its id and metadata: `submit` made the one `<batch>/<custom_id>` and the other
`{"custom_id": ...}`.
"""

import hashlib
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import orjson

from broker import outgoing
from broker.cli.lines import CUSTOM_ID, URL_OF_OPERATION
from schemas.codes import MEANING, Code

_AGAIN = re.compile(r"(.*)~(\d{1,6})")
_ID_LENGTH = 256


class Format(StrEnum):
    """How a result is written."""

    AUTO = "auto"
    """OpenAI's batch output for what was a line of OpenAI's, else ours."""
    RESULT = "result"
    OPENAI = "openai"


def custom_id(document: Mapping[str, Any]) -> str | None:
    """The `custom_id` of a job that was a line of OpenAI's, else None."""
    metadata = (document.get("result") or {}).get("metadata")
    found = metadata.get(CUSTOM_ID) if isinstance(metadata, dict) else None
    batch, job = document.get("batch_id"), document.get("job_id", "")
    return found if isinstance(found, str) and job == f"{batch}/{found}" else None


def result_line(document: Mapping[str, Any], wanted: Format) -> bytes:
    """One line of output for a finished job's document, without its line end."""
    own = custom_id(document)
    if wanted is Format.RESULT or (wanted is Format.AUTO and own is None):
        return outgoing.encode(document["result"])
    return openai_line(document, own if own is not None else str(document["job_id"]))


def openai_line(document: Mapping[str, Any], own_id: str) -> bytes:
    """A line of OpenAI's batch output: a response where the job succeeded, else an error with our code and sentence."""
    result = document["result"]
    body = _body(result)
    succeeded = result["status"] == "succeeded"
    return outgoing.encode(
        {
            "id": f"batch_req_{_digest(document)}",
            "custom_id": own_id,
            "response": {"status_code": 200, "request_id": _request_id(document, body), "body": body}
            if succeeded
            else None,
            "error": None if succeeded else {"code": result.get("code"), "message": result.get("message")},
        }
    )


def _body(result: Mapping[str, Any]) -> Any:  # noqa: ANN401 any JSON value
    text = result.get("output_text")
    if result.get("output") is None and isinstance(text, str):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    return result.get("output")


def _request_id(document: Mapping[str, Any], body: object) -> str:
    """The provider's own, else the answer's id, else ours: OpenAI's format always has one."""
    row = document.get("row") or {}
    answer = body.get("id") if isinstance(body, dict) else None
    return str(row.get("request_id") or answer or document.get("uid") or document["_id"])


def _digest(document: Mapping[str, Any]) -> str:
    seed = f"{document.get('uid')}/{document.get('generation')}"
    return hashlib.sha256(seed.encode()).hexdigest()[:24]


def input_line(document: Mapping[str, Any]) -> bytes | None:
    """The line that the job came from, ready to be submitted again; None where its payload is not kept.

    A job with an id of its own gets the next one (`inv-7` becomes `inv-7~2`), because the same id again would be the same job. An id that was
    made of the batch is left out, so that it is made anew of the next batch; a line of OpenAI's is again what it was. None names its batch: what
    is submitted again is a batch of its own, because the old one may be sealed, with a total that more jobs would contradict.
    """
    payload = document.get("payload")
    if payload is None:
        return None
    job = orjson.loads(payload)
    own = custom_id(document)
    if own is not None:
        operation = job.get("operation", "chat")
        return orjson.dumps({CUSTOM_ID: own, "method": "POST", "url": URL_OF_OPERATION[operation], "body": job["body"]})
    batch, job_id = document.get("batch_id"), str(document["job_id"])
    if batch and re.fullmatch(re.escape(batch) + r"/\d+", job_id):
        job.pop("id", None)
    else:
        job["id"] = next_id(job_id)
    job.pop("batch_id", None)
    job.pop("deadline", None)  # it has passed, or will have: the new submission gets one of its own
    return orjson.dumps(job)


def next_id(job_id: str) -> str:
    """The id for the same job once more: `a`, `a~2`, `a~3`."""
    again = _AGAIN.fullmatch(job_id)
    stem, number = (again[1], int(again[2]) + 1) if again else (job_id, 2)
    ending = f"~{number}"
    return stem[: _ID_LENGTH - len(ending)] + ending


def blank_mark(batch: str | None) -> bytes:
    """64 blanks and tabs that stand for a batch's name, for the end of a file's first line.

    A file of the same lines is the same batch, and the same batch is the same jobs: without the mark, lines that all fail twice would be taken for
    those of the first round and not run again.
    """
    bits = int.from_bytes(hashlib.sha256((batch or "").encode()).digest()[:8], "big")
    return f"{bits:064b}".replace("0", " ").replace("1", "\t").encode()


def meaning(code: str | None) -> str:
    """The sentence of a code, "" for one that this version does not know."""
    try:
        return MEANING[Code(code)] if code else ""
    except ValueError:
        return ""
