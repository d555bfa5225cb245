"""What a call costs: exact prices a token, from the data of `genai-prices` and from overrides in the settings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from types import MappingProxyType
from typing import NamedTuple, Protocol

from genai_prices import __version__ as genai_prices_version
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ConditionalPrice, ModelInfo, ModelPrice, StartDateConstraint, TieredPrices

from broker import own_prices

PICO_DIGITS = 12
"""Amounts are counted in 10^-12 dollars; in finer ones where a price does not fit."""
MILLION_DIGITS = 6

_EXACT = Context(prec=200)
# OpenTelemetry's names that the table knows by another one, or would take for another provider.
_PROVIDERS: Mapping[str, str] = MappingProxyType(
    {"azure.ai.openai": "azure", "azure.ai.inference": "azure", "x_ai": "x-ai"}
)


class Tokens(Protocol):
    """The five counts of a call; the first includes both cache counts, `output_tokens` includes reasoning."""

    @property
    def input_tokens(self) -> int:
        """All of the input, read from a cache or not."""

    @property
    def cache_read_input_tokens(self) -> int:
        """What of the input was read from the provider's cache."""

    @property
    def cache_creation_input_tokens(self) -> int:
        """What of the input was written to the provider's cache."""

    @property
    def output_tokens(self) -> int:
        """All of the output."""

    @property
    def reasoning_output_tokens(self) -> int:
        """What of the output was reasoning."""


