"""Prices are exact to the last digit, resolved once, and honour what a provider's invoice knows: caches, tiers, dates."""

from datetime import UTC, datetime, timedelta
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
from broker.settings import Settings
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


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_a_price_of_ours_holds_for_its_time_and_its_id_says_from_when() -> None:
    now = [at("2026-11-30T23:59:59+00:00")]
    old = override(input="1", valid_until="2026-12-01T00:00:00Z")
    new = override(input="3", valid_from="2026-12-01T00:00:00Z")
    prices = Prices([old, new], lambda: now[0])
    before = prices.resolve("openai", "m")
    now[0] += timedelta(seconds=1)
    after = prices.resolve("openai", "m")
    assert before is not None
    assert after is not None
    assert (before.id, after.id) == ("settings/m", "settings/m@2026-12-01T00:00:00Z")
    million = usage(input_tokens=1_000_000)
    assert (before.cost(million), after.cost(million)) == (Decimal(1), Decimal(3))


def test_outside_its_time_a_price_of_ours_leaves_the_tables() -> None:
    over = override(model="gpt-4o-mini", valid_until="2026-01-01T00:00:00Z")
    price = Prices([over], lambda: at("2026-11-01T00:00:00+00:00")).resolve("openai", "gpt-4o-mini")
    assert price is not None
    assert price.id.startswith("genai-prices/")


def test_a_tiers_own_price_comes_before_that_of_all_tiers() -> None:
    prices = Prices([override(), override(input="0.5", service_tier="flex")])
    flex, other = prices.resolve("openai", "m", "flex"), prices.resolve("openai", "m", "default")
    assert flex is not None
    assert other is not None
    assert (flex.id, other.id) == ("settings/m+flex", "settings/m")
    assert flex.cost(usage(input_tokens=1_000_000)) == Decimal("0.5")


def test_the_batch_discount_is_taken_off_exactly_and_only_in_the_batch_tier() -> None:
    prices = Prices([override(batch_discount="0.333", reasoning="4")])
    batch, usual = prices.resolve("openai", "m", "batch"), prices.resolve("openai", "m")
    assert batch is not None
    assert usual is not None
    tokens = usage(input_tokens=1_000_000, output_tokens=1_000_000, reasoning_output_tokens=500_000)
    assert (usual.cost(tokens), batch.cost(tokens)) == (Decimal(4), Decimal("2.668"))
    assert batch.id == "settings/m+batch"


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([{}, {}], "prices.0 and prices.1 are both of openai's m at one time"),
        ([{"valid_until": "2026-12-02T00:00:00Z"}, {"valid_from": "2026-12-01T00:00:00Z"}], "at one time"),
        ([{"valid_from": "2026-12-02T00:00:00Z", "valid_until": "2026-12-01T00:00:00Z"}], "must be earlier than"),
        ([{"batch_discount": "1.5"}], "a share below 1"),
        ([{"input": "-1"}], "between 0 and"),
    ],
)
def test_prices_that_cannot_be_are_refused(entries: list[dict[str, str]], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace(".", "[.]")):
        Settings.model_validate({"prices": [{"model": "m", "input": "1", "output": "2", **entry} for entry in entries]})


def test_prices_of_other_tiers_and_of_times_that_touch_are_none_too_many() -> None:
    entries = [
        {"service_tier": "flex"},
        {"valid_until": "2026-12-01T00:00:00Z"},
        {"valid_from": "2026-12-01T00:00:00Z"},
    ]
    made = [{"model": "m", "input": "1", "output": "2", **entry} for entry in entries]
    assert len(Settings.model_validate({"prices": made}).prices) == 3
