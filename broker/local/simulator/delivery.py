"""How an answer goes over the line, byte by byte: whole, streamed, or broken by one of the faults of the line."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Literal, NamedTuple

from broker.local.simulator.behaviour import Drip

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"

_GARBAGE = bytes(range(255, -1, -1)) * 2
_WRONG_SHAPE = b'{"object": "surprise", "data": null}'
_OVER = 1000
_REASONS = {status.value: status.phrase for status in HTTPStatus} | {529: "Site is overloaded"}


class Reply(NamedTuple):
    """An answer before it meets the line; `parts` are one body, or the events of a stream."""

    status: int
    parts: Sequence[bytes]
    headers: Mapping[str, str]
    stream: bool = False
    gap_s: float = 0.0


class Delivery(NamedTuple):
    """What to write and how to end.

    `pieces` are written `gap_s` apart. `end`: `keep` the line for the next request, `close` it once all is written,
    `abort` it at once, `never` answer. `whole` says that the client got the answer as it was meant.
    """

    pieces: Sequence[bytes]
    end: Literal["keep", "close", "abort", "never"] = "keep"
    gap_s: float = 0.0
    cut: bool = False
    whole: bool = True


_BROKEN = Delivery((), whole=False)
_SILENT = {"stall": _BROKEN._replace(end="never"), "cut_before": _BROKEN._replace(end="abort", cut=True)}


def broken(reply: Reply, fault: str, drip: Drip, oversized_bytes: int) -> Delivery:
    """The reply as that fault of the line lets it through."""
    if fault in _SILENT:
        return _SILENT[fault]
    body = b"".join(reply.parts)
    if fault == "drip":
        return _dripping(reply, body, drip)
    if fault == "oversized":
        return Delivery((_head(reply, len(body) + oversized_bytes), body, b" " * oversized_bytes))
    size, half = len(body), body[: len(body) // 2]
    lies = {"cut_middle": (size, half), "length_over": (size + _OVER, body), "length_under": (size // 2, body)}
    if fault in lies:
        length, sent = lies[fault]
        return _BROKEN._replace(pieces=(_head(reply, length) + sent,), end="close", cut=fault != "length_under")
    wrong = {"malformed": half, "garbage": _GARBAGE, "wrong_shape": _WRONG_SHAPE}[fault]
    return _BROKEN._replace(pieces=(_head(reply, len(wrong)) + wrong,))


def intact(reply: Reply) -> Delivery:
    """The reply as it is meant."""
    if not reply.stream:
        body = reply.parts[0]
        return Delivery((_head(reply, len(body)) + body,))
    chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in reply.parts]
    chunks[0] = _head(reply, None) + chunks[0]
    chunks.append(b"0\r\n\r\n")
    return Delivery(chunks, gap_s=reply.gap_s) if reply.gap_s else Delivery((b"".join(chunks),))


def _dripping(reply: Reply, body: bytes, drip: Drip) -> Delivery:
    pieces = [_head(reply, len(body))]
    pieces += [body[start : start + drip.bytes] for start in range(0, len(body), drip.bytes)]
    return Delivery(pieces, gap_s=drip.every_ms / 1000)


def _head(reply: Reply, length: int | None) -> bytes:
    """Status line and headers; without a length the body comes in chunks."""
    kind = EVENTS if reply.stream else JSON
    size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    more = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
    reason = _REASONS.get(reply.status, "Unknown")
    return f"HTTP/1.1 {reply.status} {reason}\r\ncontent-type: {kind}\r\n{size}\r\n{more}\r\n".encode("latin-1")
