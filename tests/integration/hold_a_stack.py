"""Runs a stack with one worker until it is killed: `hold_a_stack.py FOLDER WORKER_SOURCE`."""

import asyncio
import os
import sys
from pathlib import Path

from broker.local.stack import Plan, Stack


async def main() -> None:
    """Start everything, then wait for the end."""
    plan = Plan(
        data=Path(sys.argv[1]),
        environment=dict(os.environ),
        simulator=False,
        worker_command=(sys.executable, "-c", sys.argv[2]),
    )
    async with Stack(plan) as stack:
        await stack.start_workers(1, {"AIBROKER_KAFKA": stack.kafka_url})
        await asyncio.Event().wait()


asyncio.run(main())
