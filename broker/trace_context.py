"""A W3C trace context as one text, so that it is kept and handed on whole: the traceparent, and after a space the tracestate if there is one."""

import re
from collections.abc import Mapping

MAX_STATE = 512
"""So many characters of a tracestate are passed on at least, says W3C; of a longer one whole members are left out."""
_LONG_MEMBER = 128
_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_STATE = re.compile(r"[\x20-\x7e]+")


def trace_of(headers: Mapping[str, bytes]) -> str | None:
    """The context that a record's headers carry; as W3C says, one that cannot be read is as good as none."""
    parent = headers.get("traceparent", b"").decode("utf-8", "replace")
    if not _PARENT.fullmatch(parent):
        return None
    state = _state(headers["tracestate"].decode("utf-8", "replace")) if "tracestate" in headers else ""
    return f"{parent} {state}" if state else parent


def trace_headers(trace: str) -> list[tuple[str, bytes]]:
    """The headers that hand a context on."""
    parent, _, state = trace.partition(" ")
    headers = [("traceparent", parent.encode())]
    if state:
        headers.append(("tracestate", state.encode()))
    return headers


def with_parent(trace: str | None, parent: str) -> str:
    """The context below a span of our own."""
    state = (trace or "").partition(" ")[2]
    return f"{parent} {state}" if state else parent


def _state(said: str) -> str:
    text = said.replace("\t", " ")
    if not _STATE.fullmatch(text):
        return ""
    members = [member.strip() for member in text.split(",")]
    if len(text) > MAX_STATE:
        members = [member for member in members if len(member) <= _LONG_MEMBER]
        while len(",".join(members)) > MAX_STATE:
            members.pop()
    return ",".join(filter(None, members))
