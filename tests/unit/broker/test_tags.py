"""Which tags a tenant's jobs may carry, and what is said of the others."""

import pytest

from broker.settings import Settings
from broker.tags import Tagging

RULES = Tagging({"*": {"team": ("red", "blue"), "project": ()}, "free": None, "none": {}})


@pytest.mark.parametrize(
    ("tenant", "tags"),
    [
        ("acme", {}),
        ("acme", {"team": "red", "project": "whatever"}),
        ("free", {"anything": "at all"}),
        ("none", {}),
    ],
)
def test_what_is_allowed_passes(tenant: str, tags: dict[str, str]) -> None:
    assert RULES.refusal(tenant, tags) is None


@pytest.mark.parametrize(
    ("tenant", "tags", "said"),
    [
        (
            "acme",
            {"taem": "red"},
            "tags.taem: the tenant acme has no such tag; did you mean team? allowed are team, project",
        ),
        ("acme", {"team": "rot"}, "tags.team: 'rot' is no value of this tag; allowed are red, blue"),
        ("acme", {"team": "blu"}, "did you mean blue?"),
        ("none", {"team": "red"}, "it may carry none"),
    ],
)
def test_a_tag_that_is_not_allowed_is_named_with_what_is(tenant: str, tags: dict[str, str], said: str) -> None:
    assert said in str(RULES.refusal(tenant, tags))


def test_a_long_list_of_values_is_shown_in_part() -> None:
    rules = Tagging({"*": {"n": tuple(str(number) for number in range(30))}})
    assert str(rules.refusal("acme", {"n": "x"})).endswith("7, 8, 9 and 20 more")


def test_where_nothing_is_set_any_tag_passes() -> None:
    assert Settings().tagging().refusal("acme", {"anything": "x"}) is None


def test_the_settings_say_it_by_tenant() -> None:
    settings = Settings.model_validate({"tenants": {"acme": {"tags": {"team": ["red"]}}}})
    assert settings.tagging().refusal("acme", {"team": "blue"})
    assert settings.tagging().refusal("globex", {"team": "blue"}) is None
