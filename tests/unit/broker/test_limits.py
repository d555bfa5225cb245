"""Limits: a sentence with file and line for each mistake, and which limits apply to which job."""

import itertools
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from broker.errors import SettingsError
from broker.limits import Facts, Limit, Rulebook, Tenancy
from broker.settings import load

TENANTS = {
    "acme": Tenancy("us", "Europe/Berlin"),
    "beta": Tenancy("us"),
    "*": Tenancy(time_zone="Asia/Kolkata"),
}


def limit(**fields: Any) -> Limit:  # noqa: ANN401 fields of a limit
    return Limit.model_validate({"per": "day", "requests": 1, **fields})


def applying(facts: Facts, *limits: Limit) -> list[str]:
    return [applied.subject for applied in Rulebook(limits, TENANTS).applying(facts)]


ACME = Facts("acme", "m", "b1", {"team": "red"})
LATER = "; deploy/settings.yaml says what is allowed"


def problem(folder: Path, text: str) -> str:
    file = folder / "aibroker.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as wrong:
        load({}, file)
    return str(wrong.value).replace(str(file), "FILE")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "{scope: team, per: day, requests: 1}",
            "FILE:3: limits.1.scope: Input should be 'organisation', 'tenant', 'tag', 'model', 'batch' or 'job'",
        ),
        (
            "{scope: tenant, per: week, requests: 1}",
            "FILE:3: limits.1.per: Input should be 'minute', 'hour', 'day', 'month', 'lifetime' or 'concurrent'",
        ),
        ("{scope: tenant, per: day, euros: 1}", "FILE:3: limits.1.euros: there is no such setting"),
        (
            "{scope: tenant, per: day}",
            "FILE:3: limits.1: Value error, a limit names at least one of requests, tokens and usd",
        ),
        (
            "{scope: tenant, per: day, requests: -1}",
            "FILE:3: limits.1.requests: Input should be greater than or equal to 0",
        ),
        (
            '{scope: tenant, per: day, usd: "-1"}',
            "FILE:3: limits.1.usd: Value error, must be between 0 and 10^12 dollars",
        ),
        (
            "{scope: tenant, per: day, requests: 1, time_zone: Europe/Berln}",
            "FILE:3: limits.1.time_zone: Value error, there is no time zone 'Europe/Berln'; did you mean Europe/Berlin? allowed are",
        ),
        (
            "{scope: tag, per: day, requests: 1}",
            "FILE:3: limits.1: Value error, a limit of scope tag says of which one",
        ),
        (
            '{scope: job, of: "*", per: lifetime, at_limit: reject, mode: shadow, requests: 1}',
            "FILE:3: limits.1: Value error, a limit of scope job is for each job",
        ),
        ("{scope: tenant, per: day, requests: 9223372036854775808}", "FILE:3: limits.1.requests"),
        ("{scope: job, per: day, requests: 1}", "FILE:3: limits.1: Value error, a limit of scope job is for each job"),
        (
            "{scope: tenant, tenant: acme, per: day, requests: 1}",
            "FILE:3: limits.1: Value error, a limit of scope tenant says in `of` whose it is",
        ),
        (
            "{scope: tenant, per: day, requests: 1, at_limit: cheaper_model}",
            "FILE:3: limits.1: Value error, cheaper_model names a model where at_limit is cheaper_model",
        ),
        (
            "{scope: tenant, per: day, requests: 1, mode: soft, at_limit: reject}",
            "FILE:3: limits.1: Value error, a soft limit lets everything pass",
        ),
        (
            "{scope: model, of: m, per: month, usd: '9'}",
            "FILE:3: limits.1: is for the same as limits.0 (model m per month): leave one of them",
        ),
    ],
)
def test_a_wrong_limit_is_named_with_file_and_line_and_what_is_allowed(
    tmp_path: Path, line: str, sentence: str
) -> None:
    text = f"limits:\n  - {{scope: model, of: m, per: month, requests: 5}}\n  - {line}\n"
    found = problem(tmp_path, text)
    assert found.startswith(sentence)
    assert found.endswith(LATER)


def test_a_limit_that_says_the_same_as_a_quota_overlaps_with_it(tmp_path: Path) -> None:
    text = "quotas: [{tenant: acme}, {tenant: acme, usd: '1'}]\nlimits:\n  - {scope: tenant, of: acme, per: day, requests: 1}\n"
    assert problem(tmp_path, text).startswith("FILE:3: limits.0: is for the same as quotas.1 (tenant acme per day)")


def test_a_tenants_time_zone_has_to_exist(tmp_path: Path) -> None:
    text = "tenants:\n  acme:\n    time_zone: Mars/Olympus\n"
    assert problem(tmp_path, text).startswith(
        "FILE:3: tenants.acme.time_zone: Value error, there is no time zone 'Mars/Olympus'"
    )


def test_a_shadow_may_stand_beside_the_limit_that_it_would_replace(tmp_path: Path) -> None:
    file = tmp_path / "aibroker.yaml"
    file.write_text(
        "limits:\n  - {scope: tenant, per: day, requests: 5}\n  - {scope: tenant, per: day, requests: 3, mode: shadow}\n"
    )
    assert [limit.mode for limit in load({}, file).limits] == ["hard", "shadow"]


def test_every_scope_has_its_owner() -> None:
    limits = [limit(scope=scope) for scope in ("organisation", "tenant", "model", "batch")]
    limits += [limit(scope="tag", of="team=*"), limit(scope="tenant", mode="shadow")]
    assert applying(ACME, *limits) == [
        "organisation:us",
        "tenant:acme",
        "model:m",
        "batch:acme/b1",
        "tag:team=red",
        "shadow-tenant:acme",
    ]


