"""The figures of R1 and R4, from the runs that were for them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.faults.driver import Outcome


def entries(outcomes: "Sequence[Outcome]") -> dict[str, Any]:
    """The entry of each target of which there was a run: its value, its target, whether it holds, and under which conditions."""
    measures = {"r1": _r1, "r4": _r4}
    return {each.scenario.upper(): measures[each.scenario](each) for each in outcomes if each.scenario in measures}


def _r1(outcome: "Outcome") -> dict[str, Any]:
    open_at_kills = [kill["calls_open"] for kill in outcome.kills]
    value = {
        **_problems(outcome),
        "repeated_calls": outcome.repeated_calls,
        "kills": len(open_at_kills),
        "fewest_calls_open_at_a_kill": min(open_at_kills, default=0),
    }
    target = {
        **dict.fromkeys(_problems(outcome), "0"),
        "repeated_calls": f"<= {outcome.cut_calls}, the calls open, or answered less than 1 s before, at the kills",
        "kills": ">= 20",
        "fewest_calls_open_at_a_kill": ">= 50",
    }
    holds = outcome.held and outcome.repeated_calls <= outcome.cut_calls
    return _entry(outcome, value, target, holds=holds)


def _r4(outcome: "Outcome") -> dict[str, Any]:
    value = {
        **_problems(outcome),
        "repeated_calls": outcome.repeated_calls,
        "outages": len(outcome.faults),
        "slowest_resume_s": max((fault["resumed_after_s"] for fault in outcome.faults), default=None),
    }
    target = {
        **dict.fromkeys(_problems(outcome), "0"),
        "repeated_calls": "0",
        "outages": "6: broker and database, 5, 40 and 90 s each",
        "slowest_resume_s": "by itself",
    }
    return _entry(outcome, value, target, holds=outcome.held and not outcome.repeated_calls)


def _problems(outcome: "Outcome") -> dict[str, int]:
    """How many problems the checker found, by what they mean."""
    names = {"lost": ("1", "5"), "two_results": ("2",), "billed_twice_or_wrong": ("3", "usage")}
    return {name: sum(len(outcome.problems.get(number, ())) for number in numbers) for name, numbers in names.items()}


def _entry(outcome: "Outcome", value: dict[str, Any], target: dict[str, Any], *, holds: bool) -> dict[str, Any]:
    conditions = {
        "jobs": outcome.jobs,
        "calls": outcome.calls,
        "seed": outcome.seed,
        "seconds": outcome.seconds,
        "failed": outcome.failed,
        "incomplete": outcome.incomplete,
    }
    return {"value": value, "target": target, "holds": holds, "conditions": conditions}
