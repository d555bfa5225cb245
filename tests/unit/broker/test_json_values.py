"""What is done with JSON values and their text."""

import orjson
import pytest

from broker.json_values import completed


@pytest.mark.parametrize(
    "line",
    [b'{"a": 1}', b' {"a":1}\r', '{"a":1}', b"{}", b'{"a": null}', b'{"a": 2, "a": 1}', b'{"b": {"c": [1, "}"]}}'],
)
@pytest.mark.parametrize("added", [{}, {"tenant": "acme"}, {"a": "x", "t": [1]}])
def test_a_completed_line_says_what_its_object_says(line: bytes | str, added: dict[str, object]) -> None:
    read = orjson.loads(line)
    filled = {**added, **{name: value for name, value in read.items() if value is not None}}
    filled |= {name: None for name in read if name not in filled}
    assert orjson.loads(completed(line, read, filled)) == filled


def test_a_line_that_lacks_nothing_stays_as_it_is() -> None:
    line = b'{ "a": [1,  2] }'
    read = orjson.loads(line)
    assert completed(line, read, dict(read)) == line
