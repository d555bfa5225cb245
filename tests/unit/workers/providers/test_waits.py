"""How long a provider asks us to wait."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.providers.waits import MAX_WAIT_S, duration_s, retry_after_s

NOW = 1_790_000_000.0


def wait(headers: dict[str, str], *, hints: tuple[str, ...] = (), message: str = "") -> float | None:
    return retry_after_s(headers, hints, message, NOW)


def test_nobody_said_how_long() -> None:
    assert wait({}) is None


@pytest.mark.parametrize(("text", "seconds"), [("20", 20.0), ("0", 0.0), ("1.5", 1.5), (" 7 ", 7.0)])
def test_retry_after_is_read_as_seconds(text: str, seconds: float) -> None:
    assert wait({"retry-after": text}) == seconds


def test_a_retry_after_date_is_read_as_seconds_from_now() -> None:
    assert wait({"retry-after": formatdate(NOW + 90, usegmt=True)}) == 90


def test_a_retry_after_date_that_is_over_is_no_wait() -> None:
    assert wait({"retry-after": formatdate(NOW - 90, usegmt=True)}) == 0


def test_retry_after_in_milliseconds_is_read() -> None:
    assert wait({"retry-after-ms": "1500"}) == 1.5


def test_the_longest_of_what_was_said_counts() -> None:
    assert wait({"retry-after-ms": "1500", "retry-after": "1"}, hints=("2s",), message="try again in 3s") == 3


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6m0s", 360), ("8.64s", 8.64), ("20ms", 0.02), ("1d2h", 93_600), ("1h2m3.5s", 3_723.5), ("12", 12), ("0s", 0)],
)
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "-5", "6x", "nan", "inf", "1e999", "s", "6m0s!", "٣s"])
def test_what_is_no_duration_is_ignored(text: str) -> None:
    assert duration_s(text) is None


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached for gpt-4o on tokens per min (TPM). Please try again in 1.2s. Visit", 1.2),
        ("Please try again in 6m0s.", 360),
        ("Please try again in 250ms.", 0.25),
        ("Please retry after 20 seconds.", 20),
        ("Please retry in 41.5s.", 41.5),
        ("Try again in 2 minutes", 120),
    ],
)
def test_the_words_of_a_message_are_read(message: str, seconds: float) -> None:
    assert wait({}, message=message) == pytest.approx(seconds)


def test_the_reset_of_the_limit_that_is_used_up_counts() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert wait(headers) == 360


def test_a_reset_counts_only_where_nothing_else_was_said() -> None:
    assert wait({"x-ratelimit-reset-requests": "6m0s", "retry-after": "2"}) == 2


@pytest.mark.parametrize("reset", [f"{NOW + 30:.0f}", f"{(NOW + 30) * 1000:.0f}", "30"])
def test_a_reset_may_be_an_epoch_in_seconds_or_milliseconds(reset: str) -> None:
    assert wait({"x-ratelimit-reset": reset}) == 30


@pytest.mark.parametrize("headers", [{"retry-after": "99999999"}, {"retry-after-ms": "99999999999999"}])
def test_an_absurd_wait_is_cut_to_a_day(headers: dict[str, str]) -> None:
    assert wait(headers) == MAX_WAIT_S


@given(st.text(max_size=60), st.text(max_size=200))
def test_whatever_stands_there_is_a_wait_within_bounds_or_none(text: str, message: str) -> None:
    for name in ("retry-after", "retry-after-ms", "x-ratelimit-reset-tokens", "x-ratelimit-reset"):
        seconds = wait({name: text}, hints=(text,), message=message)
        assert seconds is None or 0 <= seconds <= MAX_WAIT_S
