"""The lengths of answers: percentiles of what was reported lately, of the job's own kind where enough is known of it."""

from random import Random

import pytest

from broker.outputs import Outputs


def learned(lengths: list[int], tenant: str = "acme", tag: str = "") -> Outputs:
    outputs = Outputs()
    for tokens in lengths:
        outputs.learn(tenant, "m", tag, tokens)
    return outputs


def test_nothing_is_said_before_enough_is_known() -> None:
    assert learned([5] * 19).estimate("acme", "m", "", 90) is None
    assert learned([5] * 20).estimate("acme", "m", "", 90) == 5
    assert learned([5] * 20).estimate("acme", "other", "", 90) is None


@pytest.mark.parametrize("tokens", [0, 1, 17, 100, 4_097, 900_000, 3_000_000])
def test_answers_of_one_length_are_estimated_exactly(tokens: int) -> None:
    assert learned([tokens] * 50).estimate("acme", "m", "", 90) == tokens


@pytest.mark.parametrize("percent", [10, 50, 90, 99])
def test_a_percentile_is_no_shorter_than_the_true_one_and_within_eight_percent(percent: int) -> None:
    chance = Random(percent)
    lengths = [round(chance.lognormvariate(5, 1)) for _ in range(1_999)]
    true = sorted(lengths)[-(-len(lengths) * percent // 100) - 1]
    found = learned(lengths).estimate("acme", "m", "", percent)
    assert found is not None
    assert true <= found <= true * 1.08 + 1


def test_a_tenants_tag_has_its_own_lengths_and_others_those_of_the_model() -> None:
    outputs = learned([10] * 50, tag="short")
    for _ in range(400):
        outputs.learn("acme", "m", "long", 1_000)
    assert outputs.estimate("acme", "m", "short", 90) == 10
    assert outputs.estimate("acme", "m", "long", 90) == 1_000
    assert outputs.estimate("somebody", "m", "", 50) == 1_000


def test_newer_answers_weigh_more() -> None:
    outputs = learned([1_000] * 4_000 + [10] * 4_000)
    assert outputs.estimate("acme", "m", "", 50) == 10
