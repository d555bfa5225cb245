"""Prices of ours, as the settings hold them: for models that the price table does not know, at other prices, for a time, or for a service tier."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, model_validator
from pydantic_core import PydanticCustomError

from broker.section import Section
from schemas.job import Instant
from schemas.money import Usd

BATCH_TIER = "batch"
"""The service tier of a provider's own batches, for which a price may name a discount."""

_ALWAYS = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


def _share(value: Decimal) -> Decimal:
    if value >= 1:
        raise ValueError('must be a share below 1, such as "0.5" for half the price')
    return value


class Price(Section):
    """A price of ours for a model, in US dollars per million tokens; it holds from an instant, inclusive, to another, exclusive."""

    model: str
    provider: str = "openai"
    service_tier: str | None = None
    """The tier whose price it is; null: that of every tier that has none of its own."""
    valid_from: Instant | None = None
    valid_until: Instant | None = None
    input: Usd
    output: Usd
    cache_read: Usd | None = None
    cache_creation: Usd | None = None
    reasoning: Usd | None = None
    batch_discount: Annotated[Usd, AfterValidator(_share)] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> "Price":
        if self.span[0] >= self.span[1]:
            raise ValueError("valid_from must be earlier than valid_until")
        return self

    @property
    def span(self) -> tuple[datetime, datetime]:
        """From when until when it holds."""
        return self.valid_from or _ALWAYS[0], self.valid_until or _ALWAYS[1]

    def holds_at(self, at: datetime) -> bool:
        """Whether it is the price at that instant."""
        return self.span[0] <= at < self.span[1]


def check_prices(prices: Sequence[Price]) -> None:
    """Make sure that a model has one price at a time.

    Raises:
        PydanticCustomError: Two of one provider, model and tier hold at once; its place is the second.
    """
    for number, other in _pairs(len(prices)):
        one, two = prices[number], prices[other]
        same = (one.provider, one.model, one.service_tier) == (two.provider, two.model, two.service_tier)
        if same and one.span[0] < two.span[1] and two.span[0] < one.span[1]:
            sentence = (
                f"prices.{number} and prices.{other} are both of {one.provider}'s {one.model} at one time; "
                "let one end by valid_until where the other begins by valid_from, or leave one out"
            )
            raise PydanticCustomError("overlap", "{sentence}", {"sentence": sentence, "place": ["prices", str(other)]})


def _pairs(count: int) -> Iterator[tuple[int, int]]:
    return ((number, other) for other in range(count) for number in range(other))


def chosen(prices: Sequence[Price], service_tier: str | None, at: datetime) -> Price | None:
    """The price of a call, out of those of its model: its tier's own before that of all tiers."""
    valid = [price for price in prices if price.holds_at(at)]
    for tier in (service_tier, None):
        found = next((price for price in valid if price.service_tier == tier), None)
        if found is not None:
            return found
    return None
