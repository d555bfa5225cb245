"""Where a test can have a worker fail."""

import pytest

from broker.errors import SettingsError
from broker.events import Events
from workers.engine.failpoints import Failpoints


@pytest.mark.parametrize("spec", ["nowhere", "block_nowhere:3", "block_"])
def test_a_failpoint_that_there_is_not_is_refused_with_those_that_there_are(spec: str) -> None:
    with pytest.raises(SettingsError, match="before_call"):
        Failpoints(spec, Events("test"))


def test_passes_before_the_one_that_counts_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    failpoints = Failpoints("block_before_call:3", Events("test"))
    for _ in range(2):
        failpoints.hit("before_call")
        failpoints.hit("after_call")
    assert slept == []
    failpoints.hit("before_call")
    assert len(slept) == 1
