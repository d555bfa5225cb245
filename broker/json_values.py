"""What of a JSON value can be held elsewhere: by the encoder again, by a document, by 64 bits; and its text in no more memory than it needs."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

DEPTH = 200
"""The levels that both the JSON encoder and a document can hold."""

_INT64 = 2**63
_HOLDERS = (dict, list, tuple)


def written(value: Any, default: Callable[[Any], Any] | None = None, option: int = 0) -> bytes:  # noqa: ANN401 any JSON value
    """`orjson.dumps`, for a text that is kept: orjson's own (3.13) holds 8 kB until it is freed, however short it is.

    Raises:
        TypeError: It is no JSON value.
    """
    return bytes(memoryview(orjson.dumps(value, default, option)))


def too_deep(value: Mapping[str, Any], text: bytes) -> bool:
    """Whether an object, and its JSON, has more levels than what follows can hold."""
    if text.count(b"{") + text.count(b"[") <= DEPTH:
        return False
    level: list[Any] = [value]
    for _ in range(DEPTH):
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, _HOLDERS)]
        level = [child for children in inner for child in children]
    return bool(level)


def storable(value: Any, depth: int) -> bool:  # noqa: ANN401 any JSON value
    """Whether a document can hold a JSON value: integers of 64 bits, no U+0000 in names, at most `depth` levels."""
    level = [value]
    for _ in range(depth):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                if any("\0" in name for name in item):
                    return False
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
            elif isinstance(item, int) and not -_INT64 <= item < _INT64:
                return False
        if not inner:
            return True
        level = inner
    return False


def has_long_number(value: Any) -> bool:  # noqa: ANN401 any JSON value
    """Whether a number was an integer over 64 bits, which the decoder has made a float of."""
    return any(abs(number) >= _INT64 for number in floats(value))


def floats(value: Any) -> Iterator[float]:  # noqa: ANN401 any JSON value
    """The floats in a JSON value, at any depth."""
    level = [value]
    while level:
        item = level.pop()
        if isinstance(item, dict):
            level.extend(item.values())
        elif isinstance(item, _HOLDERS):
            level.extend(item)
        elif isinstance(item, float):
            yield item


def completed(line: bytes | str, read: Mapping[str, Any], filled: Mapping[str, Any]) -> bytes:
    """JSON of `filled`, which is what was read from `line` and more: the line's own bytes behind the new ones, which spares writing it anew."""
    if not read or any(filled[name] is not value for name, value in read.items()):
        return orjson.dumps(filled)
    text = (line.encode() if isinstance(line, str) else line).strip()
    added = {name: value for name, value in filled.items() if name not in read}
    return b"%b,%b" % (orjson.dumps(added)[:-1], text[1:]) if added else text
