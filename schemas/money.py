"""US dollars as exact decimals: `Decimal` in Python, a string in JSON; never a float, never rounded before it is shown."""

from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

LARGEST = Decimal(10) ** 12
"""The largest amount, in dollars; above it somebody made a mistake."""

DIGITS = 34
"""So many a Decimal128 holds (IEEE 754-2008)."""


def decimal_string(value: object) -> Decimal:
    """Return the amount that a decimal string names.

    Args:
        value: A string such as "0.0002076", or a `Decimal` of our own; a JSON number is refused because it may have been a float.

    Raises:
        ValueError: With a sentence, if it is none of them, negative, or not finite.
    """
    if isinstance(value, str):
        try:
            amount = Decimal(value)
        except ArithmeticError as error:
            raise ValueError(f"{value[:40]!r} is not a decimal number") from error
    elif isinstance(value, Decimal):
        amount = value
    else:
        raise ValueError('must be a string with a decimal number, such as "0.25"; a JSON number is not exact')  # noqa: TRY004 pydantic wants ValueError
    if amount.is_finite() and len(amount.as_tuple().digits) > DIGITS:
        raise ValueError(f"has more than {DIGITS} digits, which no database keeps exactly")
    if not amount.is_finite() or not 0 <= amount <= LARGEST:
        raise ValueError("must be between 0 and 10^12 dollars")
    return amount.copy_abs()  # "-0" is nothing, too


def plain(amount: Decimal) -> str:
    """Return the amount as a plain decimal string: no exponent, no trailing zeros ("0.0002076", "0")."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def signed_decimal_string(value: object) -> Decimal:
    """Return the amount that a decimal string names, which may be negative: a correction takes away.

    Raises:
        ValueError: as `decimal_string`.
    """
    if isinstance(value, Decimal) and value.is_signed():
        return -decimal_string(-value)
    if isinstance(value, str) and value.startswith("-"):
        return -decimal_string(value[1:])
    return decimal_string(value)


Usd = Annotated[
    Decimal,
    BeforeValidator(decimal_string),
    PlainSerializer(plain, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$", "examples": ["0.0002076"]}),
]
"""US dollars, an exact decimal; a string in JSON."""

SignedUsd = Annotated[
    Decimal,
    BeforeValidator(signed_decimal_string),
    PlainSerializer(plain, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$", "examples": ["0.0002076", "-0.01"]}),
]
"""US dollars that may be negative, an exact decimal; a string in JSON."""
