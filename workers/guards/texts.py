"""Where the texts of a request or an answer stand: OpenAI's shapes, walked without ever trusting them."""

from collections.abc import Iterator
from typing import Any, TypeGuard

Place = tuple[str | int, ...]
"""The keys and indexes from the body down to a text."""

_PLAIN = 2  # a role and a content; OpenAI's answers name a refusal also where there is none
_PART_TEXTS = ("text", "refusal")
_ITEM_TEXTS = ("output", "arguments", "input")


def request_texts(operation: str, body: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    """Every text of a request that its producer wrote for the model, with its place."""
    if operation == "chat":
        messages = body.get("messages")
        for index, message in enumerate(messages if isinstance(messages, list) else ()):
            if _is_plain(message):
                yield ("messages", index, "content"), message["content"]
            else:
                yield from _message(("messages", index), message)
    elif operation == "responses":
        yield from _text(("instructions",), body.get("instructions"))
        yield from _items(("input",), body.get("input"))
    elif operation in {"embeddings", "moderations"}:
        yield from _content(("input",), body.get("input"))


def answer_texts(operation: str, output: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    """Every text of an answer that the model wrote, with its place."""
    if operation == "chat":
        choices = output.get("choices")
        for index, choice in enumerate(choices if isinstance(choices, list) else ()):
            message = choice.get("message") if isinstance(choice, dict) else None
            if _is_plain(message):
                yield ("choices", index, "message", "content"), message["content"]
            else:
                yield from _message(("choices", index, "message"), message)
    elif operation == "responses":
        yield from _text(("output_text",), output.get("output_text"))
        yield from _items(("output",), output.get("output"))


def _text(place: Place, value: object) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        yield place, value


def _is_plain(message: object) -> TypeGuard[dict[str, str]]:
    """Whether a message is a role and one text, as nearly all are: then there is no need to walk it."""
    if not isinstance(message, dict) or "role" not in message or not isinstance(message.get("content"), str):
        return False
    return len(message) == _PLAIN or (len(message) == _PLAIN + 1 and message.get("refusal", ...) is None)


def _message(place: Place, message: object) -> Iterator[tuple[Place, str]]:
    if not isinstance(message, dict):
        return
    content = message.get("content")
    if isinstance(content, str):
        yield (*place, "content"), content
    else:
        yield from _content((*place, "content"), content)
    for key in ("refusal", "reasoning_content"):
        yield from _text((*place, key), message.get(key))
    calls = message.get("tool_calls")
    for index, call in enumerate(calls if isinstance(calls, list) else ()):
        for kind, key in (("function", "arguments"), ("custom", "input")):
            inner = call.get(kind) if isinstance(call, dict) else None
            if isinstance(inner, dict):
                yield from _text((*place, "tool_calls", index, kind, key), inner.get(key))


def _content(place: Place, content: object) -> Iterator[tuple[Place, str]]:
    """A text, or a list of texts and of parts with a text."""
    yield from _text(place, content)
    for index, part in enumerate(content if isinstance(content, list) else ()):
        yield from _text((*place, index), part)
        if isinstance(part, dict):
            for key in _PART_TEXTS:
                yield from _text((*place, index, key), part.get(key))


def _items(place: Place, items: object) -> Iterator[tuple[Place, str]]:
    """The items of OpenAI's responses: messages, calls of tools and their outputs, reasoning."""
    yield from _text(place, items)
    for index, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict):
            for key in _ITEM_TEXTS:
                yield from _content((*place, index, key), item.get(key))
            for key in ("content", "summary"):
                yield from _content((*place, index, key), item.get(key))


def replaced(body: dict[str, Any], changes: dict[Place, str]) -> dict[str, Any]:
    """Return a copy of the body with other texts at some places; what does not change is shared."""
    changed = dict(body)
    copied: dict[Place, Any] = {(): changed}
    for place, text in changes.items():
        for depth in range(1, len(place)):
            if place[:depth] not in copied:
                parent = copied[place[: depth - 1]]
                child = parent[place[depth - 1]]
                copied[place[:depth]] = parent[place[depth - 1]] = child.copy()
        copied[place[:-1]][place[-1]] = text
    return changed
