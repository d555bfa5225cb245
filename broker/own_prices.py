"""Prices of ours, as the settings hold them: for models that the price table does not know, or at other prices."""

from broker.section import Section
from schemas.money import Usd


class Price(Section):
    """A price of ours for a model, in US dollars per million tokens."""

    model: str
    provider: str = "openai"
    input: Usd
    output: Usd
    cache_read: Usd | None = None
    cache_creation: Usd | None = None
