"""A script in the manner of the OpenAI cookbook's for parallel requests: one loop that hands out requests within limits, aiohttp, a line a result."""

import asyncio
import json
from pathlib import Path

import aiohttp
from measured import arguments, body, measured

PAUSE_S = 0.001
REQUESTS_PER_S = 1_000_000.0


async def main() -> None:
    """Make the calls."""
    asked = arguments()
    out = Path(asked.out)

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        asking = body(number)
        async with session.post(
            f"{asked.url}/v1/chat/completions", json=asking, headers={"authorization": "Bearer key"}
        ) as answer:
            said = await answer.json()
        with out.open("a") as file:  # noqa: ASYNC230 as such scripts do
            file.write(json.dumps([asking, said]) + "\n")

    async def work() -> None:
        loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()
        left, at = 1.0, loop.time()
        async with aiohttp.ClientSession() as session:
            for number in range(asked.jobs):
                while left < 1:
                    left, at = min(left + (loop.time() - at) * REQUESTS_PER_S, REQUESTS_PER_S), loop.time()
                    await asyncio.sleep(PAUSE_S)
                left -= 1
                tasks.add(asyncio.create_task(one(session, number)))
                await asyncio.sleep(PAUSE_S)
            await asyncio.gather(*tasks)

    await measured(work, asked.jobs, "aiohttp")


asyncio.run(main())
