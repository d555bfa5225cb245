"""Calls by LiteLLM's router with one deployment, 200 at a time."""

import asyncio

from litellm import Router
from measured import all_at_once, arguments, body, measured


async def main() -> None:
    """Make the calls."""
    asked = arguments()
    target = {"model": "openai/gpt-4o-mini", "api_base": f"{asked.url}/v1", "api_key": "key"}
    router = Router(model_list=[{"model_name": "gpt-4o-mini", "litellm_params": target}], num_retries=0, timeout=120)
    calls = all_at_once(lambda number: router.acompletion(**body(number)), asked.jobs, 200)
    await measured(lambda: calls, asked.jobs, "litellm", "openai")


asyncio.run(main())
