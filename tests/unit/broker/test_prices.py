"""Prices are exact to the last digit, resolved once, and honour what a provider's invoice knows: caches, tiers, dates."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price
from hypothesis import given
from hypothesis import strategies as st

from broker import own_prices
from broker.local.simulator import prices as simulator
from broker.prices import Prices
from schemas.usage import Usage

PRICES = Prices()
counts = st.integers(min_value=0, max_value=2_000_000)


def usage(**given_counts: int) -> Usage:
    return Usage(**given_counts)


def override(**fields: str) -> own_prices.Price:
    return own_prices.Price.model_validate({"model": "m", "input": "1", "output": "2", **fields})


def test_a_cached_read_costs_its_own_price_and_the_rest_of_the_input_the_fresh_one() -> None:
    price = Prices().resolve("openai", "gpt-4o-mini")
    assert price is not None
    tokens = usage(input_tokens=812, cache_read_input_tokens=100, output_tokens=143)
    assert price.cost(tokens) == Decimal(712) * Decimal("0.00000015") + Decimal("0.0000075") + Decimal("0.0000858")


def test_the_id_names_source_version_and_model() -> None:
    prices = Prices([override(model="own")])
    table, own = prices.resolve("openai", "gpt-4o-mini-2024-07-18"), prices.resolve("openai", "own")
    assert table is not None
    assert own is not None
    source, version, provider, model = table.id.split("/")
    assert (source, provider, model) == ("genai-prices", "openai", "gpt-4o-mini")
    assert version[0].isdigit()
    assert own.id == "settings/own"


@pytest.mark.parametrize("model", sorted(simulator.MODELS))
def test_our_price_and_the_simulators_agree_to_the_last_digit(model: str) -> None:
    ours, theirs = Prices().resolve("openai", model), simulator.MODELS[model].price
    assert ours is not None
    tokens = usage(input_tokens=123_457, cache_read_input_tokens=1_003, output_tokens=977, reasoning_output_tokens=31)
    assert ours.cost(tokens) == Decimal(simulator.dollars(simulator.cost(theirs, 123_457, 1_003, 977)))


@given(fresh=counts, read=counts, created=counts, output=counts)
def test_our_sums_are_those_of_the_price_tables_own_calculator(
    fresh: int, read: int, created: int, output: int
) -> None:
    size = fresh + read + created
    tokens = usage(
        input_tokens=size, cache_read_input_tokens=read, cache_creation_input_tokens=created, output_tokens=output
    )
    theirs = TheirUsage(input_tokens=size, cache_read_tokens=read, cache_write_tokens=created, output_tokens=output)
    for provider, model in (("openai", "gpt-5.4"), ("anthropic", "claude-sonnet-4-5"), ("openai", "gpt-5-nano")):
        price = PRICES.resolve(provider, model)
        assert price is not None
        assert price.cost(tokens) == calc_price(theirs, model, provider_id=provider).total_price


def test_a_long_context_is_billed_at_its_tier_as_a_whole() -> None:
    price = Prices().resolve("openai", "gpt-5.4")
    assert price is not None
    start, longer = price.tiers[0]
    assert price.amount(usage(input_tokens=start)) == start * price.rates.input
    assert price.amount(usage(input_tokens=start + 1, output_tokens=1)) == (start + 1) * longer.input + longer.output
    assert longer.input > price.rates.input


def test_a_model_without_a_price_is_not_known() -> None:
    prices = Prices()
    assert prices.resolve("openai", "no-such-model") is None
    assert prices.resolve("no-such-provider", "gpt-4o") is None
    assert prices.resolve("openai", "whisper-1") is None  # billed by the hour, which no token count shows


def test_a_free_model_has_the_price_nothing() -> None:
    price = Prices().resolve("openai", "omni-moderation-latest")
    assert price is not None
    assert price.cost(usage(input_tokens=10**9)) == 0


def test_an_override_comes_before_the_table_and_only_for_its_provider() -> None:
    prices = Prices([override(model="gpt-4o-mini", input="7")])
    own, azure = prices.resolve("openai", "gpt-4o-mini"), prices.resolve("azure.ai.openai", "gpt-4o-mini")
    assert own is not None
    assert azure is not None
    assert own.cost(usage(input_tokens=1_000_000)) == 7
    assert azure.id.startswith("genai-prices/")
    assert "/azure/" in azure.id


@given(
    dollars=st.decimals(min_value=0, max_value=10_000, places=17, allow_nan=False),
    tokens=st.integers(min_value=0, max_value=10**12),
)
def test_a_price_finer_than_a_pico_dollar_stays_exact(dollars: Decimal, tokens: int) -> None:
    price = Prices([override(input=str(dollars))]).resolve("openai", "m")
    assert price is not None
    assert Fraction(price.cost(usage(input_tokens=tokens))) == Fraction(dollars) * tokens / 1_000_000


def test_counts_that_do_not_fit_each_other_never_make_a_negative_cost() -> None:
    price = Prices([override()]).resolve("openai", "m")
    assert price is not None
    assert price.cost(
        usage(input_tokens=1, cache_read_input_tokens=5, output_tokens=1, reasoning_output_tokens=9)
    ) == Decimal("0.000007")


def test_a_service_tier_with_a_price_of_its_own_is_billed_so() -> None:
    prices = Prices(clock=lambda: datetime(2027, 1, 1, tzinfo=UTC))
    standard, flex = prices.resolve("openai", "gpt-5", "default"), prices.resolve("openai", "gpt-5", "flex")
    assert standard is not None
    assert flex is not None
    assert flex.rates.input * 2 == standard.rates.input
    assert standard == prices.resolve("openai", "gpt-5")
    assert flex.id.endswith("+flex")


def test_a_price_that_depends_on_the_hour_changes_with_the_clock() -> None:
    now = [datetime(2026, 12, 1, 16, 29, 59, tzinfo=UTC)]
    prices = Prices(clock=lambda: now[0])
    day = prices.resolve("deepseek", "deepseek-chat")
    now[0] = datetime(2026, 12, 1, 16, 30, tzinfo=UTC)
    night = prices.resolve("deepseek", "deepseek-chat")
    assert day is not None
    assert night is not None
    assert night.rates.input < day.rates.input
    assert night.id != day.id


def test_a_model_is_looked_up_once() -> None:
    looks: list[datetime] = []

    def clock() -> datetime:
        looks.append(datetime(2026, 12, 1, tzinfo=UTC))
        return looks[-1]

    prices = Prices(clock=clock)
    first = prices.resolve("openai", "gpt-4o-mini")
    assert prices.resolve("openai", "gpt-4o-mini") is first
    assert len(looks) == 1


def test_names_that_are_no_models_are_not_kept() -> None:
    prices = Prices()
    for number in range(20):
        assert prices.resolve("openai", f"no-such-model-{number}") is None
    assert not prices._known
    assert not prices._passing
