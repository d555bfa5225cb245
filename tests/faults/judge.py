"""`python -m tests.faults.judge`: judges what lies in a deployment now by the seven invariants; imports nothing of ours."""

import argparse
import asyncio
import sys
from pathlib import Path

from tests.faults.checker import check
from tests.faults.history import read_kills
from tests.faults.reading import Services, read_history


def main() -> int:
    """Print the problems; 1 when there are any."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.judge", description=__doc__)
    for name in ("kafka", "mongo", "simulator"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--database", default="aibroker")
    parser.add_argument("--prefix", default="")
    parser.add_argument("--kills", type=Path, help="the kill log: JSON lines of at, incarnation, held, pid, how")
    options = parser.parse_args()
    services = Services(options.kafka, options.mongo, options.database, options.prefix, options.simulator)
    kills = read_kills(options.kills.read_text().splitlines()) if options.kills else []
    history = asyncio.run(read_history(services, kills=kills))
    problems = [f"{number}. {problem}" for number, them in check(history).items() for problem in them]
    sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    sys.stdout.write(f"{len(history.records)} records, {len(history.calls)} calls, {len(problems)} problems\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
