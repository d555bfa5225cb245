"""From a result, a ledger row, an alert or a dead letter to a record: JSON of what is stored, and CloudEvents 1.0 headers in Kafka's binary mode."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

from broker.codec import NotAJob, Place
from broker.trace_context import trace_headers
from schemas.alert import ALERT_TYPE, AlertEvent
from schemas.batch import BATCH_TYPE
from schemas.money import plain
from schemas.result import MAX_RESULT_BYTES, RESULT_TYPE
from schemas.usage import USAGE_TYPE

_UTC_OFFSET = len("+00:00")
_VERSION = ("ce_specversion", b"1.0")
_JSON = ("content-type", b"application/json")


def encode(document: Mapping[str, Any]) -> bytes:
    """JSON of a result or a ledger row as it is stored: instants end in Z, amounts are plain decimal strings."""
    return orjson.dumps(document, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME)


def encode_result(result: Mapping[str, Any]) -> bytes:
    """JSON of a result; without its output where that would make the record too large."""
    value = encode(result)
    if len(value) <= MAX_RESULT_BYTES:
        return value
    small = {name: content for name, content in result.items() if name not in {"output", "output_text"}}
    return encode({**small, "output_in": "jobs"})


def _plain(value: Any) -> str:  # noqa: ANN401 whatever the encoder does not know
    if isinstance(value, datetime):
        return rfc3339(value)
    text: str | None = getattr(value, "text", None)  # an amount that has just been made knows it
    if text is not None:
        return text
    if isinstance(value, Decimal):
        return plain(value)
    to_decimal = getattr(value, "to_decimal", None)
    if to_decimal is None:
        raise TypeError(type(value).__name__)
    return plain(to_decimal())


def rfc3339(at: datetime) -> str:
    """An instant to the millisecond, in UTC: "2026-12-01T08:00:00.123Z"."""
    in_utc = at if at.tzinfo is UTC else at.astimezone(UTC)
    return in_utc.isoformat("T", "milliseconds")[:-_UTC_OFFSET] + "Z"


def event_headers(
    kind: str, event_id: str, subject: str, source: str, *, at: datetime, trace: str | None
) -> list[tuple[str, bytes]]:
    """CloudEvents headers in binary mode."""
    headers = [
        _VERSION,
        ("ce_type", kind.encode()),
        ("ce_source", source.encode()),
        ("ce_id", event_id.encode()),
        ("ce_subject", subject.encode()),
        ("ce_time", rfc3339(at).encode()),
        _JSON,
    ]
    if trace:
        headers += trace_headers(trace)
    return headers


def result_headers(result: Mapping[str, Any], key: str, source: str, trace: str | None) -> list[tuple[str, bytes]]:
    """Headers of a result; `ce_id` is `<tenant>/<job id>/<generation>`, so that a result sent again is the same event."""
    event_id = f"{key}/{result['generation']}"
    return event_headers(RESULT_TYPE, event_id, key, source, at=result["finished_at"], trace=trace)


def batch_headers(event: Mapping[str, Any], batch: str, seq: int, source: str) -> list[tuple[str, bytes]]:
    """Headers of the completion event of a batch, `<tenant>/<batch id>`, whose seal has the offset `seq`.

    No tenant's name holds a colon, so this `ce_id` is no result's.
    """
    return event_headers(BATCH_TYPE, f"seal:{batch}/{seq}", batch, source, at=event["finished_at"], trace=None)


def alert_headers(event: AlertEvent, alert_id: str, source: str) -> list[tuple[str, bytes]]:
    """Headers of an alert; `alert_id` says which limit, window and threshold."""
    return event_headers(ALERT_TYPE, f"alert:{alert_id}", event.limit_of, source, at=event.noticed_at, trace=None)


def usage_headers(row: Mapping[str, Any], source: str, trace: str | None) -> list[tuple[str, bytes]]:
    """Headers of a usage event; `ce_id` is the row's `_id`."""
    return event_headers(
        USAGE_TYPE, row["_id"], f"{row['tenant']}/{row['job_id']}", source, at=row["recorded_at"], trace=trace
    )


def usage_event(row: Mapping[str, Any]) -> bytes:
    """JSON of a usage event: the row, its `_id` as `id`."""
    event = {"id": row["_id"], **row}
    del event["_id"]
    return encode(event)


def dead_headers(
    headers: Iterable[tuple[str, bytes]], why: NotAJob, place: Place, now: datetime
) -> list[tuple[str, bytes]]:
    """The record's own headers, and why it is no job."""
    kept = [(name, content) for name, content in headers if not name.startswith("aibroker-")]
    return [
        *kept,
        ("aibroker-reason", why.code.value.encode()),
        ("aibroker-message", why.message.encode("utf-8", "replace")),
        ("aibroker-topic", place.topic.encode()),
        ("aibroker-partition", str(place.partition).encode()),
        ("aibroker-offset", str(place.offset).encode()),
        ("aibroker-at", rfc3339(now).encode()),
    ]
