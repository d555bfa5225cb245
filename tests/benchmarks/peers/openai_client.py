"""Calls by `openai.AsyncOpenAI`, 200 at a time."""

import asyncio

from measured import all_at_once, arguments, body, measured
from openai import AsyncOpenAI


async def main() -> None:
    """Make the calls."""
    asked = arguments()
    client = AsyncOpenAI(base_url=f"{asked.url}/v1", api_key="key", max_retries=0, timeout=120)
    calls = all_at_once(lambda number: client.chat.completions.create(**body(number)), asked.jobs, 200)
    await measured(lambda: calls, asked.jobs, "openai", "httpx", "httpx2")


asyncio.run(main())
