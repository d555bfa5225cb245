"""Repeats a write or a read until its outcome is known: unknown is never read as "no"."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from broker.events import Events
from workers.stores.protocol import StoreUnknownError

Answer = TypeVar("Answer")

FIRST_RETRY_S = 0.05
LONGEST_RETRY_S = 2.0


async def until_known(write: Callable[[], Awaitable[Answer]], events: Events, what: str) -> Answer:
    """Repeat a write until its outcome is known."""
    wait_s = FIRST_RETRY_S
    while True:
        try:
            return await write()
        except StoreUnknownError as error:
            events.warning("store.unknown", write=what, reason=str(error), again_in_s=wait_s)
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, LONGEST_RETRY_S)
