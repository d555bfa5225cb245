"""The simulator's prices: exact, and the same as the public tables that a ledger is kept by."""

from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price
from hypothesis import given
from hypothesis import strategies as st

from broker.local.simulator.prices import MODELS, PICO, Price, cost, dollars


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("counts", [(812, 0, 143), (812, 100, 143), (1, 1, 0), (7, 0, 1)])
def test_a_call_costs_what_the_public_table_says_to_the_last_digit(name: str, counts: tuple[int, int, int]) -> None:
    prompt, cached, output = counts
    output = output if MODELS[name].price.output else 0
    usage = Usage(input_tokens=prompt, cache_read_tokens=cached, output_tokens=output)
    public = calc_price(usage, name, provider_id="openai").total_price
    assert Decimal(dollars(cost(MODELS[name].price, prompt, cached, output))) == public


def test_a_snapshot_costs_what_its_short_name_costs() -> None:
    assert all(MODELS[model.snapshot].price == model.price for model in MODELS.values())


def test_cached_tokens_are_a_part_of_the_prompt() -> None:
    assert cost(Price(10, 1, 100), prompt_tokens=5, cached_tokens=2, output_tokens=3) == 3 * 10 + 2 * 1 + 3 * 100


@pytest.mark.parametrize(
    ("pico", "text"), [(0, "0"), (1, "0.000000000001"), (PICO, "1"), (31_200_000, "0.0000312"), (10 * PICO, "10")]
)
def test_dollars_are_written_without_exponent_or_trailing_zeros(pico: int, text: str) -> None:
    assert dollars(pico) == text


@given(st.integers(0, 10**20))
def test_dollars_are_exact(pico: int) -> None:
    assert Decimal(dollars(pico)) * PICO == pico
