"""The simulator's rate limits, in virtual time."""

import pytest

from broker.local.simulator.behaviour import Limits, RetryAfter
from broker.local.simulator.limits import Limiter, retry_headers, spoken


def test_a_minute_holds_as_many_calls_as_the_limit_says() -> None:
    limiter = Limiter(Limits(rpm=60), 0.0)
    assert [limiter.ask(1, 0.0).refused_by for _ in range(61)] == [None] * 60 + ["requests"]


def test_a_refused_call_passes_after_the_wait_that_it_was_told() -> None:
    limiter = Limiter(Limits(rpm=60, burst_s=1), 0.0)
    limiter.ask(1, 0.0)
    refused = limiter.ask(1, 0.25)
    assert refused == ("requests", 0.75)
    assert limiter.ask(1, 0.25 + (refused.wait_s or 0)).refused_by is None


def test_tokens_are_limited_apart_from_requests() -> None:
    limiter = Limiter(Limits(rpm=60, tpm=6000), 0.0)
    assert limiter.ask(6000, 0.0).refused_by is None
    assert limiter.ask(100, 0.0) == ("tokens", 1.0)
    assert limiter.ask(100, 1.0).refused_by is None


def test_a_call_larger_than_the_bucket_is_told_no_time() -> None:
    assert Limiter(Limits(tpm=100), 0.0).ask(101, 0.0) == ("tokens", None)


def test_a_refused_call_takes_nothing_unless_told_so() -> None:
    free, counted = Limiter(Limits(rpm=60, burst_s=1), 0.0), Limiter(Limits(rpm=60, burst_s=1, count_refused=True), 0.0)
    for limiter in (free, counted):
        limiter.ask(1, 0.0)
        limiter.ask(1, 0.0)
    assert free.ask(1, 1.0).refused_by is None
    assert counted.ask(1, 1.0).refused_by == "requests"


def test_every_answer_tells_limit_rest_and_reset() -> None:
    limiter = Limiter(Limits(rpm=60, tpm=6000), 0.0)
    limiter.ask(100, 0.0)
    assert limiter.headers(0.0) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5900",
        "x-ratelimit-reset-tokens": "1s",
    }


def test_headers_can_be_kept_back_until_the_first_refusal() -> None:
    limiter = Limiter(Limits(rpm=1, headers="after_429"), 0.0)
    limiter.ask(1, 0.0)
    assert limiter.headers(0.0) == {}
    limiter.ask(1, 0.0)
    assert limiter.headers(0.0)["x-ratelimit-remaining-requests"] == "0"


def test_a_halved_limit_does_not_fill_the_bucket_again() -> None:
    limiter = Limiter(Limits(rpm=60), 0.0)
    for _ in range(60):
        limiter.ask(1, 0.0)
    limiter.change(Limits(rpm=30), 0.0)
    assert limiter.ask(1, 0.0) == ("requests", 2.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.12, "120ms"), (8.64, "8.64s"), (60, "1m0s"), (90.951, "1m30.951s"), (3723, "1h2m3s")],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert spoken(seconds) == text


@pytest.mark.parametrize(
    ("style", "header"),
    [
        ("seconds", {"retry-after": "2"}),
        ("milliseconds", {"retry-after-ms": "1200"}),
        ("date", {"retry-after": "Thu, 01 Jan 1970 00:00:12 GMT"}),
        ("none", {}),
    ],
)
def test_retry_after_is_told_in_the_chosen_way(style: RetryAfter, header: dict[str, str]) -> None:
    assert retry_headers(style, 1.2, 10.0) == header
