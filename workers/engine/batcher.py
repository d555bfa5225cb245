"""Gathers what many tasks write into few writes, without timers.

A batcher writes what has gathered as soon as its previous write is back. Only while the worker is busy it leaves some time between
writes, so that batches grow where the load is high and a lone job does not wait where it is low.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

LIMIT = 256
"""The most that one write holds."""
PAUSE_S = 0.1
"""What is left between writes while the worker is busy: a command costs about 1 ms of CPU here whatever it holds, so 16 documents a write cost five
times as much each as 256 do."""


class Batcher(Generic[Item]):
    """One loop that hands gathered items to `write`; items keep their order.

    Args:
        write: Takes a batch and must not raise: what becomes of each item is its business.
        busy: Whether more is sure to come soon.
    """

    def __init__(
        self, write: Callable[[list[Item]], Awaitable[None]], busy: Callable[[], bool] = lambda: False
    ) -> None:
        self._write = write
        self._busy = busy
        self._items: deque[Item] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item) -> None:
        """Put an item into the next write."""
        self._items.append(item)
        self._idle.clear()
        self._wake.set()

    async def run(self) -> None:
        """Write for ever; cancel it after `flush`."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._items:
                batch = [self._items.popleft() for _ in range(min(LIMIT, len(self._items)))]
                await self._write(batch)
                if self._busy() and len(self._items) < LIMIT:
                    await asyncio.sleep(PAUSE_S)
            self._idle.set()

    async def flush(self) -> None:
        """Wait until all that was added is written."""
        await self._idle.wait()
