"""Dollars are exact decimals on the way in and on the way out."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from schemas.money import DIGITS, LARGEST, Usd, decimal_string, plain

AMOUNTS = st.decimals(min_value=0, max_value=LARGEST, allow_nan=False, allow_infinity=False).filter(
    lambda amount: len(amount.as_tuple().digits) <= DIGITS
)


class Bill(BaseModel):
    """Something with an amount."""

    usd: Usd


@given(AMOUNTS)
def test_an_amount_is_the_same_after_a_round_trip(amount: Decimal) -> None:
    assert Bill.model_validate_json(Bill(usd=amount).model_dump_json()).usd == amount


def test_an_amount_that_no_database_keeps_exactly_is_refused() -> None:
    assert decimal_string("0." + "1" * DIGITS) == Decimal("0." + "1" * DIGITS)
    with pytest.raises(ValueError, match="more than 34 digits"):
        decimal_string("0." + "1" * (DIGITS + 1))


@given(AMOUNTS)
def test_an_amount_is_written_without_exponent_and_trailing_zeros(amount: Decimal) -> None:
    text = plain(amount)
    assert set(text) <= set("0123456789.")
    assert Decimal(text) == amount
    assert not ("." in text and text.endswith(("0", ".")))


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0"),
        ("0.00", "0"),
        ("100", "100"),
        ("1E+2", "100"),
        ("2.076E-4", "0.0002076"),
        ("1.50", "1.5"),
        ("-0", "0"),
    ],
)
def test_what_an_amount_looks_like(amount: str, text: str) -> None:
    assert plain(decimal_string(amount)) == text


@pytest.mark.parametrize("value", ["", "a", "-1", "NaN", "sNaN", "Infinity", "1e13", 0.25, 1, True, None, [], b"1"])
def test_what_is_no_amount_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        Bill.model_validate({"usd": value})


def test_a_number_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r'must be a string with a decimal number, such as "0\.25"'):
        decimal_string(0.25)
