"""`make bench`: measures, prints a table and writes `build/bench.json`."""

import argparse
import json
import logging
import os
import platform
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil
import uvloop

from broker.errors import AibrokerError
from broker.local.stack import Plan, Stack
from tests.benchmarks import p1, p2, p3, p4, p5, p7, p8, p9, p10, quota, r2, r3, rollup
from tests.benchmarks.ground import Entry, Options

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
FLOOR = ROOT.parent / "shared" / "bench" / "floor.py"
PACKAGES = ("aiokafka", "pyreqwest", "pymongo", "pydantic", "orjson", "uvloop")

BENCHMARKS: Mapping[str, Callable[[Stack, Options], Awaitable[Entry]]] = MappingProxyType(
    {
        "P1": p1.measure,
        "P2": p2.measure,
        "P3": p3.measure,
        "P4": p4.measure,
        "P5": p5.measure,
        "P7": p7.measure,
        "P8": p8.measure,
        "P9": p9.measure,
        "P10": p10.measure,
        "QUOTA": quota.measure,
        "R2": r2.measure,
        "R3": r3.measure,
        "ROLLUP": rollup.measure,
    }
)
"""Every benchmark by its target; they run in this order."""


async def measure(names: list[str], options: Options) -> dict[str, Any]:
    """Run benchmarks on one stack of their own; one that fails says why, and the others go on."""
    table: dict[str, Any] = {}
    plan = Plan(data=options.folder / "data", environment=dict(os.environ), kafka_heap_mb=1024)
    async with Stack(plan, _say) as stack:
        for name in names:
            _say(f"{name} is measured")
            document: dict[str, Any]
            try:
                document = (await BENCHMARKS[name](stack, options)).document()
            except (RuntimeError, AssertionError, TimeoutError, AibrokerError) as error:
                document = {"value": None, "target": None, "holds": False, "failed": repr(error), "conditions": {}}
            table[name] = {**document, "scale": options.scale, "at": datetime.now(UTC).isoformat(timespec="seconds")}
            _say("\n".join(rows(name, table[name])))
    return table


def rows(name: str, document: Mapping[str, Any]) -> list[str]:
    """The lines of the table for one entry: one a figure, with the verdict at the first."""
    verdict = "holds" if document["holds"] else "does not hold"
    if document.get("failed"):
        return [f"{name:<6}{'-':>12}  {'':<12}{document['failed']}"]
    values, targets = document["value"], document["target"]
    if not isinstance(values, dict):
        return [f"{name:<6}{values:>12}  {targets:<12}{verdict}"]
    return [
        f"{name if not place else '':<6}{value:>12}  {targets[figure]:<12}{verdict if not place else '':<16}{figure}"
        for place, (figure, value) in enumerate(values.items())
    ]


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def main() -> int:
    """Measure, print, write; 1 where a target is not reached."""
    arguments = _arguments()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it tells of each retry
    names = arguments.only or list(BENCHMARKS)
    with tempfile.TemporaryDirectory(prefix="aibroker-bench-", ignore_cleanup_errors=True) as folder:
        options = Options(Path(folder), BUILD / "peers", arguments.floor, arguments.scale, arguments.rounds)
        table = uvloop.run(measure(names, options))  # the loop that workers use, for what is measured in this process
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    arguments.out.write_text(json.dumps({**before, **table, "machine": machine()}, indent=2) + "\n")
    sys.stdout.write(f"{'':<6}{'measured':>12}  {'target':<12}verdict\n")
    for name in names:
        sys.stdout.write("\n".join(rows(name, table[name])) + "\n")
    sys.stdout.write(f"conditions: {arguments.out}\n")
    return 0 if all(table[name]["holds"] for name in names) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", type=_names, help=f"which of {', '.join(BENCHMARKS)}, with commas")
    parser.add_argument("--floor", type=Path, default=FLOOR, help="the yardstick's script")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual sizes, for a quick look (1)")
    parser.add_argument("--rounds", type=int, help="how often things are measured in turn, where not as usual")
    parser.add_argument("--out", type=Path, default=BUILD / "bench.json", help="entries of other targets stay in it")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    return names


def _say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


if __name__ == "__main__":
    sys.exit(main())
