"""What the models cost: the simulator's own table, in whole pico-dollars a token, so that no sum is ever rounded."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

PICO = 10**12


class Price(NamedTuple):
    """Pico-dollars a token; a dollar a million tokens is 1,000,000. Cached input is part of the input, billed apart."""

    input: int
    cached_input: int
    output: int


class Model(NamedTuple):
    """A model that is known by its name: the name that its answers carry, and its price."""

    snapshot: str
    price: Price


# OpenAI's public list prices. Where no cached price is published, cached input costs what input costs.
_PUBLISHED: tuple[tuple[str, str, Price], ...] = (
    ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", Price(150_000, 75_000, 600_000)),
    ("gpt-4o", "gpt-4o-2024-08-06", Price(2_500_000, 1_250_000, 10_000_000)),
    ("gpt-4.1", "gpt-4.1-2025-04-14", Price(2_000_000, 500_000, 8_000_000)),
    ("gpt-4.1-mini", "gpt-4.1-mini-2025-04-14", Price(400_000, 100_000, 1_600_000)),
    ("gpt-4.1-nano", "gpt-4.1-nano-2025-04-14", Price(100_000, 25_000, 400_000)),
    ("gpt-5", "gpt-5-2025-08-07", Price(1_250_000, 125_000, 10_000_000)),
    ("gpt-5-mini", "gpt-5-mini-2025-08-07", Price(250_000, 25_000, 2_000_000)),
    ("gpt-5-nano", "gpt-5-nano-2025-08-07", Price(50_000, 5_000, 400_000)),
    ("gpt-5.1", "gpt-5.1-2025-11-13", Price(1_250_000, 125_000, 10_000_000)),
    ("o1", "o1-2024-12-17", Price(15_000_000, 7_500_000, 60_000_000)),
    ("o3", "o3-2025-04-16", Price(2_000_000, 500_000, 8_000_000)),
    ("o3-mini", "o3-mini-2025-01-31", Price(1_100_000, 550_000, 4_400_000)),
    ("o4-mini", "o4-mini-2025-04-16", Price(1_100_000, 275_000, 4_400_000)),
    ("gpt-4-turbo", "gpt-4-turbo-2024-04-09", Price(10_000_000, 10_000_000, 30_000_000)),
    ("gpt-4", "gpt-4-0613", Price(30_000_000, 30_000_000, 60_000_000)),
    ("gpt-3.5-turbo", "gpt-3.5-turbo-0125", Price(500_000, 500_000, 1_500_000)),
    ("text-embedding-3-small", "text-embedding-3-small", Price(20_000, 20_000, 0)),
    ("text-embedding-3-large", "text-embedding-3-large", Price(130_000, 130_000, 0)),
    ("text-embedding-ada-002", "text-embedding-ada-002", Price(100_000, 100_000, 0)),
    ("omni-moderation-latest", "omni-moderation-latest", Price(0, 0, 0)),
)

FREE = Price(0, 0, 0)

MODELS: Mapping[str, Model] = MappingProxyType(
    {name: Model(snapshot, price) for alias, snapshot, price in _PUBLISHED for name in (alias, snapshot)}
)
"""Every known name, the short ones and the dated ones."""


def cost(price: Price, prompt_tokens: int, cached_tokens: int, output_tokens: int) -> int:
    """What a call costs in pico-dollars; prompt tokens include the cached ones, output tokens include reasoning."""
    fresh = prompt_tokens - cached_tokens
    return fresh * price.input + cached_tokens * price.cached_input + output_tokens * price.output


def dollars(pico: int) -> str:
    """Pico-dollars as an exact decimal string of US dollars, without trailing zeros or exponent."""
    whole, rest = divmod(pico, PICO)
    return f"{whole}.{rest:012d}".rstrip("0").rstrip(".")
