"""What the benchmarks write: a verdict that is the figures', and rows that show every figure."""

from tests.benchmarks.__main__ import rows
from tests.benchmarks.ground import Entry, Figure


def test_a_target_holds_where_its_figure_reaches_it() -> None:
    assert Entry({"": Figure(1.3, "<=", 1.3)}).holds
    assert not Entry({"": Figure(1.31, "<=", 1.3)}).holds
    assert Entry({"": Figure(1.9, ">=", 1.9)}).holds
    assert not Entry({"": Figure(1.89, ">=", 1.9)}).holds


def test_a_target_of_several_figures_holds_where_each_reaches_its_own() -> None:
    good, bad = Figure(1.2, "<=", 1.5), Figure(3.0, "<=", 2.5)
    assert Entry({"p50": good}).holds
    assert not Entry({"p50": good, "p99": bad}).holds


def test_one_figure_is_written_as_a_number_and_several_by_their_names() -> None:
    assert Entry({"": Figure(1.25, "<=", 1.3)}, {"jobs": 5}).document() == {
        "value": 1.25,
        "target": "<= 1.3",
        "holds": True,
        "conditions": {"jobs": 5},
    }
    several = Entry({"p50": Figure(1.2, "<=", 1.5), "p99": Figure(2.0, "<=", 2.5)}).document()
    assert several["value"] == {"p50": 1.2, "p99": 2.0}
    assert several["target"] == {"p50": "<= 1.5", "p99": "<= 2.5"}


def test_every_figure_has_its_row_and_the_verdict_stands_once() -> None:
    entry = Entry({"p50": Figure(1.2, "<=", 1.5), "p99": Figure(3.0, "<=", 2.5)})
    shown = rows("P3", entry.document())
    assert len(shown) == 2
    assert "p50" in shown[0]
    assert "p99" in shown[1]
    assert [row.count("does not hold") for row in shown] == [1, 0]


def test_a_benchmark_that_failed_says_why_in_its_row() -> None:
    failed = {"value": None, "target": None, "holds": False, "failed": "RuntimeError('no')", "conditions": {}}
    [row] = rows("P1", failed)
    assert "RuntimeError('no')" in row
