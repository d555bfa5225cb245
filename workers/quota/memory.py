"""Books in memory, shared by the workers of one process: for unit tests of whoever holds, and the model of what MongoDB has to do."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from broker.limit_versions import LimitVersion
from workers.quota.book import NOTHING, Amounts, Book, added
from workers.quota.protocol import SOON_S, Books, Key, looked_at_until


class MemoryBooks:
    """Everything lies open: `version` of the limits, `books`, billed `rows`, `dead` incarnations, and `busy` ones, which have documents left."""

    def __init__(self) -> None:
        self.version: LimitVersion | None = None
        self.books: dict[Key, Book] = {}
        self.rows: list[tuple[Key, str, Amounts]] = []  # key, incarnation, what was used
        self.dead: set[str] = set()
        self.busy: set[str] = set()

    async def read(self, keys: Sequence[Key]) -> dict[Key, Book]:
        """The books that there are."""
        return {key: self.books[key] for key in keys if key in self.books}

    async def swap(self, key: Key, book: Book) -> bool:
        """Write a book as the next revision; False: another writer was faster."""
        known = self.books.get(key)
        if (known.rev if known else 0) != book.rev:
            return False
        self.books[key] = replace(book, rev=book.rev + 1)
        return True

    async def spent(self, key: Key, without: Collection[str], within_s: float = SOON_S) -> Amounts:
        """What the ledger's billed rows of this key say, for all incarnations but `without`."""
        del within_s  # nothing takes time here
        if not key.on_ledger:
            return NOTHING
        return added(amounts for of, incarnation, amounts in self.rows if of == key and incarnation not in without)

    async def closable(self, incarnations: Collection[str]) -> set[str]:
        """Those that are dead with nothing left."""
        return (set(incarnations) & self.dead) - self.busy

    async def waiting(self, now: datetime) -> list[Key]:
        """The keys on which jobs may wait."""
        return [key for key, book in self.books.items() if looked_at_until(key) >= now and book.waiting]

    async def named(self, now: datetime) -> dict[str, list[Key]]:
        """The incarnations that have entries, with the keys."""
        found: dict[str, list[Key]] = {}
        for key, book in self.books.items():
            if looked_at_until(key) >= now:
                for incarnation in book.grants:
                    found.setdefault(incarnation, []).append(key)
        return found

    async def untold(self) -> list[Key]:
        """The keys of books with an alert that Kafka may not have."""
        return [key for key, book in self.books.items() if book.untold]

    async def current(self, now: datetime) -> list[Key]:
        """The keys of all books of windows that are open or ended not long ago."""
        return [key for key in self.books if looked_at_until(key) >= now]

    async def limits(self, after: int) -> LimitVersion | None:
        """The last version that was set by command, if it is a later one."""
        return self.version if self.version is not None and self.version.version > after else None


_: type[Books] = MemoryBooks
