"""Counts a job's input where an estimate is not enough: before a limit rejects it."""

import asyncio
from typing import Any

from broker.tokens import count_input
from workers.guards.texts import request_texts


async def counted_input(operation: str, body: dict[str, Any], model: str) -> int:
    """The tokens of what a body asks, in a thread: the first count of a process loads a table for half a second."""
    texts = [text for _, text in request_texts(operation, body)]
    return await asyncio.to_thread(count_input, body, texts, model)