def test_who_has_no_batch_no_tag_and_no_organisation_is_not_limited_by_them() -> None:
    limits = [limit(scope="organisation"), limit(scope="batch"), limit(scope="tag", of="team=*")]
    assert applying(Facts("other", "m"), *limits) == []


def test_an_owners_own_limit_comes_before_everybodys_in_whichever_order() -> None:
    everybodys, own = limit(scope="tenant", requests=1), limit(scope="tenant", of="acme", requests=2)
    for limits in ((everybodys, own), (own, everybodys)):
        assert [applied.limit.requests for applied in Rulebook(limits, TENANTS).applying(ACME)] == [2]
        assert [applied.limit.requests for applied in Rulebook(limits, TENANTS).applying(Facts("beta", "m"))] == [1]


def test_a_limit_of_a_tags_one_value_leaves_other_values_and_names_alone() -> None:
    limits = [limit(scope="tag", of="team=red"), limit(scope="tag", of="cost=*")]
    assert applying(ACME, *limits) == ["tag:team=red"]
    assert applying(Facts("acme", "m", None, {"team": "blue", "cost": "7"}), *limits) == ["tag:cost=7"]


def test_limits_of_several_windows_all_apply() -> None:
    assert len(applying(ACME, *(limit(scope="tenant", per=per) for per in ("minute", "day", "lifetime")))) == 3


def test_a_limit_narrowed_to_a_tenant_has_a_book_of_its_own() -> None:
    assert applying(ACME, limit(scope="model", tenant="*")) == ["model@acme:m"]
    assert applying(ACME, limit(scope="model", tenant="beta")) == []
    assert applying(ACME, limit(scope="model"), limit(scope="model", tenant="acme")) == ["model:m", "model@acme:m"]


@pytest.mark.parametrize("scope", ["batch", "model", "tag"])
def test_of_limits_that_would_count_in_one_book_the_one_that_names_more_applies_alone(scope: str) -> None:
    of = {"of": "team=*"} if scope == "tag" else {}
    everybodys = limit(scope=scope, tenant="*", requests=100, **of)
    acmes = limit(scope=scope, tenant="acme", requests=10, **of)
    anybodys = limit(scope=scope, requests=1_000, **of)
    for limits in itertools.permutations((everybodys, acmes, anybodys)):
        found = Rulebook(limits, TENANTS).applying(ACME)
        assert len({(applied.subject, applied.limit.per) for applied in found}) == len(found)
        assert sorted(applied.limit.requests or 0 for applied in found) == ([10] if scope == "batch" else [10, 1_000])


def test_the_owner_is_named_before_the_tenant() -> None:
    limits = (limit(scope="model", tenant="acme", requests=1), limit(scope="model", of="m", tenant="*", requests=2))
    for order in (limits, limits[::-1]):
        assert [applied.limit.requests for applied in Rulebook(order, TENANTS).applying(ACME)] == [2]


@pytest.mark.parametrize(
    ("fields", "zone"),
    [
        ({"scope": "tenant"}, "Europe/Berlin"),
        ({"scope": "tenant", "time_zone": "Asia/Tokyo"}, "Asia/Tokyo"),
        ({"scope": "model"}, "UTC"),
        ({"scope": "model", "tenant": "*"}, "Europe/Berlin"),
        ({"scope": "organisation"}, "UTC"),
        ({"scope": "batch"}, "Europe/Berlin"),
    ],
)
def test_windows_are_in_the_limits_zone_or_the_tenants(fields: dict[str, Any], zone: str) -> None:
    [applied] = Rulebook([limit(**fields)], TENANTS).applying(ACME)
    assert applied.zone.key == zone


def test_tenants_that_are_not_named_have_the_zone_of_everybody() -> None:
    [applied] = Rulebook([limit(scope="tenant")], TENANTS).applying(Facts("somebody", "m"))
    assert applied.zone.key == "Asia/Kolkata"


def test_a_book_leads_back_to_its_limit() -> None:
    limits = [limit(scope=scope) for scope in ("organisation", "tenant", "model", "batch")]
    limits += [
        limit(scope="tag", of="team=*"),
        limit(scope="model", tenant="acme"),
        limit(scope="tenant", mode="shadow"),
    ]
    rules = Rulebook(limits, TENANTS)
    for applied in rules.applying(ACME):
        assert rules.of(applied.subject, "day") == applied
        assert rules.of(applied.subject, "month") is None


def test_jobs_with_the_same_limits_are_looked_up_as_one() -> None:
    plain = Rulebook([limit(scope="tenant")], TENANTS)
    assert plain.distinct(ACME) == plain.distinct(Facts("acme", "other", "b2"))
    by_tag = Rulebook([limit(scope="tag", of="team=*")], TENANTS)
    assert by_tag.distinct(ACME) != by_tag.distinct(Facts("acme", "m", "b1", {"team": "blue"}))
    assert by_tag.distinct(ACME) == by_tag.distinct(Facts("acme", "n", "b2", {"team": "red", "x": "y"}))


def test_amounts_are_written_for_a_person() -> None:
    assert limit(scope="tenant", requests=5, usd="0.50").amounts == "5 requests, 0.5 dollars"
    assert limit(scope="tenant", usd="0.50").usd == Decimal("0.50")
