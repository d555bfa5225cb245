"""Reads what a request asks for, as OpenAI's endpoints check it: model, texts, token counts, limits on the answer."""

from collections.abc import Iterator
from typing import NamedTuple

import orjson

from broker.local.simulator.refusals import Refused
from broker.local.simulator.usage import CHAT, EMBEDDINGS, IMAGE_TOKENS, MODERATIONS, RESPONSES, text_tokens

_MAX_FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_MAX_CHOICES = 128
_MAX_DIMENSIONS = 4096


class Ask(NamedTuple):
    """What one request asks for; `texts` only for embeddings and moderations, which answer each text apart."""

    path: str
    model: str
    prompt_tokens: int
    max_tokens: int | None = None
    stream: bool = False
    include_usage: bool = False
    choices: int = 1
    texts: tuple[str, ...] = ()
    dimensions: int | None = None
    base64: bool = False


def read_ask(path: str, content: bytes) -> Ask:
    """The request in that body; raises `Refused` with what OpenAI would answer."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        message = f"We could not parse the JSON body of your request: {error}."
        raise Refused(400, message) from error
    if not isinstance(body, dict):
        raise Refused(400, "The body of the request must be a JSON object.")
    model = body.get("model", "omni-moderation-latest" if path == MODERATIONS else None)
    if not isinstance(model, str) or not model:
        raise Refused(400, "you must provide a model parameter", param="model")
    if path == CHAT:
        return _chat(model, body)
    if path == RESPONSES:
        return _responses(model, body)
    return _texts(path, model, body)


def _chat(model: str, body: dict[str, object]) -> Ask:
    tokens = 3 + sum(_message_tokens(message) for message in _messages(body.get("messages"), "messages"))
    if tools := body.get("tools"):
        tokens += text_tokens(orjson.dumps(tools).decode())
    options = body.get("stream_options")
    return Ask(
        CHAT,
        model,
        tokens,
        max_tokens=_max_tokens(body),
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        choices=_positive(body, "n", _MAX_CHOICES) or 1,
    )


def _responses(model: str, body: dict[str, object]) -> Ask:
    if body.get("stream") is True:
        raise Refused(400, "This simulator does not stream responses; leave `stream` out.", param="stream")
    asked = body.get("input")
    items: object = [{"content": asked}] if isinstance(asked, str) and asked else asked
    tokens = 3 + sum(_message_tokens(message) for message in _messages(items, "input"))
    instructions = body.get("instructions")
    if isinstance(instructions, str):
        tokens += 4 + text_tokens(instructions)
    return Ask(RESPONSES, model, tokens, max_tokens=_max_tokens(body))


def _texts(path: str, model: str, body: dict[str, object]) -> Ask:
    asked = body.get("input")
    if isinstance(asked, list) and asked and all(type(item) is int for item in asked):
        asked = [asked]
    items = [asked] if isinstance(asked, str) else asked
    if not isinstance(items, list) or not items or "" in items:
        raise Refused(
            400, "'$.input' is invalid: a text or a list of texts is needed, none of them empty.", param="input"
        )
    texts, tokens = [], 0
    for item in items:
        text, count = _text(item)
        texts.append(text)
        tokens += count
    if path != EMBEDDINGS:
        return Ask(path, model, tokens, texts=tuple(texts))
    dimensions = _positive(body, "dimensions", _MAX_DIMENSIONS)
    base64 = body.get("encoding_format") == "base64"
    return Ask(path, model, tokens, texts=tuple(texts), dimensions=dimensions, base64=base64)


def _text(item: object) -> tuple[str, int]:
    """A text, a list of token numbers or a part of a multi-modal input, with its tokens."""
    if isinstance(item, str):
        return item, text_tokens(item)
    if isinstance(item, list) and item and all(type(token) is int for token in item):
        return " ".join(map(str, item)), len(item)
    if isinstance(item, dict):
        text = item.get("text")
        return (text, text_tokens(text)) if isinstance(text, str) else (str(item.get("type")), IMAGE_TOKENS)
    raise Refused(400, "'$.input' is invalid: its items must be texts.", param="input")


def _messages(messages: object, param: str) -> Iterator[dict[str, object]]:
    if not isinstance(messages, list) or not messages:
        raise Refused(400, f"Invalid '{param}': a list with at least one message is needed.", param=param)
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            raise Refused(400, f"Invalid type for '{param}[{number}]': expected an object.", param=f"{param}[{number}]")
        if param == "messages" and not isinstance(message.get("role"), str):
            raise Refused(
                400, f"Missing required parameter: '{param}[{number}].role'.", param=f"{param}[{number}].role"
            )
        if not isinstance(message.get("content"), str | list | None):
            where = f"{param}[{number}].content"
            raise Refused(400, f"Invalid type for '{where}': expected a string or a list of parts.", param=where)
        yield message


def _message_tokens(message: dict[str, object]) -> int:
    content = message.get("content")
    if isinstance(content, str):
        return 4 + text_tokens(content)
    parts = content if isinstance(content, list) else []
    return 4 + sum(_text(part)[1] for part in parts)


def _max_tokens(body: dict[str, object]) -> int | None:
    for name in _MAX_FIELDS:
        if body.get(name) is not None:
            return _positive(body, name, 10_000_000)
    return None


def _positive(body: dict[str, object], name: str, most: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= most:
        raise Refused(400, f"Invalid '{name}': expected an integer from 1 to {most}.", param=name)
    return value
