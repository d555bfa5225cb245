"""`make bench`: measures, prints a table and writes `build/bench.json`."""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from broker.local.stack import Plan, Stack
from tests.benchmarks import p1

ROOT = Path(__file__).parents[2]
FLOOR = ROOT.parent / "shared" / "bench" / "floor.py"
PACKAGES = ("aiokafka", "pyreqwest", "pymongo", "pydantic", "orjson", "uvloop")


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run every benchmark on one stack of its own."""
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(data=Path(folder) / "data", environment=dict(os.environ), kafka_heap_mb=1024)
        async with Stack(plan, lambda sentence: print(sentence, file=sys.stderr)) as stack:  # noqa: T201 progress
            compared = p1.compare(stack, Path(folder), arguments.floor, jobs=arguments.jobs, pairs=arguments.pairs)
            return {"P1": await compared}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def main() -> int:
    """Measure, print, write; 1 where a target is not reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--floor", type=Path, default=FLOOR, help="the yardstick's script")
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=5, help="alternating pairs; the median of their ratios counts")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench.json")
    arguments = parser.parse_args()
    if not arguments.floor.exists():
        parser.error(f"there is no {arguments.floor}; name the yardstick with --floor")
    table = asyncio.run(measure(arguments))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({**table, "machine": machine()}, indent=2) + "\n")
    for name, entry in table.items():
        verdict = "holds" if entry["holds"] else "does not hold"
        sys.stdout.write(
            f"{name}  {entry['value']}  target <= {entry['target']}  {verdict}  {json.dumps(entry['conditions'])}\n"
        )
    return 0 if all(entry["holds"] for entry in table.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
