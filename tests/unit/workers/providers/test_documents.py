"""What of a provider's JSON can be stored as a document, and what is kept as text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.providers.documents import MAX_DEPTH, MAX_INTEGER, MIN_INTEGER, holds, is_suspicious, parse, parse_object


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": 1}',
        b'{"n": 9223372036854775807, "m": -9223372036854775808}',
        b'{"id": "123456789012345678901234567890"}',
        b'{"f": 0.12345678901234567890123, "g": 12345678901234567890.5}',
        b'{"text": "a NUL \\u0000 in a value"}',
        b'{"text": "' + b"{[" * 200 + b'"}',
        b'{"a.b": {"$c": null}}',
    ],
)
def test_ordinary_json_is_storable(text: bytes) -> None:
    assert parse(text) == (json.loads(text), True)


@pytest.mark.parametrize(
    "text",
    [
        b'{"n": 9223372036854775808}',
        b'{"n": -9223372036854775809}',
        b'{"n": [1, {"m": 123456789012345678901234567890}]}',
        b'{"a NUL \\u0000 in a key": 1}',
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        b'{"a":' * 300 + b"1" + b"}" * 300,
        b'{"n": NaN}',
        b'{"n": 1e400}',
        b'{"text": "a lone \\ud800 surrogate"}',
        b'{"text": "a raw\nnewline"}',
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_bson_or_strict_json_cannot_hold_is_read_and_not_storable(text: bytes) -> None:
    assert parse(text)[1] is False


@pytest.mark.parametrize("text", [b"", b"<html>", b"{", b'{"a": \xff}', b"[" * 100_000, b"\x00"])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="it is"):
        parse(text)


@pytest.mark.parametrize("text", [b"[]", b"null", b"1", b'"text"'])
def test_what_is_no_object_is_refused_where_one_is_wanted(text: bytes) -> None:
    with pytest.raises(ValueError, match="no JSON object"):
        parse_object(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(VALUES)
def test_the_cheap_look_never_misses_what_the_exact_one_finds(value: object) -> None:
    text = json.dumps(value).encode()
    assert is_suspicious(text) or holds(text)


@given(st.integers())
def test_an_integer_is_storable_exactly_within_64_bits(number: int) -> None:
    assert parse(str(number).encode())[1] is (MIN_INTEGER <= number <= MAX_INTEGER)
