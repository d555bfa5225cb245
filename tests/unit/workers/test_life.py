"""What is watched of a worker's life."""

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from workers.engine.health import Phase
from workers.life import Parts

LASTING = {"publisher", "leases", "quota"}
WORKING = {"taker", "dispatcher", "control", "halts", "batches"}


def parts(ticked_at: float) -> Parts:
    """A worker's parts of which only the ticks matter."""
    loops = ("publisher", "leases", "tender", "taker", "dispatcher", "controller", "halting", "batches")
    named: dict[str, Any] = {name: SimpleNamespace(ticked_at=ticked_at) for name in loops}
    others = dict.fromkeys(set(Parts.__dataclass_fields__) - set(loops) - {"phase", "since"})
    return Parts(**named, **cast("dict[str, Any]", others))


@pytest.mark.parametrize(
    ("phase", "watched"),
    [
        (Phase.STARTING, LASTING),
        (Phase.WORKING, LASTING | WORKING),
        (Phase.DRAINING, LASTING),
        (Phase.STOPPING, LASTING),
    ],
)
def test_loops_are_watched_while_they_run_not_while_groups_are_joined_or_last_calls_last(
    phase: Phase, watched: set[str]
) -> None:
    made = parts(ticked_at=1.0)
    made.enter(phase)
    assert made.ticks().keys() == watched


def test_a_loop_is_expected_to_tick_from_the_moment_on_in_which_it_begins() -> None:
    begun = time.monotonic()
    made = parts(ticked_at=begun - 1_000)
    made.enter(Phase.WORKING)
    assert min(made.ticks().values()) >= begun
    made.taker.ticked_at = begun + 1_000
    assert made.ticks()["taker"] == begun + 1_000
