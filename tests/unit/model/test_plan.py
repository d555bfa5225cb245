"""The plan leaves out every rule that the models know, once, and names what is there."""

import re

from tests.model.__main__ import mutation_check, scenario_check
from tests.model.plan import MUTATIONS, NOT_MISSED, SCENARIOS
from tests.model.tlc import MODELS


def rules(module: str) -> set[str]:
    return set(re.findall(r'Keeps\("([^"]+)"\)', (MODELS / f"{module}.tla").read_text()))


def module_of(scenario: str) -> str:
    [module] = (known.module for known in SCENARIOS if known.name == scenario)
    return module


def test_every_configuration_is_a_scenario() -> None:
    assert {path.stem for path in MODELS.glob("*.cfg")} == {scenario.name for scenario in SCENARIOS}


def test_every_rule_of_a_model_is_left_out_once_or_known_not_to_be_missed() -> None:
    left_out = [(module_of(mutation.scenario), mutation.rule) for mutation in MUTATIONS]
    assert len(left_out) == len(set(left_out))
    known = {(module, rule) for module in ("Jobs", "Quotas") for rule in rules(module)}
    assert set(left_out) | set(NOT_MISSED) == known
    assert not set(left_out) & set(NOT_MISSED)


def test_a_mutation_breaks_a_property_that_its_scenario_checks_and_keeps_without_it() -> None:
    for mutation in MUTATIONS:
        check = mutation_check(mutation)
        checked = re.findall(r"\w+", check.configuration.partition("INVARIANT")[2])
        assert mutation.breaks in checked, mutation
        assert f'Without = {{"{mutation.rule}"}}' in check.configuration


def test_a_scenario_leaves_nothing_out() -> None:
    for scenario in SCENARIOS:
        assert "Without = {}" in scenario_check(scenario).configuration
