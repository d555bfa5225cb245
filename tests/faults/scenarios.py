"""Every scenario by its name; each is one small thing in a module of its kind."""

from tests.faults import bad_lines, kills, outages, storms
from tests.faults.scenario import Scenario

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario for module in (kills, storms, bad_lines, outages) for scenario in module.SCENARIOS
}
LONG = frozenset({"r1", "r4"})
"""The targets: ten minutes each, and one seed of each says all."""
SHORT = ("failpoints", "zombie", "lines", "outage")
"""What is run before each change lands."""
