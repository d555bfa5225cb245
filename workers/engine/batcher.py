"""Gathers what many tasks write into few writes.

A batch is written when it is full, or when the most impatient of its items is due; an item without patience is due at once. While one write is away
the next batch gathers, so under load even impatient items share a write.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

LIMIT = 256
"""The most that one write holds."""
NO_PATIENCE_S = 0.005
"""Less is not worth a timer."""


class Batcher(Generic[Item]):
    """One loop that hands gathered items to `write`; items keep their order.

    Args:
        write: Takes a batch and must not raise: what becomes of each item is its business.
    """

    def __init__(self, write: Callable[[list[Item]], Awaitable[None]]) -> None:
        self._write = write
        self._items: deque[Item] = deque()
        self._due_at = float("inf")  # of the most impatient item that no timer or event has called yet
        self._timer: asyncio.TimerHandle | None = None
        self._due = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item, patience_s: float = 0.0) -> None:
        """Put an item into the next write, which may wait for others so long."""
        self._items.append(item)
        self._idle.clear()
        if patience_s < NO_PATIENCE_S or len(self._items) >= LIMIT:
            self._due.set()
            return
        loop = asyncio.get_running_loop()
        due_at = loop.time() + patience_s
        if due_at < self._due_at:
            self._forget_timer()
            self._due_at, self._timer = due_at, loop.call_at(due_at, self._due.set)

    async def run(self) -> None:
        """Write for ever; cancel it after `flush`."""
        while True:
            await self._due.wait()
            self._due.clear()
            self._forget_timer()
            batch = [self._items.popleft() for _ in range(min(LIMIT, len(self._items)))]
            if self._items:
                self._due.set()
            if batch:
                await self._write(batch)
            if not self._items:
                self._idle.set()

    async def flush(self) -> None:
        """Wait until all that was added is written, at once."""
        if self._items:
            self._due.set()
        await self._idle.wait()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due_at, self._timer = float("inf"), None
