"""An amount is the number that the decimal library would have made, and its text is the wire's."""

from decimal import Decimal

import pytest
from bson import Decimal128, decode, encode
from hypothesis import given
from hypothesis import strategies as st

from schemas.money import plain
from workers.amounts import amount


@given(st.integers(0, 10**34 - 1), st.integers(1, 40))
def test_an_amount_is_what_the_decimal_library_makes(units: int, scale: int) -> None:
    exact = Decimal((0, tuple(int(digit) for digit in str(units)), -scale))
    made = amount(units, scale)
    assert made.to_decimal() == exact
    assert made.bid == Decimal128(exact).bid
    assert made.text == plain(exact)


def test_an_amount_is_stored_as_any_other_decimal() -> None:
    assert decode(encode({"a": amount(2_076, 7)}))["a"] == Decimal128("0.0002076")


@pytest.mark.parametrize(("units", "scale"), [(-1, 12), (10**34, 12), (1, 0)])
def test_what_is_no_amount_is_refused(units: int, scale: int) -> None:
    with pytest.raises(ValueError, match="no amount of dollars"):
        amount(units, scale)
