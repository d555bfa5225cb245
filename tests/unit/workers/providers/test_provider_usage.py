"""The counts that a provider reports become the five of the ledger."""

import pytest

from workers.providers.protocol import Tokens
from workers.providers.usage import UsageMalformed, read_usage


def test_the_counts_of_chat_are_read() -> None:
    usage = {
        "prompt_tokens": 19,
        "completion_tokens": 10,
        "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 6, "accepted_prediction_tokens": 0},
    }
    assert read_usage(usage) == Tokens(19, 4, 0, 10, 6)


def test_the_counts_of_responses_are_read() -> None:
    usage = {
        "input_tokens": 36,
        "input_tokens_details": {"cached_tokens": 8},
        "output_tokens": 87,
        "output_tokens_details": {"reasoning_tokens": 64},
        "total_tokens": 123,
    }
    assert read_usage(usage) == Tokens(36, 8, 0, 87, 64)


def test_the_counts_of_embeddings_are_input_only() -> None:
    assert read_usage({"prompt_tokens": 8, "total_tokens": 8}) == Tokens(input_tokens=8)


@pytest.mark.parametrize("usage", [None, {}])
def test_no_report_is_no_usage(usage: object) -> None:
    assert read_usage(usage) is None


def test_details_that_are_null_count_nothing() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": None}
    assert read_usage({**usage, "completion_tokens_details": {"reasoning_tokens": None}}) == Tokens(1, 0, 0, 2, 0)


def test_reasoning_that_is_counted_apart_is_added_to_the_output() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 35}
    assert read_usage({**usage, "completion_tokens_details": {"reasoning_tokens": 20}}) == Tokens(10, 0, 0, 25, 20)
    usage = {"prompt_tokens": 10, "completion_tokens": 30, "total_tokens": 60}
    assert read_usage({**usage, "completion_tokens_details": {"reasoning_tokens": 20}}) == Tokens(10, 0, 0, 50, 20)


def test_a_cache_that_is_counted_apart_is_added_to_the_input() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 1}
    details = {"cached_tokens": 90, "cache_write_tokens": 5}
    assert read_usage({**usage, "prompt_tokens_details": details}) == Tokens(105, 90, 5, 1, 0)


@pytest.mark.parametrize("count", [-1, 1.0, "3", True, 10**10, [], {}])
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
def test_a_count_that_is_none_is_refused(name: str, count: object) -> None:
    with pytest.raises(UsageMalformed):
        read_usage({"prompt_tokens": 1, "completion_tokens": 1, name: count})


@pytest.mark.parametrize(
    "usage", [[], "many", 7, {"prompt_tokens_details": 3}, {"completion_tokens_details": {"reasoning_tokens": -1}}]
)
def test_a_usage_of_another_shape_is_refused(usage: object) -> None:
    with pytest.raises(UsageMalformed):
        read_usage(usage)
