"""Closes what the dead have left in the books: what they have spent is what the ledger says, an absolute figure.

Summing a ledger of millions of rows takes minutes, so nobody waits for it but who needs the sum; what fails for one book does not keep the others.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import datetime
from functools import partial

from broker.events import Events
from workers.quota.account import Account
from workers.quota.book import NOTHING, Amounts, Book
from workers.quota.entries import Entries
from workers.quota.protocol import Key
from workers.stores.protocol import StoreUnknownError

LOOK_AROUND_S = 30.0
"""How often it is looked for entries of the dead, wherever they are."""
RECONCILE_S = 60.0
"""So long after an entry was closed its book is compared with the ledger once more."""
PATIENCE_S = 600.0
"""The most that a sum over the ledger may take here; on a job's path it has a few seconds."""

_TRIES = 8


class Closer:
    """The part of the background that needs the ledger.

    Args:
        entries: Through which books are written.
        clock: Seconds of a monotonic clock.
    """

    def __init__(self, entries: Entries, clock: Callable[[], float]) -> None:
        self._entries = entries
        self._books = entries.books
        self._clock = clock
        self._looked_at: float | None = None
        self._reconcile: dict[Key, float] = {}
        self._under_way: set[Key] = set()
        self._events = Events("worker.quota")

    @property
    def due(self) -> bool:
        """Whether it is time to look around."""
        return self._looked_at is None or self._clock() - self._looked_at >= LOOK_AROUND_S

    async def work(self, hungry: Mapping[Key, Book], without: Iterable[Account], now: datetime) -> None:
        """Close and begin the books for which jobs wait, then look around if that is due; called again while it runs, it does what is new."""
        owners: dict[str, list[Key]] = {}
        for key, book in hungry.items():
            for owner in book.grants.keys() - {self._entries.incarnation}:
                owners.setdefault(owner, []).append(key)
        await self._close_all(owners, await self._dead(owners))
        for account in without:
            await self._apart(account.key, partial(self._begin, account))
        if self.due:
            moment = self._clock()
            named = await self._books.named(now)
            named.pop(self._entries.incarnation, None)
            dead = await self._dead(named)
            self._looked_at = moment  # before the sums: while they last, a round that follows need not look again
            await self._close_all(named, dead)
        await self._reconcile_late()

    async def _dead(self, named: Mapping[str, Collection[Key]]) -> set[str]:
        return await self._books.closable(named.keys()) if named else set()

    async def _close_all(self, named: Mapping[str, Collection[Key]], dead: Collection[str]) -> None:
        for key in {key for incarnation in dead for key in named[incarnation]}:
            await self._apart(key, partial(self._close, key, dead))

    async def _apart(self, key: Key, work: Callable[[], Awaitable[object]]) -> None:
        """Do what needs a sum, unless one for the same book is under way."""
        if key in self._under_way:
            return
        self._under_way.add(key)
        try:
            await work()
        except StoreUnknownError as error:
            self._events.warning("quota.not_summed", key=key.id, reason=str(error))
        finally:
            self._under_way.discard(key)

    async def _begin(self, account: Account) -> None:
        """Write a book that there is not, with what the ledger says of its window."""
        book = await self._entries.read_or_begin(account, PATIENCE_S)
        if not book.rev:
            await self._entries.swap(account.key, account.said, book)

    async def _close(self, key: Key, dead: Collection[str]) -> None:
        """Remove the entries of the dead: nothing of them is theirs to change any more."""
        book = (await self._books.read([key])).get(key)
        if book is None or book.grants.keys().isdisjoint(dead):
            return
        gone = book.grants.keys() & set(dead)
        closed = await self._books.spent(key, book.grants.keys() - gone, PATIENCE_S)
        if await self._write(key, book, closed, gone):
            self._events.info("quota.closed", key=key.wait_key, incarnations=sorted(gone))
            self._reconcile[key] = self._clock() + RECONCILE_S

    async def _reconcile_late(self) -> None:
        """Compare what is closed with the ledger: a zombie may have settled after its entry was closed."""
        late, moment = self._entries.late, self._clock()
        self._reconcile.update(dict.fromkeys(late - self._reconcile.keys(), moment + RECONCILE_S))
        late.clear()
        for key in [key for key, due in self._reconcile.items() if due <= moment]:
            await self._apart(key, partial(self._compare, key))

    async def _compare(self, key: Key) -> None:
        book = (await self._books.read([key])).get(key)
        closed = await self._books.spent(key, book.grants.keys(), PATIENCE_S) if book else NOTHING
        if book is None or book.closed == closed or await self._write(key, book, closed):
            self._reconcile.pop(key, None)

    async def _write(self, key: Key, summed: Book, closed: Amounts, gone: Collection[str] = ()) -> bool:
        """Put a sum into the book for which it was made, also where its entries have changed meanwhile; False: somebody has come or gone since.

        A book with much to do changes faster than its ledger is summed; and the sum is that of all without an entry, whatever the entries say.
        """
        applied = self._entries.rules.of(key.subject, key.per)
        limit, book = None if applied is None else applied.limit, summed
        for _ in range(_TRIES):
            if await self._entries.swap(key, limit, book.closing(gone, closed)) is not None:
                return True
            book = (await self._books.read([key])).get(key, Book())
            if (book.grants.keys(), book.shut, book.closed) != (summed.grants.keys(), summed.shut, summed.closed):
                return False
        return False
