"""When a target may be called again."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.gates import (
    FIRST_BREAK_S,
    LONGEST_BACKOFF_S,
    LONGEST_BREAK_S,
    PROBE_S,
    RETRY_BURST,
    RETRY_SHARE,
    Breaker,
    Gate,
    Gates,
)


@given(st.lists(st.floats(0, 1_000), min_size=1))
def test_a_cooldown_is_the_longer_of_what_stands_and_what_is_new(untils: list[float]) -> None:
    gate = Gate()
    for until in untils:
        gate.cool(until)
    assert gate.cooldown_until == max(untils)


def test_retries_are_a_share_of_the_calls() -> None:
    gate = Gate()
    assert sum(gate.may_retry() for _ in range(100)) == RETRY_BURST
    for _ in range(20):
        gate.called()
    assert sum(gate.may_retry() for _ in range(100)) == pytest.approx(20 * RETRY_SHARE, abs=1)


def test_retries_that_were_not_needed_are_not_hoarded() -> None:
    gate = Gate()
    for _ in range(10_000):
        gate.called()
    assert sum(gate.may_retry() for _ in range(10_000)) == RETRY_BURST


def test_a_credential_that_works_blocks_nobody() -> None:
    breaker = Breaker()
    assert [breaker.blocked(now) for now in (0, 1, 1e9)] == [None, None, None]
    assert not breaker.accepted()


def test_a_refused_credential_rests_and_is_then_tried_by_one() -> None:
    breaker = Breaker()
    until = breaker.refused(100)
    assert until == 100 + FIRST_BREAK_S
    assert breaker.blocked(101) == until
    assert breaker.blocked(until) is None
    blocked = [breaker.blocked(until + second) for second in (0, 1, 2)]
    assert all(again is not None and again > until for again in blocked)


def test_after_a_good_answer_all_go() -> None:
    breaker = Breaker()
    breaker.refused(100)
    breaker.blocked(200)
    assert breaker.accepted()
    assert not breaker.accepted()
    assert [breaker.blocked(201), breaker.blocked(201)] == [None, None]
    assert breaker.refused(300) == 300 + FIRST_BREAK_S


def test_each_refused_probe_doubles_the_break_up_to_ten_minutes() -> None:
    breaker, now, breaks = Breaker(), 0.0, []
    for _ in range(8):
        until = breaker.refused(now)
        breaks.append(until - now)
        now = until
        assert breaker.blocked(now) is None
    assert breaks == [15, 30, 60, 120, 240, 480, LONGEST_BREAK_S, LONGEST_BREAK_S]


def test_a_thousand_calls_that_were_under_way_make_one_break() -> None:
    breaker = Breaker()
    assert {breaker.refused(100 + number / 1_000) for number in range(1_000)} == {100 + FIRST_BREAK_S}


def test_a_probe_that_says_nothing_lets_another_try() -> None:
    breaker = Breaker()
    breaker.refused(0)
    assert breaker.blocked(20) is None
    assert breaker.blocked(21) is not None
    breaker.gave_up()
    assert breaker.blocked(22) is None


def test_a_probe_that_never_comes_back_is_given_up() -> None:
    breaker = Breaker()
    breaker.refused(0)
    assert breaker.blocked(20) is None
    assert breaker.blocked(20 + PROBE_S - 1) is not None
    assert breaker.blocked(20 + PROBE_S) is None


def test_every_credential_and_model_has_a_gate_of_its_own() -> None:
    gates = Gates(Random(1))
    assert gates.gate("a", "m") is gates.gate("a", "m")
    assert gates.gate("a", "m") is not gates.gate("a", "n")
    assert gates.gate("a", "m") is not gates.gate("b", "m")
    assert gates.breaker("a") is gates.breaker("a")
    assert gates.breaker("a") is not gates.breaker("b")


@given(seed=st.integers(), attempt=st.integers(1, 10_000))
def test_backoff_is_fully_jittered_below_a_bound_that_doubles(seed: int, attempt: int) -> None:
    assert 0 <= Gates(Random(seed)).backoff_s(attempt) <= min(0.5 * 2 ** min(attempt, 99), LONGEST_BACKOFF_S)


def test_backoff_uses_the_whole_range() -> None:
    gates = Gates(Random(7))
    waits = [gates.backoff_s(3) for _ in range(1_000)]
    assert min(waits) < 0.1
    assert max(waits) > 3.9


@given(seed=st.integers(), seconds=st.floats(-10, 1_000))
def test_jitter_is_at_most_a_quarter(seed: int, seconds: float) -> None:
    assert 0 <= Gates(Random(seed)).jitter_s(seconds) <= max(seconds, 0.2) / 4
