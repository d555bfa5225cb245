"""Rates and what is left."""

import pytest

from broker.cli.pace import Pace, roughly


def test_nothing_is_known_before_the_second_look() -> None:
    pace = Pace()
    assert (pace.rate, pace.left_s(10)) == (0.0, None)
    pace.look(100.0, 5)
    assert (pace.rate, pace.left_s(10)) == (0.0, None)
    assert pace.told(10) == "0/s"


def test_the_rest_is_estimated_from_the_rate() -> None:
    pace = Pace()
    pace.look(100.0, 5)
    pace.look(110.0, 105)
    assert (pace.rate, pace.left_s(600)) == (10.0, 60.0)
    assert pace.told(600) == "10/s, about 60 s left"


def test_only_the_last_minute_counts() -> None:
    pace = Pace()
    for second in range(600):
        pace.look(float(second), second * 100)
    for second in range(600, 700):
        pace.look(float(second), 60_000 + second - 600)
    assert pace.rate == pytest.approx(1.0)


def test_a_batch_that_grows_backwards_has_no_rate() -> None:
    pace = Pace()
    pace.look(1.0, 10)
    pace.look(2.0, 5)
    assert pace.rate == 0.0


def test_slow_rates_keep_their_digits() -> None:
    pace = Pace()
    pace.look(0.0, 0)
    pace.look(40.0, 1)
    assert pace.told(1000) == "0.03/s, about 11 h 7 min left"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, "0 s"), (119, "119 s"), (120, "2 min"), (7_199, "120 min"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h")],
)
def test_times_are_told_as_people_do(seconds: float, told: str) -> None:
    assert roughly(seconds) == told
