"""Dollars as they are stored, made from whole units without the decimal library: by far the cheapest way to an exact Decimal128."""

from decimal import Decimal
from typing import Any

from bson import Decimal128

_BIAS = 6176  # IEEE 754-2008 decimal128, binary encoding: the exponent is kept 6,176 above what it is
_EXPONENT_AT = 49  # of the upper one of two words of 64 bits
_WORD = 64
_LOWER = (1 << _WORD) - 1
_MOST_UNITS = 10**34


class Amount(Decimal128):
    """An amount of US dollars and its plain text ("0.0002076"), which is what results and events show."""

    __slots__ = ("bid", "text")

    bid: bytes  # kept, because the driver asks for it at each encoding and would make it anew
    text: str

    def __deepcopy__(self, memo: object) -> "Amount":
        return self  # nothing changes an amount


def amount(units: int, scale: int) -> Amount:
    """Return `units` x 10^-`scale` dollars, exactly.

    Args:
        units: From 0 to 10^34 - 1.
        scale: From 1 to 6,176.
    """
    if not (0 <= units < _MOST_UNITS and 0 < scale <= _BIAS):
        raise ValueError(f"{units} x 10^-{scale} is no amount of dollars")
    high, low = units >> _WORD | (_BIAS - scale) << _EXPONENT_AT, units & _LOWER
    words: Any = (high, low)
    made = Amount(words)  # as is documented, though not annotated
    made.bid = (high << _WORD | low).to_bytes(16, "little")
    digits = str(units).rjust(scale + 1, "0")
    made.text = f"{digits[:-scale]}.{digits[-scale:]}".rstrip("0").rstrip(".")
    return made


def exact(usd: Decimal) -> Decimal128:
    """A sum of amounts as it is stored."""
    return Decimal128(usd)


NO_DOLLARS = amount(0, 1)
