"""A trace context comes in by two headers, is one text in between, and goes out by two headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.trace_context import MAX_STATE, trace_headers, trace_of, with_parent

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OWN = "00-0af7651916cd43dd8448eb211c80319c-00000000000000aa-01"
STATE = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"


def read(state: bytes, parent: str = PARENT) -> str | None:
    return trace_of({"traceparent": parent.encode(), "tracestate": state})


def test_what_came_in_goes_out() -> None:
    trace = read(STATE.encode())
    assert trace is not None
    assert trace_headers(trace) == [("traceparent", PARENT.encode()), ("tracestate", STATE.encode())]


def test_a_context_without_a_state_has_one_header() -> None:
    assert trace_of({"traceparent": PARENT.encode()}) == PARENT
    assert trace_headers(PARENT) == [("traceparent", PARENT.encode())]


def test_a_state_without_a_parent_is_nothing() -> None:
    assert trace_of({"tracestate": STATE.encode()}) is None
    assert read(STATE.encode(), parent="00-zz") is None


@pytest.mark.parametrize("state", [b"", b" ", b",", b"a=\xff", b"a=\n", "a=é".encode()])
def test_a_state_that_cannot_be_read_leaves_the_parent(state: bytes) -> None:
    assert read(state) == PARENT


def test_of_a_long_state_long_members_go_first_and_then_the_last_ones() -> None:
    members = ["long=" + "x" * 124, *(f"k{number}={'v' * 50}" for number in range(20))]
    trace = read(", ".join(members).encode())
    assert trace is not None
    state = trace.removeprefix(f"{PARENT} ")
    assert state == ",".join(members[1:10])
    assert len(state) <= MAX_STATE < len(state) + len(f",{members[10]}")


def test_a_span_of_our_own_keeps_the_state() -> None:
    assert with_parent(f"{PARENT} {STATE}", OWN) == f"{OWN} {STATE}"
    assert with_parent(PARENT, OWN) == with_parent(None, OWN) == OWN


@given(st.binary(max_size=2_000), st.binary(max_size=100) | st.just(PARENT.encode()))
def test_whatever_comes_is_one_line_of_bounded_length(state: bytes, parent: bytes) -> None:
    trace = trace_of({"traceparent": parent, "tracestate": state})
    assert trace is None or (len(trace) <= len(PARENT) + 1 + MAX_STATE and trace.isascii() and trace.isprintable())