class Rates(NamedTuple):
    """Whole units of 10^-scale dollars: for one token of each kind, and for the request itself."""

    input: int
    cache_read: int
    cache_creation: int
    output: int
    reasoning: int
    request: int


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one model; `id` names source, version and model and goes to the ledger.

    `rates` are in 10^-`scale` dollars. `tiers` are (start, rates), the highest first: a call with more input tokens than
    `start` is billed at that tier's rates as a whole, as providers do with long contexts.
    """

    id: str
    rates: Rates
    tiers: tuple[tuple[int, Rates], ...] = ()
    scale: int = PICO_DIGITS

    def amount(self, tokens: Tokens) -> int:
        """What the call costs, in 10^-`scale` dollars."""
        rates, size = self.rates, tokens.input_tokens
        for start, longer in self.tiers:
            if size > start:
                rates = longer
                break
        read, created = tokens.cache_read_input_tokens, tokens.cache_creation_input_tokens
        output, reasoning = tokens.output_tokens, tokens.reasoning_output_tokens
        return (
            max(size - read - created, 0) * rates.input
            + read * rates.cache_read
            + created * rates.cache_creation
            + max(output - reasoning, 0) * rates.output
            + min(reasoning, output) * rates.reasoning
            + rates.request
        )

    def dollars(self, units: int) -> Decimal:
        """So many 10^-`scale` dollars, exactly."""
        return _EXACT.scaleb(Decimal(units), -self.scale)

    def cost(self, tokens: Tokens) -> Decimal:
        """What the call costs in US dollars, exactly."""
        return self.dollars(self.amount(tokens))


class Prices:
    """Prices by provider and model, each resolved once; `overrides` come before the table's.

    A price of the table that depends on the date or the hour is looked up again each minute of `clock`.
    """

    def __init__(
        self, overrides: Sequence[own_prices.Price] = (), clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._overrides: dict[tuple[str, str], list[own_prices.Price]] = {}
        for entry in overrides:
            self._overrides.setdefault((entry.provider, entry.model), []).append(entry)
        self._clock = clock
        self._known: dict[tuple[str, str, str | None], Price | None] = {}
        self._passing: dict[tuple[str, str, str | None], tuple[Price | None, datetime]] = {}

    def resolve(self, provider: str, model: str, service_tier: str | None = None) -> Price | None:
        """Return the price of a provider's model, or None where none is known: such a model must not be called.

        Args:
            provider: OpenTelemetry's name of the provider, or the table's.
            model: The name as it is requested; dated names and aliases are known.
            service_tier: As the provider answered; only tiers with prices of their own make a difference.
        """
        key = (provider, model, service_tier)
        try:
            return self._known[key]
        except KeyError:
            pass
        now = self._clock()
        price, until = self._passing.get(key, (None, now))
        if now < until:
            return price
        price, passing = self._look_up_and_keep(key, now)
        if passing:
            self._passing[key] = price, now.replace(second=0, microsecond=0) + timedelta(minutes=1)
        return price

    def resolve_at(self, at: datetime, provider: str, model: str, service_tier: str | None = None) -> Price | None:
        """Return the price as it was at an instant, exact to it; one that holds at all times is looked up once."""
        key = (provider, model, service_tier)
        if (known := self._known.get(key)) is not None:
            return known
        return self._look_up_and_keep(key, at)[0]

    def _look_up_and_keep(self, key: tuple[str, str, str | None], at: datetime) -> tuple[Price | None, bool]:
        """Look a price up; one that holds at all times is kept, and no name that a job made up: there is no end to them."""
        price, passing = self._look_up(*key, at)
        if price is not None and not passing:
            self._known[key] = price
        return price, passing

    def _look_up(self, provider: str, model: str, service_tier: str | None, now: datetime) -> tuple[Price | None, bool]:
        """Return the price, and whether it may be another one in the next minute."""
        ours = self._overrides.get((provider, model), ())
        passing = any(entry.valid_from or entry.valid_until for entry in ours)
        if override := own_prices.chosen(ours, service_tier, now):
            return _of_settings(override, service_tier), passing
        try:
            found, info = get_snapshot().find_provider_model(model, None, _PROVIDERS.get(provider, provider), None)
        except LookupError:
            return None, passing
        conditions = info.prices if isinstance(info.prices, list) else []
        standard = info.get_prices(now)
        name = f"genai-prices/{genai_prices_version}/{found.id}/{info.id}{_condition(conditions, standard)}"
        prices = standard
        if service_tier:
            prices = info.get_prices(now, {"service_tier": service_tier})
            if prices != standard:
                name += f"+{service_tier}"
        return _of_table(name, prices), passing or len(conditions) > 1 or _varies(info, service_tier)


def _varies(info: ModelInfo, service_tier: str | None) -> bool:
    return service_tier is not None and any(variant.constraint for variant in info.price_variants or ())


def _condition(conditions: Sequence[ConditionalPrice], chosen: ModelPrice) -> str:
    """Return what tells the chosen one of several prices of a model: from which day, or from which hour on it holds."""
    constraint = next((entry.constraint for entry in conditions if entry.prices is chosen), None)
    if constraint is None:
        return ""
    if isinstance(constraint, StartDateConstraint):
        return f"@{constraint.start_date}"
    return f"@{constraint.start_time:%H:%M}"


class _Dollars(NamedTuple):
    """Dollars a million tokens of each kind, and dollars a million requests."""

    input: Decimal
    cache_read: Decimal
    cache_creation: Decimal
    output: Decimal
    reasoning: Decimal
    request: Decimal = Decimal(0)


def _of_settings(entry: own_prices.Price, service_tier: str | None) -> Price:
    dollars = _Dollars(
        input=entry.input,
        cache_read=entry.input if entry.cache_read is None else entry.cache_read,
        cache_creation=entry.input if entry.cache_creation is None else entry.cache_creation,
        output=entry.output,
        reasoning=entry.output if entry.reasoning is None else entry.reasoning,
    )
    discount = entry.batch_discount if service_tier == own_prices.BATCH_TIER else None
    if discount is not None:
        left = _EXACT.subtract(Decimal(1), discount)
        dollars = _Dollars(*(_EXACT.multiply(amount, left) for amount in dollars))
    since = f"@{entry.valid_from:%Y-%m-%dT%H:%M:%SZ}" if entry.valid_from else ""
    tier = f"+{service_tier}" if entry.service_tier or discount is not None else ""
    return _price(f"settings/{entry.model}{since}{tier}", [(0, dollars)])


def _of_table(name: str, prices: ModelPrice) -> Price | None:
    """Return a price of the table; None for a model that is billed by what a token count does not show (hours, characters, pages)."""
    entries: dict[str, Decimal | TieredPrices] = {
        key: value for key, value in vars(prices).items() if value is not None
    }
    if entries and not entries.keys() & {"input_mtok", "output_mtok", "requests_kcount"}:
        return None
    starts = {tier.start for entry in entries.values() if isinstance(entry, TieredPrices) for tier in entry.tiers}

    def at(key: str, size: int) -> Decimal | None:
        entry = entries.get(key)
        if isinstance(entry, TieredPrices):
            return next((tier.price for tier in reversed(entry.tiers) if size > tier.start), entry.base)
        return entry

    levels: list[tuple[int, _Dollars]] = []
    for start in [-1, *sorted(starts)]:
        size = start + 1
        fresh, output = at("input_mtok", size) or Decimal(0), at("output_mtok", size) or Decimal(0)
        read, created, reasoning = (
            at(key, size) for key in ("cache_read_mtok", "cache_write_mtok", "output_reasoning_mtok")
        )
        request = (at("requests_kcount", size) or Decimal(0)).scaleb(3, _EXACT)
        levels.append(
            (
                start,
                _Dollars(
                    input=fresh,
                    cache_read=fresh if read is None else read,
                    cache_creation=fresh if created is None else created,
                    output=output,
                    reasoning=output if reasoning is None else reasoning,
                    request=request,
                ),
            )
        )
    return _price(name, levels)


def _price(name: str, levels: Sequence[tuple[int, _Dollars]]) -> Price:
    """Return the price in the coarsest unit, pico-dollars or finer, in which every rate is whole."""
    digits = max(max(_decimals(amount) for amount in dollars) for _, dollars in levels)
    scale = max(PICO_DIGITS, digits + MILLION_DIGITS)
    rates = [
        (start, Rates(*(int(amount.scaleb(scale - MILLION_DIGITS, _EXACT)) for amount in dollars)))
        for start, dollars in levels
    ]
    return Price(id=name, rates=rates[0][1], tiers=tuple(reversed(rates[1:])), scale=scale)


def _decimals(amount: Decimal) -> int:
    """How many digits the amount has behind the point, trailing zeros apart."""
    exponent = amount.normalize(_EXACT).as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
