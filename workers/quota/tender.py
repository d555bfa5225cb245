"""Looks after the books in the background: gives back what is not used, closes the entries of the dead, and releases who waits for room.

It reads only books in which this worker has something free or unsettled or has refused somebody; an idle worker is quiet.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from broker.events import Events
from workers.quota.account import Account
from workers.quota.book import NOTHING, Amounts, Book, fitting
from workers.quota.holds import Holds, Tenancy, day_of
from workers.quota.protocol import Key
from workers.stores.protocol import StoreUnknownError

PERIOD_S = 2.0
IDLE_S = 5.0
"""Who has taken no hold for so long gives back what is free."""
LOOK_AROUND_S = 30.0
"""How often books are looked for that others left behind: jobs that wait, entries of the dead."""
RECONCILE_S = 60.0
"""So long after an entry was closed its book is compared with the ledger once more."""
MOST_RELEASED = 1_000
"""Jobs released at once, for one key."""

Release = Callable[[str, int], Awaitable[int]]
"""Makes up to so many jobs that wait on a key due now, and says how many there were."""


class Tender:
    """The background of `Holds`.

    Args:
        holds: Whose accounts are tended.
        release: The store's verb.
        now: The time in UTC.
    """

    def __init__(self, holds: Holds, release: Release, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._holds = holds
        self._books = holds.books
        self._release = release
        self._now = now
        self._looked_at: float | None = None
        self._reconcile: dict[Key, float] = {}
        self._events = Events("worker.quota")
        self.ticked_at = holds.clock()

    async def run(self) -> None:
        """Tend for ever; cancel it to stop, and call `stop` afterwards."""
        while True:
            await asyncio.sleep(PERIOD_S * self._holds.chance.uniform(0.75, 1.25))
            try:
                await self.tend()
            except StoreUnknownError as error:
                self._events.warning("quota.unknown", reason=str(error))
            self.ticked_at = self._holds.clock()

    async def stop(self) -> None:
        """Give back all that is not used, once nothing is held any more.

        Raises:
            StoreUnknownError: Something may be granted until this incarnation's entries are closed.
        """
        for tenancy in list(self._holds.tenancies.values()):
            if not tenancy.account.settled:
                await self._holds.give_back(tenancy)

    async def tend(self) -> None:
        """Go over the books once.

        Raises:
            StoreUnknownError: The next round goes on.
        """
        if not self._holds.limited:
            return
        await self._look_around()
        moment = self._holds.clock()
        restless = {key: tenancy for key, tenancy in self._holds.tenancies.items() if _restless(tenancy)}
        books = await self._books.read(list(restless)) if restless else {}
        for key, tenancy in restless.items():
            if _gives_back(tenancy.account, books.get(key), moment):
                await self._holds.give_back(tenancy)
        hungry = {key: tenancy for key, tenancy in restless.items() if tenancy.hunger.waiting}
        if hungry:
            await self._close_in({key: books[key] for key in hungry if key in books})
            await self._feed(list(hungry.values()))
        await self._reconcile_late(moment)
        self._forget()

    # -- room ----------------------------------------------------------------------------------------------------------
    async def _feed(self, hungry: Sequence[Tenancy]) -> None:
        """Release as many of the jobs that wait as have room now, in the window of today."""
        today = {tenancy: Key(tenancy.account.key.tenant, self._today()) for tenancy in hungry}
        books = await self._books.read(list(set(today.values())))
        for tenancy, key in today.items():
            here = self._holds.tenancy(key)
            if here is not None:
                book = books.get(key) or await self._holds.read_or_begin(key)
                await self._feed_one(tenancy, here, book)

    async def _feed_one(self, tenancy: Tenancy, today: Tenancy, book: Book) -> None:
        hunger, key = tenancy.hunger, tenancy.account.key
        count = _room(today, book, hunger.smallest, hunger.mean)
        if count == 0:
            return
        today.hunger.fed()
        released = await self._release(key.wait_key, count)
        if released:
            self._events.info("quota.released", key=key.wait_key, jobs=released)
        if released < count and not hunger.fresh(self._holds.clock()):
            await self._nobody_waits(tenancy)

    async def _nobody_waits(self, tenancy: Tenancy) -> None:
        key = tenancy.account.key
        async with tenancy.account.lock:
            book = (await self._books.read([key])).get(key)
            if book is None or not book.waiting or await self._books.swap(key, book.noting(waiting=False)):
                tenancy.hunger.waiting = False

    # -- the dead ------------------------------------------------------------------------------------------------------
    async def _look_around(self) -> None:
        """From time to time, and at first: find keys on which jobs wait, and close what the dead left behind."""
        moment = self._holds.clock()
        if self._looked_at is not None and moment - self._looked_at < LOOK_AROUND_S:
            return
        days = [self._today(), day_of(self._now() - timedelta(days=1))]
        for key in await self._books.waiting(days):
            tenancy = self._holds.tenancy(key)
            if tenancy is not None:
                tenancy.hunger.waiting = True
        named = await self._books.named(days)
        named.pop(self._holds.incarnation, None)
        dead = await self._books.closable(named.keys()) if named else set()
        keys = {key for incarnation in dead for key in named[incarnation]}
        for key in keys:
            await self._close(key, dead)
        self._looked_at = moment

    async def _close_in(self, books: Mapping[Key, Book]) -> None:
        """Close what the dead have in these books."""
        others = {owner for book in books.values() for owner in book.grants} - {self._holds.incarnation}
        dead = await self._books.closable(others) if others else set()
        for key, book in books.items():
            if not dead.isdisjoint(book.grants):
                await self._close(key, dead)

    async def _close(self, key: Key, dead: Collection[str]) -> None:
        """Remove the entries of the dead; what they have spent is what the ledger says, an absolute figure.

        Nothing of it is theirs to change any more, and the swap fails if anybody else touched the book since it was read.
        """
        book = (await self._books.read([key])).get(key)
        if book is None or book.grants.keys().isdisjoint(dead):
            return
        gone = book.grants.keys() & set(dead)
        closed = await self._books.spent(key, book.grants.keys() - gone)
        if await self._books.swap(key, book.closing(gone, closed)):
            self._events.info("quota.closed", key=key.wait_key, incarnations=sorted(gone))
            self._reconcile[key] = self._holds.clock() + RECONCILE_S

    async def _reconcile_late(self, moment: float) -> None:
        """Compare what is closed with the ledger: a zombie may have settled after its entry was closed."""
        for key in [key for key, due in self._reconcile.items() if due <= moment]:
            book = (await self._books.read([key])).get(key)
            closed = await self._books.spent(key, book.grants.keys()) if book else NOTHING
            if book is None or book.closed == closed or await self._books.swap(key, book.closing((), closed)):
                del self._reconcile[key]

    # -- days ----------------------------------------------------------------------------------------------------------
    def _today(self) -> str:
        return day_of(self._now())

    def _forget(self) -> None:
        """Drop days that are over and say what they should."""
        today = self._today()
        over = [
            key
            for key, tenancy in self._holds.tenancies.items()
            if key.day < today and tenancy.account.settled and not tenancy.hunger.waiting
        ]
        for key in over:
            self._holds.forget(key)


def _restless(tenancy: Tenancy) -> bool:
    account = tenancy.account
    return tenancy.hunger.waiting or (not account.shut and not _at_rest(account))


def _at_rest(account: Account) -> bool:
    return account.free == NOTHING and account.written == account.entry


def _gives_back(account: Account, book: Book | None, moment: float) -> bool:
    """Nothing of this key ran here lately, or somebody waits for what is free here, or more was used than granted."""
    if account.shut or _at_rest(account):
        return False
    idle = account.quiet_since(moment) + IDLE_S <= moment
    return idle or account.overrun or (book is not None and book.waiting and account.free != NOTHING)


def _room(tenancy: Tenancy, book: Book, smallest: Amounts, mean: Amounts) -> int:
    """How many holds fit: as many as usual ones, or one where only a small one does."""
    limit = tenancy.account.limit
    if fitting(book, limit, smallest) == 0:
        return 0
    return min(max(fitting(book, limit, mean), 1), MOST_RELEASED)
