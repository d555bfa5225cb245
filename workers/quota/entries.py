"""This worker's entries in the books: extended for holds, given back, and with each write what is spent; no alert costs a write of its own."""

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime
from typing import Literal

from broker.events import Events
from broker.limits import Limit, Rulebook
from workers.quota.account import Account
from workers.quota.alerts import noticing
from workers.quota.book import NOTHING, NOTHING_TOLD, Amounts, Book, extended
from workers.quota.protocol import SOON_S, Books, Key
from workers.stores.protocol import StoreUnknownError

_TRIES = 8


class Entries:
    """Who changes an entry holds its account's lock; only `write` takes it.

    Args:
        rules: The limits now.
        books: Where the books are.
        incarnation: This worker's.
        clock: Seconds of a monotonic clock.
        now: The time in UTC, for alerts.
    """

    def __init__(
        self,
        rules: Rulebook,
        books: Books,
        incarnation: str,
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self.rules = rules
        self.books = books
        self.incarnation = incarnation
        self.now = now
        self._clock = clock
        self.late: set[Key] = set()  # entered late: somebody may have counted our rows among those of closed ones
        self.noticed: Callable[[Key, Collection[str]], None] = lambda *_: (
            None
        )  # told of new alerts, by their thresholds
        self._events = Events("worker.quota")

    async def extend(self, account: Account, need: Amounts) -> bool:
        """Ask the book for another chunk; False: it was refused, or cannot be had now."""
        try:
            for _ in range(_TRIES):
                extended_or_refused = await self._try_extend(account, need)
                if extended_or_refused is not None:
                    return extended_or_refused
        except StoreUnknownError as error:
            self._events.warning("quota.unknown", key=account.key.wait_key, reason=str(error))
        account.hunger.refused(need, self._clock(), doubtful=True)
        return False

    async def _try_extend(self, account: Account, need: Amounts) -> bool | None:
        """Write the book with a larger entry, or note that jobs wait; None: another worker was faster, or only a book of before has no room."""
        guessed = account.alone is not None
        book = await self._read(account)
        if self.incarnation in book.shut:
            account.shut = True
            account.grant(account.used)
            return False
        ask = account.ask(need, self._clock())
        entry = extended(book, self.incarnation, ask, account.limit)
        if entry is None:
            return None if guessed else await self._refuse(account, book, need, ask.have)
        if not await self._enter(account, book, entry):
            return None
        account.extend(entry, self._clock())
        account.hunger.fed()
        return True

    async def _refuse(self, account: Account, book: Book, need: Amounts, have: Amounts) -> Literal[False] | None:
        """Note in the book that jobs wait, so that others give back what they do not use."""
        if not book.waiting or book.grants.get(self.incarnation, have) != have:
            noted = book.noting(waiting=True)
            if self.incarnation in book.grants:
                if not await self._enter(account, noted, have):
                    return None
            else:
                account.written = None
                if await self.swap(account.key, account.said, noted) is None:
                    return None
                account.written = NOTHING
        account.hunger.refused(need, self._clock(), alone=not book.grants.keys() - {self.incarnation})
        return False

    async def begin(self, account: Account) -> None:
        """Have an entry before the first job passes without a chunk: it is what tells others to count what we spent if we die.

        Asked for once only: jobs pass whatever the book answers, and then `late` has it compared with the ledger.
        """
        async with account.lock:
            try:
                for _ in range(_TRIES):
                    if account.entered or account.shut:
                        return
                    book = await self._read(account)
                    account.shut = self.incarnation in book.shut
                    if not account.shut:
                        await self._enter(account, book, account.entry)
            except StoreUnknownError as error:
                self._events.warning("quota.unknown", key=account.key.wait_key, reason=str(error))
            account.entered = True

    async def _read(self, account: Account) -> Book:
        """The book for who holds the lock; where it has an entry of ours of which the account knows nothing, the account goes on from that.

        Where we were alone in it when we wrote it, that is taken for the book once: if it has changed, the write that follows fails.
        """
        if account.alone is not None:
            alone, account.alone = account.alone, None
            return alone
        book = await self.read_or_begin(account)
        entry = book.grants.get(self.incarnation, NOTHING)
        if account.written == NOTHING != entry:
            account.recall(entry, book.told.get(self.incarnation, NOTHING_TOLD))
        return book

    async def read_or_begin(self, account: Account, within_s: float = SOON_S) -> Book:
        """The book; where there is none yet, one that knows what the ledger says of this window, if it says so in time."""
        book = (await self.books.read([account.key])).get(account.key)
        if book is not None:
            return book
        # Where holds pass without a chunk, the ledger may have rows of workers that are about to enter themselves; our own are in our entry.
        without = {self.incarnation}
        return Book(closed=NOTHING if account.passes else await self.books.spent(account.key, without, within_s))

    async def write(self, account: Account, *, keeping: bool = False) -> None:
        """Have the book say what is used and spent, and nothing more unless what is free is kept: lowered here first, then there.

        Raises:
            StoreUnknownError: It may say more than that; nothing is lost.
        """
        async with account.lock:
            for _ in range(_TRIES):
                if not keeping:
                    account.grant(account.used)
                if account.shut or account.known:
                    account.changed = False
                    return
                book = await self._read(account)
                if self.incarnation in book.shut:
                    account.shut = True
                    return
                if await self._enter(account, book, account.entry):
                    return

    async def _enter(self, account: Account, book: Book, entry: Amounts) -> bool:
        """Write our entry into a book that was read; False: another worker was faster."""
        account.judge(book.taken())
        telling, account.written = account.telling, None  # until the answer is there, and for ever if it is lost
        if account.taken and self.incarnation not in book.grants:
            self.late.add(account.key)  # whatever the answer: the next book that we read may have our entry
        limit = None if account.gone else account.said
        written = await self.swap(account.key, limit, book.granting(self.incarnation, entry, telling))
        if written is None:
            return False
        account.written, account.told, account.changed, account.entered = entry, telling, False, True
        if len(written.grants) == 1 and not account.passing:  # what passes is judged by what the book says of all
            account.alone = written
        return True

    def noticed_in(self, key: Key, limit: Limit | None, book: Book) -> Book:
        """The book with the alerts that are due; itself where none is."""
        return noticing(book, key, limit, version=self.rules.version, now=self.now())

    async def swap(self, key: Key, limit: Limit | None, book: Book) -> Book | None:
        """Write a book, with the alerts that are due by what it says is spent, and return it as it is now; None: another worker was faster."""
        noticed = self.noticed_in(key, limit, book)
        if not await self.books.swap(key, noticed):
            return None
        if new := noticed.alerts.keys() - book.alerts.keys():
            self._events.info("quota.alerts", key=key.id, thresholds=sorted(new))
            self.noticed(key, new)
        return replace(noticed, rev=noticed.rev + 1)
