"""`python -m tests.faults`: kills workers at every failpoint and at random, on a real Kafka and a real MongoDB, and judges what is left."""

import argparse
import asyncio
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

from broker.errors import AibrokerError
from broker.local.stack import Plan, Stack
from tests.faults import evidence
from tests.faults.driver import Outcome, run
from tests.faults.scenarios import SCENARIOS, Scenario

BEHAVIOUR = Path(__file__).with_name("behaviour.yaml")


def main() -> int:
    """Run all seeds; 1 when an invariant broke."""
    options = _options()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it tells of each retry
    with tempfile.TemporaryDirectory(prefix="aibroker-faults-", ignore_cleanup_errors=True) as made:
        outcomes = asyncio.run(_run_all(options, options.data or Path(made)))
    if options.out is not None:
        evidence.write(options.out, outcomes)
    held = sum(outcome.held for outcome in outcomes)
    _say(f"{held} of {len(outcomes)} runs held")
    return 0 if held == len(outcomes) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many seeds to run (20)")
    parser.add_argument("--first-seed", type=int, default=1, help="the first of them (1)")
    parser.add_argument("--jobs", type=int, default=2_000, help="records a run (2000)")
    parser.add_argument("--only", choices=sorted(SCENARIOS), help="one kind of fault instead of both")
    parser.add_argument("--out", type=Path, default=Path("deploy/evidence/faults.json"), help="where the evidence goes")
    parser.add_argument("--data", type=Path, help="keep data and logs in this folder")
    return parser.parse_args()


async def _run_all(options: argparse.Namespace, data: Path) -> list[Outcome]:
    outcomes = []
    plan = Plan(data=data, environment=dict(os.environ), simulator_arguments=("--behaviour", str(BEHAVIOUR)))
    async with Stack(plan, progress=_say) as stack:
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            for name in [options.only] if options.only else sorted(SCENARIOS):
                outcome = await _run_one(stack, SCENARIOS[name], seed, options.jobs, data=data)
                _tell(outcome)
                outcomes.append(outcome)
    return outcomes


async def _run_one(stack: Stack, scenario: Scenario, seed: int, jobs: int, *, data: Path) -> Outcome:
    """One run; what kept it from ending is its outcome, so that the others go on."""
    began = time.monotonic()
    try:
        return await run(stack, scenario, seed, jobs, logs=data)
    except (RuntimeError, AibrokerError, TimeoutError) as error:
        _say(str(error))
        for worker in stack.workers:
            await stack.kill_worker(worker)
        return Outcome(scenario.name, seed, jobs, round(time.monotonic() - began, 1), incomplete=type(error).__name__)


def _tell(outcome: Outcome) -> None:
    _say(evidence.line(outcome))
    for number, problems in outcome.problems.items():
        for problem in problems[:10]:
            _say(f"    {number}. {problem}")
        if len(problems) > 10:
            _say(f"    {number}. and {len(problems) - 10} more")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
