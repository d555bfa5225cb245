"""Which thresholds are reached by what is spent, and what is told of each."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from broker.limits import Limit
from broker.windows import BEGINNING, END
from workers.quota.alerts import alert_id, event, noticing, reached
from workers.quota.book import Amounts, Book
from workers.quota.protocol import Key

START = datetime(2026, 12, 1, tzinfo=UTC)
KEY = Key("tenant:acme", "day", START, START + timedelta(days=1))
EVENING = START + timedelta(hours=23)


def limit(**fields: Any) -> Limit:  # noqa: ANN401 any field of a limit
    return Limit.model_validate({"scope": "tenant", "of": "acme", "per": "day", "requests": 100, **fields})


def spent(requests: int = 0, tokens: int = 0, usd: str = "0") -> Amounts:
    return Amounts(requests, tokens, Decimal(usd))


@pytest.mark.parametrize(
    ("requests", "thresholds"), [(49, []), (50, [50]), (79, [50]), (80, [50, 80]), (100, [50, 80, 100]), (0, [])]
)
def test_a_threshold_is_reached_when_so_many_percent_are_spent(requests: int, thresholds: list[int]) -> None:
    assert reached(KEY, limit(alerts=[50, 80, 100]), spent(requests), EVENING) == thresholds


def test_the_unit_of_which_most_is_spent_decides() -> None:
    whole = limit(tokens=1000, usd="2")
    assert reached(KEY, whole, spent(1, 799, "0.1"), EVENING) == [50]
    assert reached(KEY, whole, spent(1, 1, "1.6"), EVENING) == [50, 80]
    alerts = noticing(Book(closed=spent(60, 1, "1.9")), KEY, whole, version=0, now=EVENING).alerts
    assert {alert.unit for alert in alerts.values()} == {"usd"}


def test_a_limit_of_nothing_is_passed_by_the_first_request_and_by_none_before() -> None:
    assert reached(KEY, limit(requests=0), spent(0), EVENING) == []
    assert reached(KEY, limit(requests=0), spent(1), EVENING) == [50, 80, 100, "forecast"]


def test_thresholds_are_the_limits_own() -> None:
    assert reached(KEY, limit(alerts=[1, 150]), spent(149), EVENING) == [1]
    assert reached(KEY, limit(alerts=[]), spent(1_000), EVENING) == []


@pytest.mark.parametrize(
    ("hours", "requests", "told"), [(12, 51, True), (12, 50, False), (6, 26, True), (18, 75, False)]
)
def test_a_forecast_extrapolates_the_window_so_far_to_its_end(hours: int, requests: int, told: bool) -> None:
    now = START + timedelta(hours=hours)
    assert ("forecast" in reached(KEY, limit(), spent(requests), now)) is told


def test_the_first_tenth_of_a_window_is_taken_as_passed() -> None:
    assert reached(KEY, limit(), spent(10), START + timedelta(seconds=1)) == []
    assert reached(KEY, limit(), spent(11), START + timedelta(seconds=1)) == ["forecast"]


def test_a_minute_a_lifetime_and_what_runs_at_one_moment_have_no_forecast() -> None:
    minute = Key("tenant:acme", "minute", START, START + timedelta(minutes=1))
    lifetime = Key("tenant:acme", "lifetime", BEGINNING, END)
    assert reached(minute, limit(per="minute"), spent(49), START + timedelta(seconds=10)) == []
    assert reached(lifetime, limit(per="lifetime"), spent(49), START) == []
    assert reached(lifetime._replace(per="concurrent"), limit(per="concurrent"), spent(100), START) == []


@pytest.mark.parametrize("minutes", [-5, 24 * 60 + 5])
def test_a_clock_outside_the_window_forecasts_from_its_beginning_or_its_end(minutes: int) -> None:
    now = START + timedelta(minutes=minutes)
    assert ("forecast" in reached(KEY, limit(), spent(49), now)) is (minutes < 0)


def test_a_threshold_is_noticed_once_and_keeps_what_was_seen_then() -> None:
    first = noticing(Book(closed=spent(50)), KEY, limit(), version=3, now=EVENING)
    again = noticing(first.closing((), spent(79)), KEY, limit(), version=4, now=EVENING)
    assert list(again.alerts) == ["50"]
    assert (again.alerts["50"].spent, again.alerts["50"].version) == (spent(50), 3)


def test_without_a_limit_nothing_is_noticed() -> None:
    assert noticing(Book(closed=spent(500)), KEY, None, version=0, now=EVENING).alerts == {}


def test_an_alert_says_whose_limit_which_window_and_how_much() -> None:
    book = noticing(Book(closed=spent(80, 900, "0.5")), KEY, limit(mode="soft"), version=2, now=EVENING)
    alert = book.alerts["80"]
    told = event(KEY, alert)
    assert alert_id(KEY, alert) == "tenant:acme/day/2026-12-01T00:00Z/80"
    assert (told.limit_of, told.tenant, told.mode, told.limits_version) == ("tenant:acme", "acme", "soft", 2)
    assert (told.window_start, told.window_end) == (START, KEY.end)
    assert (told.spent.requests, told.limit.requests, told.limit.usd) == (80, 100, None)
    assert told.message == ("tenant acme per day until 2026-12-02T00:00Z: 80 of 100 requests are spent, 80 % or more")


def test_a_forecast_says_what_it_will_be() -> None:
    noon = START + timedelta(hours=12)
    book = noticing(Book(closed=spent(0, 0, "60.5")), KEY, limit(requests=None, usd="100"), version=0, now=noon)
    assert event(KEY, book.alerts["forecast"]).message == (
        "tenant acme per day until 2026-12-02T00:00Z: 60.5 of 100 dollars are spent; at this pace it will be about 121"
    )


def test_an_alert_of_a_lifetime_has_no_window_and_one_of_several_tenants_no_tenant() -> None:
    key = Key("shadow-model:m", "lifetime", BEGINNING, END)
    shadow = limit(scope="model", of="m", per="lifetime", mode="shadow")
    book = noticing(Book(closed=spent(100)), key, shadow, version=0, now=EVENING)
    told = event(key, book.alerts["100"])
    assert (told.window_start, told.window_end, told.tenant, told.mode) == (None, None, None, "shadow")
