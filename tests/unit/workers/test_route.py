"""Which targets a job has, in which order, and what it may cost there."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from broker.prices import Prices
from schemas.codes import Code
from schemas.job import Job
from tests.builders import BODY, some_settings
from workers.outcome import Ended
from workers.route import KNOWN_S, Router, Target, most_cost

TWO = {
    "first": {"base_url": "http://first", "models": ["m"], "region": "eu", "service_tier": "flex", "timeout_s": 5},
    "second": {"base_url": "http://second", "models": ["m", "n"]},
}
PRICES = [
    {"model": "m", "input": "1", "output": "2"},
    {"model": "n", "input": "3", "output": "4"},
]


def router(**fields: Any) -> Router:  # noqa: ANN401 settings
    settings = some_settings(**{"providers": TWO, "prices": PRICES, **fields})
    return Router(settings, Prices(settings.prices))


def job(model: str = "m", **fields: Any) -> Job:  # noqa: ANN401 any JSON value
    return Job.model_validate({"body": {**BODY, "model": model, **fields.pop("body", {})}, **fields})


def places(targets: Sequence[Target]) -> list[tuple[str, str]]:
    return [(target.credential, target.model) for target in targets]


def refusal(router_: Router, wanted: Job) -> Ended:
    with pytest.raises(Ended) as ended:
        router_.targets(wanted)
    return ended.value


def test_a_model_goes_to_the_providers_that_serve_it_in_their_order() -> None:
    assert places(router().targets(job("m"))) == [("first", "m"), ("second", "m")]
    assert places(router().targets(job("n"))) == [("second", "n")]


def test_a_route_goes_before_what_providers_serve() -> None:
    routes = {"m": [{"provider": "second", "model": "n"}, {"provider": "first", "model": "m"}]}
    assert places(router(routes=routes).targets(job("m"))) == [("second", "n"), ("first", "m")]


def test_a_provider_that_names_no_models_serves_all_that_have_a_price() -> None:
    open_one = router(providers={"open": {"base_url": "http://open"}})
    assert places(open_one.targets(job("gpt-4o-mini"))) == [("open", "gpt-4o-mini")]


def test_a_target_carries_what_the_ledger_needs() -> None:
    target = router().targets(job())[0]
    assert (target.provider, target.region, target.service_tier, target.timeout_s) == ("openai", "eu", "flex", 5)
    assert target.price.id == "settings/m"


def test_an_unknown_model_is_refused_with_those_that_are_known() -> None:
    ended = refusal(router(routes={"ours": [{"provider": "first", "model": "m"}]}), job("nobody's"))
    assert ended.code == Code.UNKNOWN_MODEL
    assert ended.message == ('body.model: no route for "nobody\'s"; configured are m, n, ours; add a route and a price')


def test_a_model_without_a_price_is_not_routed() -> None:
    assert refusal(router(prices=[]), job("m")).code == Code.UNKNOWN_MODEL


def test_a_model_that_is_known_is_looked_up_once() -> None:
    known = router()
    assert known.targets(job("m")) is known.targets(job("m"))


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({"body": {"max_tokens": 10}}, "0.00012"),
        ({"body": {"max_tokens": 10, "n": 3}}, "0.00016"),
        ({"body": {"max_completion_tokens": 20, "max_tokens": 10}}, "0.00014"),
        ({"body": {}}, None),
        ({"body": {"max_tokens": 10, "n": "many"}}, None),
        ({"body": {"input": "x"}, "operation": "embeddings"}, "0.0001"),
        ({"body": {"input": "x"}, "operation": "moderations"}, "0.0001"),
    ],
)
def test_the_most_that_a_call_may_cost(fields: dict[str, Any], most: str | None) -> None:
    target = router().targets(job())[0]
    found = most_cost(job(**fields), target, 100)
    assert found == (None if most is None else Decimal(most))


@pytest.mark.parametrize(
    ("limit", "fields", "passes"),
    [
        (None, {}, True),
        ("0.00012", {"body": {"max_tokens": 10}}, True),
        ("0.00011", {"body": {"max_tokens": 10}}, False),
        ("1000", {}, False),
    ],
)
def test_a_job_that_may_cost_more_than_it_allows_is_refused(
    limit: str | None, fields: dict[str, Any], passes: bool
) -> None:
    wanted = job(**fields, **({} if limit is None else {"max_cost_usd": limit}))
    targets = router().targets(wanted)
    if passes:
        assert list(router().affordable(wanted, targets, 100)) == list(targets)
        return
    with pytest.raises(Ended, match="max_cost_usd: ") as ended:
        router().affordable(wanted, targets, 100)
    assert ended.value.code == Code.COST_LIMIT


def test_a_target_at_which_a_job_may_cost_too_much_is_passed_over() -> None:
    routes = {"ours": [{"provider": "second", "model": "n"}, {"provider": "first", "model": "m"}]}
    wanted = job("ours", body={"max_tokens": 10}, max_cost_usd="0.0002")
    known = router(routes=routes)
    assert places(known.affordable(wanted, known.targets(wanted), 100)) == [("first", "m")]


def test_a_price_that_holds_for_a_time_is_looked_up_again_within_a_minute() -> None:
    day, seconds = [datetime(2026, 11, 30, tzinfo=UTC)], [0.0]
    dated = [
        {"model": "m", "input": "1", "output": "2", "valid_until": "2026-12-01T00:00:00Z"},
        {"model": "m", "input": "3", "output": "4", "valid_from": "2026-12-01T00:00:00Z"},
    ]
    settings = some_settings(providers=TWO, prices=dated)
    made = Router(settings, Prices(settings.prices, lambda: day[0]), lambda: seconds[0])
    assert made.targets(job("m"))[0].price.id == "settings/m"
    day[0] += timedelta(days=1)
    seconds[0] += KNOWN_S
    assert made.targets(job("m"))[0].price.id == "settings/m@2026-12-01T00:00:00Z"


def test_a_target_has_the_price_of_its_service_tier() -> None:
    flex = {"model": "m", "input": "0.5", "output": "1", "service_tier": "flex"}
    first, second = router(prices=[*PRICES, flex]).targets(job("m"))
    assert (first.price.id, second.price.id) == ("settings/m+flex", "settings/m")


def test_the_tier_that_the_body_names_goes_before_the_providers() -> None:
    tiers = [
        {"model": "m", "input": price, "output": price, "service_tier": tier}
        for tier, price in (("flex", "0.5"), ("priority", "9"))
    ]
    known = router(prices=[*PRICES, *tiers, {"model": "m", "input": "0.1", "output": "0.1", "service_tier": "batch"}])
    named = known.targets(job("m", body={"service_tier": "priority"}))
    assert [(target.service_tier, target.price.id) for target in named] == [("priority", "settings/m+priority")] * 2
    assert known.targets(job("m", body={"service_tier": "priority"})) is named
    assert [target.service_tier for target in known.targets(job("m"))] == ["flex", None]
    for nonsense in ("batch", "x" * 1_000, [], {}, 7):  # the provider has to say what is wrong with it
        assert known.targets(job("m", body={"service_tier": nonsense})) is known.targets(job("m"))
