"""Counts a job's input where an estimate is not enough: before a limit rejects it."""

import asyncio
from typing import Any

from broker.tokens import A_MESSAGE, count
from workers.guards.texts import request_texts


async def counted_input(operation: str, body: dict[str, Any], model: str) -> int:
    """The tokens of what a body asks, in a thread: the first count of a process loads a table for half a second."""
    messages = body.get("messages")
    around = A_MESSAGE * len(messages) if isinstance(messages, list) else 0
    texts = [text for _, text in request_texts(operation, body)]
    return around + await asyncio.to_thread(lambda: sum(count(text, model) for text in texts))
