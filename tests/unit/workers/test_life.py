"""What is watched of a worker's life."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from workers.life import Parts

LOOPS = ("publisher", "leases", "tender", "taker", "dispatcher", "controller", "halting", "batches")


def ticks(*, working: bool) -> set[str]:
    parts: dict[str, Any] = {name: SimpleNamespace(ticked_at=1.0) for name in LOOPS}
    return set(Parts.ticks(cast("Parts", SimpleNamespace(**parts)), working=working))


@pytest.mark.parametrize(
    ("working", "watched"),
    [
        (True, {"publisher", "leases", "quota", "taker", "dispatcher", "control", "halts", "batches"}),
        (False, {"publisher", "leases", "quota"}),
    ],
)
def test_loops_that_end_before_the_last_call_are_not_watched_while_it_lasts(working: bool, watched: set[str]) -> None:
    assert ticks(working=working) == watched
