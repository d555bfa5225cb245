"""What a control record asks for, and which records ask for nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.codec import NotAJob
from schemas.codes import Code
from schemas.control import Action, Control
from workers.engine.control import read_control


@pytest.mark.parametrize(
    ("value", "headers", "code"),
    [
        (None, (), Code.UNDECODABLE),
        (b"", (), Code.UNDECODABLE),
        (b"cancel", (), Code.UNDECODABLE),
        (b"[]", (), Code.INVALID_CONTROL),
        (b'{"action": "explode"}', (), Code.INVALID_CONTROL),
        (b'{"action": "cancel"}', (), Code.INVALID_CONTROL),
        (b'{"action": "cancel", "job_id": "a", "when": "now"}', (), Code.INVALID_CONTROL),
        (b'{"action": "pause", "tenant": "acme"}', (), Code.NOT_SUPPORTED_YET),
        (b'{"action": "seal", "batch_id": "b", "total": 1, "max_cost_usd": "5"}', (), Code.NOT_SUPPORTED_YET),
        (b'{"action": "seal", "batch_id": "b", "total": 1, "max_errors": 0}', (), Code.NOT_SUPPORTED_YET),
        (b'{"action": "cancel", "job_id": "a"}', [("ce_type", b"aibroker.job.v1")], Code.UNKNOWN_VERSION),
    ],
)
def test_what_asks_for_nothing_has_a_code(value: bytes | None, headers: Any, code: Code) -> None:  # noqa: ANN401 headers of any kind
    read = read_control(value, headers)
    assert isinstance(read, NotAJob)
    assert read.code == code


@pytest.mark.parametrize(
    "headers", [(), [("ce_type", b"aibroker.control.v1")], [("ce_type", b"")], [("ce_type", None)], [("x", None)]]
)
def test_headers_are_optional(headers: Any) -> None:  # noqa: ANN401 headers of any kind
    read = read_control(b'{"action": "cancel", "job_id": "a"}', headers)
    assert read == Control(action=Action.CANCEL, job_id="a")


@given(st.binary(max_size=100), st.lists(st.tuples(st.just("ce_type"), st.none() | st.binary(max_size=30)), max_size=2))
def test_whatever_comes_is_read_or_is_not(value: bytes, headers: Any) -> None:  # noqa: ANN401 headers of any kind
    read_control(value, headers)
