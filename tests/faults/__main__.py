"""`python -m tests.faults`: disturbs workers, services and lines in every way, on a real Kafka and a real MongoDB, and judges what is left."""

import argparse
import asyncio
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from broker.errors import AibrokerError
from broker.local.stack import Plan, Stack
from tests.faults import evidence
from tests.faults.behaviour import USUAL
from tests.faults.driver import Outcome, run
from tests.faults.proxy import Lines, lines
from tests.faults.scenario import Scenario
from tests.faults.scenarios import LONG, SCENARIOS, SHORT

USUAL_JOBS = 2_000
SHORT_BEGINS_S = 300.0
"""The short version begins nothing later than that, so that a slow machine does not make it a long one."""


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
    if options.short:  # a slow machine leaves too little to strike, and breaks nothing
        return int(any(outcome.broken for outcome in outcomes))
    return 0 if held == len(outcomes) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds to run (5); R1 and R4 run once")
    parser.add_argument("--first-seed", type=int, default=1, help="the first of them (1)")
    parser.add_argument("--jobs", type=int, help="records a run, where not as many as usual")
    parser.add_argument("--only", type=_names, help=f"some of {', '.join(SCENARIOS)}, with commas")
    parser.add_argument(
        "--short", action="store_true", help="one seed of four scenarios in eight minutes at most, and no evidence"
    )
    parser.add_argument("--out", type=Path, default=Path("deploy/evidence/faults.json"), help="where the evidence goes")
    parser.add_argument("--data", type=Path, help="keep data and logs in this folder")
    options = parser.parse_args()
    if options.short:
        options.seeds, options.out = 1, None
        options.only = options.only or list(SHORT)
    return options


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SCENARIOS]:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    return names


async def _run_all(options: argparse.Namespace, data: Path) -> list[Outcome]:
    outcomes: list[Outcome] = []
    began = time.monotonic()
    async with lines() as proxies:
        plan = Plan(
            data=data,
            environment=dict(os.environ),
            simulator_arguments=("--behaviour", str(USUAL)),
            kafka_proxy_port=proxies.kafka.port,
        )
        async with Stack(plan, progress=_say) as stack:
            _lead(proxies, stack)
            for seed, scenario in _planned(options):
                if options.short and time.monotonic() - began > SHORT_BEGINS_S:
                    _say(
                        f"{scenario.name:10} was not run: the others took {time.monotonic() - began:.0f} s on this machine"
                    )
                    continue
                outcome = await _run_one(stack, proxies, scenario, seed, options=options, data=data)
                _tell(outcome)
                outcomes.append(outcome)
    return outcomes


def _planned(options: argparse.Namespace) -> Iterator[tuple[int, Scenario]]:
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for name in options.only or SCENARIOS:
            if name not in LONG or seed == options.first_seed:
                yield seed, SCENARIOS[name]


def _lead(proxies: Lines, stack: Stack) -> None:
    """Say where the proxies lead."""
    assert stack.kafka is not None
    assert stack.kafka.behind_port is not None
    assert stack.mongod is not None
    assert stack.simulator is not None
    proxies.kafka.upstream, proxies.mongo.upstream = stack.kafka.behind_port, stack.mongod.port
    proxies.provider.upstream = urlsplit(stack.simulator.url).port or 0


async def _run_one(
    stack: Stack, proxies: Lines, scenario: Scenario, seed: int, *, options: argparse.Namespace, data: Path
) -> Outcome:
    """One run; what kept it from ending is its outcome, so that the others go on."""
    began = time.monotonic()
    jobs = options.jobs or scenario.terms.jobs or USUAL_JOBS
    try:
        return await run(stack, proxies, scenario, seed, jobs=jobs, logs=data)
    except (RuntimeError, AibrokerError, TimeoutError) as error:
        _say(str(error))
        for worker in stack.workers:
            await stack.kill_worker(worker)
        return Outcome(scenario.name, seed, jobs, round(time.monotonic() - began, 1), failed=type(error).__name__)


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
