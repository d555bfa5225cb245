"""How much may be handed over and not yet acknowledged: who finds no room waits in line, and one at a time is woken."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """Room for records and bytes; one record or batch more than fits is let in, so that any size passes.

    Args:
        max_bytes: There is room below this.
        max_records: And below this.
    """

    def __init__(self, max_bytes: int, max_records: int) -> None:
        self._max_bytes, self._max_records = max_bytes, max_records
        self._bytes = 0
        self.records = 0
        self._door = asyncio.Lock()
        self._free, self._empty = asyncio.Event(), asyncio.Event()
        self._empty.set()

    @property
    def open(self) -> bool:
        """Whether there is room, and nobody who came before waits for it."""
        return not self._door.locked() and not self._full

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Wait in line until there is room. Thousands may wait: waking all for each record would be quadratic."""
        async with self._door:
            while self._full:
                self._free.clear()
                await self._free.wait()
            yield

    def take(self, size: int) -> None:
        """Take room for one record."""
        self.records += 1
        self._bytes += size
        self._empty.clear()

    def give_back(self, records: int, size: int) -> None:
        """Give room back."""
        self.records -= records
        self._bytes -= size
        if not self._full:
            self._free.set()
        if not self.records:
            self._empty.set()

    async def emptied(self) -> None:
        """Wait until nothing is inside."""
        await self._empty.wait()

    @property
    def _full(self) -> bool:
        return self._bytes >= self._max_bytes or self.records >= self._max_records
