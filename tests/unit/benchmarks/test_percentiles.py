"""What is said of measured times is what was measured."""

import pytest

from tests.benchmarks.percentiles import jains_index, percentile


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (1, 1), (50, 50), (95, 95), (99, 99), (100, 100)])
def test_a_percentile_is_the_value_that_so_many_do_not_exceed(percent: float, value: float) -> None:
    assert percentile(range(100, 0, -1), percent) == value
    assert percentile([7], percent) == 7


def test_a_percentile_of_nothing_is_none() -> None:
    with pytest.raises(RuntimeError, match="nothing was measured"):
        percentile([], 50)


def test_jains_index_is_one_for_equals_and_one_of_n_where_one_has_everything() -> None:
    assert jains_index([3, 3, 3]) == 1
    assert jains_index([5, 0, 0, 0]) == 0.25
    assert jains_index([0, 0]) == 0
