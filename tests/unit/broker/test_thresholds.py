"""A limit's thresholds are whole percents and a forecast, each once; anything else is refused with what is allowed."""

import pytest
from pydantic import ValidationError

from broker.limits import Limit


def limit(alerts: object) -> Limit:
    return Limit.model_validate({"scope": "tenant", "per": "day", "requests": 1, "alerts": alerts})


def test_a_limit_alerts_at_half_at_four_fifths_at_its_end_and_by_its_pace_unless_it_says_otherwise() -> None:
    usual = Limit.model_validate({"scope": "tenant", "per": "day", "requests": 1})
    assert usual.alerts == (50, 80, 100, "forecast")
    assert limit([]).alerts == ()
    assert limit([95, "forecast"]).alerts == (95, "forecast")


@pytest.mark.parametrize("wrong", [0, 1001, 50.5, "fifty", True, None, "50"])
def test_what_is_no_threshold_is_refused_with_what_is_allowed(wrong: object) -> None:
    with pytest.raises(ValidationError) as refused:
        limit([50, wrong])
    [error] = refused.value.errors()
    assert error["msg"].endswith("is no threshold; allowed are whole percents from 1 to 1000, and forecast")


def test_a_threshold_that_is_named_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="80 is there twice"):
        limit([80, 80])
