"""Writes answers as OpenAI's endpoints do: bodies, and the events of a streamed chat."""

import base64
import hashlib
from array import array
from collections.abc import Iterator
from typing import NamedTuple

import orjson

from broker.local.simulator.asks import Ask
from broker.local.simulator.usage import CHAT, EMBEDDINGS, RESPONSES, Counts, usage_of

_WORDS = (
    "The simulated answer is made of plain words, so that it reads like a text and always has the length that was "
    "asked for. It says nothing about the question. "
)
_DIMENSIONS = {"text-embedding-3-large": 3072}
_FLAGGED = {"kill": "violence", "hate": "hate", "suicide": "self-harm"}
_CATEGORIES = ("harassment", "hate", "illicit", "self-harm", "sexual", "violence")


class Content(NamedTuple):
    """What goes into an answer: its id, the model's full name, the text and what was counted."""

    id: str
    created: int
    model: str
    text: str
    finish_reason: str
    counts: Counts


def words(size: int) -> str:
    """A text of exactly that many bytes."""
    return (_WORDS * (size // len(_WORDS) + 1))[:size]


def body(ask: Ask, content: Content) -> bytes:
    """The whole answer, not streamed."""
    if ask.path == CHAT:
        return orjson.dumps(_chat(ask, content))
    if ask.path == RESPONSES:
        return orjson.dumps(_response(content))
    if ask.path == EMBEDDINGS:
        return orjson.dumps(_embeddings(ask, content))
    return orjson.dumps(_moderations(ask, content))


def _chat(ask: Ask, content: Content) -> dict[str, object]:
    message = {"role": "assistant", "content": content.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": content.finish_reason}
    return {
        "id": content.id,
        "object": "chat.completion",
        "created": content.created,
        "model": content.model,
        "choices": [choice] if ask.choices == 1 else [{**choice, "index": i} for i in range(ask.choices)],
        "usage": usage_of(CHAT, content.counts),
        "service_tier": "default",
        "system_fingerprint": "fp_simulator",
    }


def _response(content: Content) -> dict[str, object]:
    cut = content.finish_reason == "length"
    part = {"type": "output_text", "text": content.text, "annotations": []}
    status = "incomplete" if cut else "completed"
    message = {"id": "msg_" + content.id, "type": "message", "role": "assistant", "status": status, "content": [part]}
    return {
        "id": content.id,
        "object": "response",
        "created_at": content.created,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "model": content.model,
        "output": [message],
        "service_tier": "default",
        "usage": usage_of(RESPONSES, content.counts),
    }


def _embeddings(ask: Ask, content: Content) -> dict[str, object]:
    size = ask.dimensions or _DIMENSIONS.get(ask.model, 1536)
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(text, size, base64_wanted=ask.base64)}
        for index, text in enumerate(ask.texts)
    ]
    return {"object": "list", "data": data, "model": content.model, "usage": usage_of(EMBEDDINGS, content.counts)}


def _vector(text: str, size: int, *, base64_wanted: bool) -> list[float] | str:
    """Numbers that depend on the text alone, of about unit length."""
    digest = hashlib.shake_128(text.encode("utf-8", "surrogatepass")).digest(size)
    scale = 1 / (73.9 * size**0.5)
    values = [round((byte - 127.5) * scale, 7) for byte in digest]
    return base64.b64encode(array("f", values).tobytes()).decode() if base64_wanted else values


def _moderations(ask: Ask, content: Content) -> dict[str, object]:
    return {"id": content.id, "model": content.model, "results": [_moderation(text) for text in ask.texts]}


def _moderation(text: str) -> dict[str, object]:
    lowered = text.lower()
    struck = {category for word, category in _FLAGGED.items() if word in lowered}
    return {
        "flagged": bool(struck),
        "categories": {name: name in struck for name in _CATEGORIES},
        "category_scores": {name: 0.97 if name in struck else 0.0001 for name in _CATEGORIES},
    }


def events(ask: Ask, content: Content, chunk_bytes: int) -> Iterator[bytes]:
    """The server-sent events of a streamed chat, `[DONE]` at the end; the usage only where it was asked for."""
    head = {
        "id": content.id,
        "object": "chat.completion.chunk",
        "created": content.created,
        "model": content.model,
        "system_fingerprint": "fp_simulator",
    }
    nothing = {"usage": None} if ask.include_usage else {}
    for index in range(ask.choices):
        deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
        starts = range(0, len(content.text), chunk_bytes)
        deltas += [({"content": content.text[start : start + chunk_bytes]}, None) for start in starts]
        deltas.append(({}, content.finish_reason))
        for delta, finish in deltas:
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
            yield _event({**head, "choices": [choice], **nothing})
    if ask.include_usage:
        yield _event({**head, "choices": [], "usage": usage_of(CHAT, content.counts)})
    yield b"data: [DONE]\n\n"


def _event(data: dict[str, object]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"
