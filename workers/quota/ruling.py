"""Keeps a worker's limits those that were set last, and has what is there follow them: alerts that are due now, jobs that wait for nothing."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from broker.events import Events
from broker.limit_versions import LimitVersion
from broker.limits import Rulebook
from workers.quota.book import Book
from workers.quota.holds import Holds
from workers.quota.protocol import Key
from workers.quota.tender import MOST_RELEASED, Release
from workers.stores.protocol import StoreUnknownError

LOOK_S = 4.0
AGAIN = timedelta(seconds=20)
"""So long after a change it is looked once more: by then every worker knows of it, and who was told to wait before is in the database."""
AT_ONCE = 500
"""So many books are read at once."""


class Ruling:
    """The looker.

    Args:
        holds: Whose limits they are.
        rules: Makes the rules of a version.
        release: The store's verb.
    """

    def __init__(self, holds: Holds, rules: Callable[[LimitVersion], Rulebook], release: Release) -> None:
        self._holds = holds
        self._entries = holds.entries
        self._rules = rules
        self._release = release
        self._due = [holds.entries.now()] if holds.rules.version else []  # it may have been set while nobody lived
        self._events = Events("worker.quota")

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self.look()
            except StoreUnknownError as error:
                self._events.warning("limits.unknown", reason=str(error))
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Learn of a later version, and do what is left to be done for the last one.

        Raises:
            StoreUnknownError: The next round goes on.
        """
        now = self._entries.now()
        said = await self._entries.books.limits(self._holds.rules.version)
        if said is not None:
            self._holds.adopt(self._rules(said))
            self._due = [now, now + AGAIN]
            self._events.info("limits.changed", version=said.version, by=said.by, reason=said.reason)
        if self._due and self._due[0] <= now:
            await self._follow()
            self._due = self._due[1:]

    async def _follow(self) -> None:
        """Go over the books once."""
        keys = await self._entries.books.current(self._entries.now())
        for first in range(0, len(keys), AT_ONCE):
            for key, book in (await self._entries.books.read(keys[first : first + AT_ONCE])).items():
                await self._follow_one(key, book)

    async def _follow_one(self, key: Key, book: Book) -> None:
        applied = self._entries.rules.of(key.subject, key.per)
        if applied is not None:
            if self._entries.noticed_in(key, applied.limit, book) is not book:
                await self._entries.swap(key, applied.limit, book)  # who was faster has looked himself
        elif book.waiting:
            while await self._release(key.wait_key, MOST_RELEASED) == MOST_RELEASED:
                self._events.info("quota.released", key=key.wait_key, jobs=MOST_RELEASED)
            await self._entries.swap(key, None, book.noting(waiting=False))
