"""`make model`: checks that every scenario holds, and that every rule which is left out breaks the property that it is for."""

import argparse
import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from broker.errors import AibrokerError
from tests.model import tlc
from tests.model.plan import MUTATIONS, SCENARIOS, Mutation, Scenario
from tests.model.tlc import MODELS, Tlc, TlcError, Verdict

LOGS = Path(__file__).parents[2] / "build" / "model"
"""Where it is told why the jar could not be fetched."""


@dataclass(frozen=True)
class Check:
    """One run of TLC: what it is called, the property that it has to break or None, and what was found or why nothing was."""

    name: str
    module: str
    expected: str | None
    configuration: str
    verdict: Verdict | None = None
    problem: str = ""

    @property
    def good(self) -> bool:
        """Whether it ended as it should."""
        return self.verdict is not None and self.verdict.violated == self.expected


def main() -> int:
    """Run what is asked for; 1 where something ended otherwise than it should, 3 where Java or TLC cannot be had."""
    options, began = _options(), time.monotonic()
    try:
        done = asyncio.run(_run(_wanted(options), options))
    except AibrokerError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    good = sum(check.good for check in done)
    states = sum(check.verdict.distinct for check in done if check.verdict)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = f"{time.monotonic() - began:.0f} s, {spent.ru_utime + spent.ru_stime:.0f} s of CPU"
    _say(f"{good} of {len(done)} as they should be; {states:,} distinct states; {took}")
    return 0 if done and good == len(done) else 1


def scenario_check(scenario: Scenario) -> Check:
    """That a scenario holds."""
    return Check(scenario.name, scenario.module, None, _text(scenario.name))


def mutation_check(mutation: Mutation) -> Check:
    """That a scenario does not hold without a rule."""
    [scenario] = (scenario for scenario in SCENARIOS if scenario.name == mutation.scenario)
    text = tlc.configured(_text(scenario.name), Without=f"{{{json.dumps(mutation.rule)}}}")
    if mutation.breaks != tlc.temporal(text):  # which is looked at now and then, and might be found to break first
        text = tlc.without_temporal(text)
    return Check(f"{scenario.name} without: {mutation.rule}", scenario.module, mutation.breaks, text)


def _wanted(options: argparse.Namespace) -> list[Check]:
    checks = [scenario_check(scenario) for scenario in SCENARIOS]
    checks += [mutation_check(mutation) for mutation in MUTATIONS]
    settings = dict(setting.split("=", 1) for setting in options.set)
    return [
        replace(check, configuration=tlc.configured(check.configuration, **settings))
        for check in checks
        if options.only in check.name
    ]


def _text(scenario: str) -> str:
    return (MODELS / f"{scenario}.cfg").read_text(encoding="utf-8")


async def _run(checks: Sequence[Check], options: argparse.Namespace) -> list[Check]:
    room = asyncio.Semaphore(options.at_once)
    found = await tlc.find(os.environ, LOGS, options.timeout)
    _say(f"{'states':>10} {'seconds':>8}  verdict")

    async def one(check: Check) -> Check:
        async with room:
            done = await _checked(found, check)
        _say(_line(done))
        return done

    work: list[Awaitable[Check]] = [one(check) for check in checks]
    return list(await asyncio.gather(*work))


async def _checked(found: Tlc, check: Check) -> Check:
    try:
        verdict = await found.check(check.module, check.configuration)
    except TlcError as error:
        return replace(check, problem=str(error))
    return replace(check, verdict=verdict)


def _line(check: Check) -> str:
    if check.verdict is None:
        return f"{'':>19}  NO VERDICT   {check.name}: {check.problem}"
    found, due = check.verdict.violated, check.expected
    said = f"breaks {found}" if found else "holds"
    if not check.good:
        said = f"WRONG: {said}, should {f'break {due}' if due else 'hold'}"
    return f"{check.verdict.distinct:>10,} {check.verdict.seconds:>8.1f}  {check.name}: {said}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--only", default="", help="only runs whose name has this in it")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another value of a constant")
    parser.add_argument("--at-once", type=int, default=2, help="how many runs at once, each on one core (2)")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds that one run may take (600)")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
