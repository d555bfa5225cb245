"""Writes down what fault runs showed: date, machine, seeds, kills, calls, invariants."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from tests.faults.driver import Outcome
from tests.faults.scenarios import SCENARIOS
from tests.faults.targets import entries

INVARIANTS = {
    "1": "every accepted record has exactly one terminal document, or one record in jobs.dead",
    "2": "one result content per job and generation, at least one event on its topic",
    "3": "no duplicate row, one billed row per job and generation, rows equal the provider's invoice",
    "4": "calls per job <= 1 + error answers + its calls open at a kill",
    "5": "every offset below the committed one has a document or a dead letter",
    "6": "billed spend <= limit + bound; no holds are left",
    "7": "no outbox is left",
    "usage": "every row of the ledger has at least one event on usage, with the same amount",
}


def line(outcome: Outcome) -> str:
    """One line about one run, for a terminal."""
    opened = ", ".join(f"{each['how']} {each['calls_open']}" for each in [*outcome.kills, *outcome.faults])
    broken = [number for number, problems in outcome.problems.items() if problems]
    verdict = f"BROKEN {', '.join(broken)} {outcome.failed}" if outcome.broken else "held"
    if outcome.incomplete:
        verdict += f", but not what it was meant to be: {outcome.incomplete}"
    return (
        f"{outcome.scenario:10} seed {outcome.seed:3}  {outcome.jobs} jobs  {outcome.calls} calls, {outcome.repeated_calls} repeated  "
        f"struck with calls open: {opened}  {outcome.seconds:.0f} s  {verdict}"
    )


def write(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the evidence as JSON; nothing in it names a host or a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_evidence(outcomes), indent=1) + "\n")


def _evidence(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    opened = [kill["calls_open"] for outcome in outcomes for kill in outcome.kills]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": _machine(),
        "settings": {
            name: {"session_timeout_s": SCENARIOS[name].terms.session_s, "lease_s": SCENARIOS[name].terms.lease_s}
            for name in sorted({outcome.scenario for outcome in outcomes})
        },
        "invariants": INVARIANTS,
        "targets": entries(outcomes),
        "totals": {
            "runs": len(outcomes),
            "held": sum(outcome.held for outcome in outcomes),
            "jobs": sum(outcome.jobs for outcome in outcomes),
            "kills": len(opened),
            "calls_open_at_kills": sum(opened),
            "faults": sum(len(outcome.faults) for outcome in outcomes),
            "calls": sum(outcome.calls for outcome in outcomes),
            "repeated_calls": sum(outcome.repeated_calls for outcome in outcomes),
            "problems": {
                number: sum(len(outcome.problems.get(number, ())) for outcome in outcomes) for number in INVARIANTS
            },
            "seconds": round(sum(outcome.seconds for outcome in outcomes)),
        },
        "runs": [_run(outcome) for outcome in outcomes],
    }


def _machine() -> dict[str, Any]:
    packages = ("aiokafka", "pymongo", "pyreqwest", "uvloop")
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def _run(outcome: Outcome) -> dict[str, Any]:
    return {
        "scenario": outcome.scenario,
        "seed": outcome.seed,
        "held": outcome.held,
        "jobs": outcome.jobs,
        "documents": outcome.documents,
        "dead_letters": outcome.dead_letters,
        "calls": outcome.calls,
        "repeated_calls": outcome.repeated_calls,
        "cut_calls": outcome.cut_calls,
        "kills": list(outcome.kills),
        "faults": list(outcome.faults),
        "problems": {number: problems[:20] for number, problems in outcome.problems.items() if problems},
        "incomplete": outcome.incomplete,
        "failed": outcome.failed,
        "seconds": outcome.seconds,
    }
