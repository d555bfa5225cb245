"""Reading a provider's JSON: fast where it is ordinary, kept as text where BSON or strict JSON cannot hold it."""

import json

import orjson

DIGIT, OPEN = ord("0"), ord("{")
SHAPE = bytes(
    DIGIT if chr(byte).isascii() and chr(byte).isdigit() else OPEN if byte == ord("[") else byte for byte in range(256)
)
LONG = b"0" * 19
"""The digits of the first integers that 64 bits may not hold."""
MAX_DEPTH = 90
"""MongoDB takes 100 levels, and the answer is a few levels down in the document of its job."""
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1


def parse(text: bytes) -> tuple[object, bool]:
    """Read JSON: its value, and whether BSON holds it without a change.

    What only a lenient reader takes (NaN, 1e400, lone surrogates, raw control characters) is not storable.

    Raises:
        ValueError: It is no JSON at all.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return leniently(text), False
    return value, not is_suspicious(text) or holds(text)


def parse_object(text: bytes) -> tuple[dict[str, object], bool]:
    """Read a JSON object, as `parse` does, and whether BSON holds it.

    Raises:
        ValueError: It is no JSON, or no object.
    """
    value, storable = parse(text)
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - the text is wrong, not the caller's type
    return value, storable


def leniently(text: bytes) -> object:
    """Read what is JSON in spirit; integers beyond 64 bits as floats."""
    try:
        return json.loads(text.decode("utf-8-sig"), strict=False, parse_int=_integer)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError:
        raise ValueError("it is no JSON") from None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < len(LONG) else float(digits)


def is_suspicious(text: bytes) -> bool:
    """Whether the text may hold what BSON cannot, judged by its bytes alone: cheap, and never a wrong no."""
    shape = text.translate(SHAPE)
    return (
        shape.count(b"{") > MAX_DEPTH
        or (LONG in shape and has_long_integer(shape))
        or (b"\\" in text and b"\\u0000" in text)
    )


def has_long_integer(shape: bytes) -> bool:
    """Whether a run of 19 digits stands anywhere but right after a point, where the digits of floats are."""
    at = shape.find(LONG)
    while at >= 0:
        if shape[at - 1 : at] != b".":
            return True
        at = shape.find(LONG, at + len(LONG))
    return False


def holds(text: bytes) -> bool:
    """Whether BSON holds the JSON text: integers of 64 bits, no NUL in a key, not too deep. Exact, and slow."""
    try:
        pending = [(json.loads(text), 1)]
    except (ValueError, RecursionError):
        return False
    while pending:
        value, depth = pending.pop()
        if isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
            return False
        if isinstance(value, dict):
            if any("\0" in key for key in value):
                return False
            value = list(value.values())
        if isinstance(value, list):
            if depth > MAX_DEPTH:
                return False
            pending += [(inner, depth + 1) for inner in value]
    return True
