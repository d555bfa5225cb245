"""The AsyncAPI 3.0 document: every topic with its messages, keys and headers, around the schemas that the models give."""

from collections.abc import Mapping
from typing import Any

from schemas.alert import ALERT_TYPE
from schemas.batch import BATCH_TYPE
from schemas.control import CONTROL_TYPE
from schemas.job import JOB_TYPE
from schemas.result import RESULT_TYPE
from schemas.usage import USAGE_TYPE

_JSON = "application/json"
_BYTES = "application/octet-stream"
_KAFKA_BINDING = "0.5.0"
_TEXT: Mapping[str, Any] = {"type": "string"}

_EVENT_HEADERS: Mapping[str, str] = {
    "ce_specversion": "CloudEvents' version, 1.0.",
    "ce_type": "Which message this is.",
    "ce_source": "urn:aibroker:<prefix>, the same for all workers.",
    "ce_id": "The event's id: an event that comes twice has the same one, and the same content.",
    "ce_subject": "<tenant>/<job id>, of a batch event <tenant>/<batch id>, of an alert whose limit it is.",
    "ce_time": "When it happened, RFC 3339.",
    "content-type": "application/json.",
    "traceparent": "W3C trace context.",
    "tracestate": "W3C trace context.",
}
_OPTIONAL_HEADERS = ("traceparent", "tracestate")
_DEAD_HEADERS: Mapping[str, str] = {
    "aibroker-reason": "A code, see CODES.md.",
    "aibroker-message": "A sentence that says what to change.",
    "aibroker-topic": "Where the record was.",
    "aibroker-partition": "Where the record was.",
    "aibroker-offset": "Where the record was.",
    "aibroker-at": "When it was found, RFC 3339.",
}

_CHANNELS: Mapping[str, tuple[str, str, str]] = {  # address, the messages with blanks between, description
    "jobs": (
        "jobs.{priority}",
        "job",
        "Jobs, one topic a priority. Any key but the tenant, or one tenant owns a partition.",
    ),
    "results": (
        "results",
        "result batch",
        "Results of jobs that name no other reply_to, and completion events of batches whose seal names it; partition = reply_partition if given.",
    ),
    "namedResults": (
        "results.{name}",
        "result batch",
        "Results of jobs and completion events of batches whose reply_to names this topic.",
    ),
    "replies": ("results.replies", "result", "The client library's own results, kept for an hour."),
    "usage": ("usage", "usage", "One event for each row of the ledger."),
    "alerts": ("alerts", "alert", "One event for each limit, window and threshold that is reached."),
    "control": ("jobs.control", "control", "What to do with jobs, batches and tenants; never add partitions."),
    "dead": ("jobs.dead", "dead", "Records that are no jobs, untouched."),
}
_PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "jobs": {
        "priority": {
            "description": "A priority of the settings.",
            "enum": ["interactive", "normal", "batch"],
            "default": "normal",
        }
    },
    "namedResults": {"name": {"description": "Letters, digits, dot, underscore and hyphen, up to 100."}},
}
_KEYS: Mapping[str, str] = {
    "job": "Any; never the tenant.",
    "result": "<tenant>/<job id>: compare it before decoding.",
    "batch": "<tenant>/<batch id>; another ce_type than a job's result of the same key.",
    "usage": "The tenant.",
    "alert": "Whose limit it is: alerts of one limit stay in order.",
    "control": "The job's or the batch's id, else the tenant, else *: what is said of one of them stays in order.",
    "dead": "The record's own.",
}


def document(definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document.

    Args:
        definitions: The models' schemas by their names, which refer to each other as `#/components/schemas/<name>`.
    """
    return {
        "asyncapi": "3.0.0",
        "id": "urn:aibroker",
        "info": {
            "title": "aibroker",
            "version": "1",
            "description": "Jobs in, results and usage out, over Kafka. The setting `prefix`, where there is one, goes before every topic and a dot. "
            "Headers follow CloudEvents 1.0, Kafka binding, binary mode; on jobs and control messages all of them are optional.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": _JSON,
        "channels": {name: _channel(name) for name in _CHANNELS},
        "operations": {
            "readJobs": _operation("receive", "jobs", "Read jobs of one priority."),
            "readControl": _operation("receive", "control", "Act upon jobs that were submitted before."),
            "sendResults": _operation("send", "results", "Tell what became of a job or a sealed batch, at least once."),
            "sendNamedResults": _operation("send", "namedResults", "The same, where the job asks for it."),
            "sendReplies": _operation("send", "replies", "The same, to the client library."),
            "sendUsage": _operation("send", "usage", "Tell what an attempt used, at least once."),
            "sendAlerts": _operation("send", "alerts", "Tell that a limit is about to be used up, at least once."),
            "sendDead": _operation("send", "dead", "Keep what is no job."),
        },
        "components": {
            "messages": {
                "job": _event("job", JOB_TYPE, "Job", "One request for inference.", optional=True),
                "result": _event("result", RESULT_TYPE, "Result", "What became of a job."),
                "batch": _event("batch", BATCH_TYPE, "BatchEvent", "What became of a sealed batch."),
                "usage": _event("usage", USAGE_TYPE, "UsageEvent", "What an attempt used and cost."),
                "alert": _event("alert", ALERT_TYPE, "AlertEvent", "A threshold of a limit is reached."),
                "control": _event(
                    "control", CONTROL_TYPE, "Control", "What to do with a job or a batch.", optional=True
                ),
                "dead": _dead(),
            },
            "schemas": dict(definitions),
        },
    }


def _channel(name: str) -> dict[str, Any]:
    address, messages, description = _CHANNELS[name]
    channel: dict[str, Any] = {
        "address": address,
        "description": description,
        "messages": {message: {"$ref": f"#/components/messages/{message}"} for message in messages.split()},
    }
    if name in _PARAMETERS:
        channel["parameters"] = _PARAMETERS[name]
    return channel


def _operation(action: str, channel: str, summary: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"} for message in _CHANNELS[channel][1].split()],
    }


def _event(name: str, kind: str, schema: str, summary: str, *, optional: bool = False) -> dict[str, Any]:
    """A message of ours; `optional`: others write it and may leave every header away."""
    headers = {header: {**_TEXT, "description": meaning} for header, meaning in _EVENT_HEADERS.items()}
    headers["ce_type"]["const"] = kind
    needed = [] if optional else [header for header in _EVENT_HEADERS if header not in _OPTIONAL_HEADERS]
    return {
        **_message(name, summary, _JSON),
        "headers": {"type": "object", "properties": headers, "required": needed},
        "payload": {"$ref": f"#/components/schemas/{schema}"},
    }


def _dead() -> dict[str, Any]:
    headers = {header: {**_TEXT, "description": meaning} for header, meaning in _DEAD_HEADERS.items()}
    return {
        **_message("dead", "A record that is no job: its bytes, key and headers, and why.", _BYTES),
        "headers": {"type": "object", "properties": headers, "required": list(headers)},
        "payload": {"description": "The record's bytes as they came."},
    }


def _message(name: str, summary: str, content_type: str) -> dict[str, Any]:
    key = {**_TEXT, "description": _KEYS[name]}
    return {
        "name": name,
        "summary": summary,
        "contentType": content_type,
        "bindings": {"kafka": {"key": key, "bindingVersion": _KAFKA_BINDING}},
    }
