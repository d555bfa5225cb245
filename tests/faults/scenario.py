"""What a scenario is: the terms of a run, the workers that begin, what disturbs them, and when a run was not what it was meant to be."""

import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.faults.fleet import Fleet

OPEN_CALLS = 50
"""A kill at random counts only with so many calls of its victim open."""
LEAST_OPEN = 10
"""Any other fault counts only with so many calls open in all: it waits for more, and some end before it strikes."""
SERVICES = ("kafka", "mongo", "provider")

Over = Callable[[], bool]
"""Whether there is no more time to disturb."""


@dataclass(frozen=True)
class Terms:
    """Under what a run takes place; times are in seconds."""

    lease_s: float = 6
    session_s: float = 6
    call_s: float = 600
    """How long a call may take."""
    jobs: int | None = None
    """How many records are sent, where not as many as was asked for."""
    arrival_s: float = 3
    more: int = 200
    """How many are sent every ten seconds while a fault still waits for work."""
    disturbed_s: float = 90
    ends_s: float = 90
    """How long everything may take to end once nothing disturbs it any more."""
    behind: tuple[str, ...] = ()
    """The services that the workers reach through a proxy."""
    behaviour: Mapping[str, Any] | None = None
    """How the provider behaves, where not as in `behaviour.yaml`."""


@dataclass(frozen=True)
class Scenario:
    """One way to disturb a run."""

    name: str
    beginners: Callable[[random.Random], list[str]]
    """The failpoints of the workers that begin, "" for none."""
    disturb: "Callable[[Fleet, random.Random, int, Over], Coroutine[Any, Any, None]]"
    incomplete: Callable[[Sequence[Mapping[str, Any]]], str]
    """Why what struck (how, calls open) is not what the scenario is for; "" if it is."""
    terms: Terms = Terms()


def plain(count: int) -> Callable[[random.Random], list[str]]:
    """So many workers without a failpoint."""
    return lambda _: [""] * count


def struck(times: int, least_open: int) -> Callable[[Sequence[Mapping[str, Any]]], str]:
    """It has to have struck so often, with so many calls open each time."""

    def incomplete(faults: Sequence[Mapping[str, Any]]) -> str:
        fewest = min((fault["calls_open"] for fault in faults), default=0)
        if len(faults) < times:
            return f"struck {len(faults)} times instead of {times}"
        return f"{fewest} calls were open at one of them" if fewest < least_open else ""

    return incomplete


def latency(low_ms: float, high_ms: float, **faults: float) -> dict[str, Any]:
    """A provider that takes so long, with so many faults."""
    return {
        "default": {
            "latency": {"kind": "uniform", "low_ms": low_ms, "high_ms": high_ms},
            "answer": {"text_bytes": [10, 400]},
            "faults": faults,
            "fault_retry_after_s": 0.2,
        }
    }
