"""Looks after the books in the background: gives back what is not used, closes the entries of the dead, and releases who waits for room.

It reads only books in which this worker has something free or unsettled or has refused somebody; an idle worker is quiet.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from broker.events import Events
from workers.quota.account import Account
from workers.quota.alerts import reached
from workers.quota.book import Amounts, Book, Limit, added, fitting
from workers.quota.closing import Closer
from workers.quota.holds import Holds
from workers.quota.protocol import Key
from workers.stores.protocol import StoreUnknownError

PERIOD_S = 2.0
NUDGED_S = 0.1
"""After so long somebody looks again who was nudged, because what is limited at one moment has become free."""
IDLE_S = 5.0
"""Who has taken no hold for so long gives back what is free."""
CLOSING_S = 1.0
"""So long a round waits for sums over the ledger, so that the room that they find is given out at once."""
IN_A_ROUND = 32
"""So many books of limits for which nobody waits are read in a round: reading a thousand in each took more CPU than their jobs did."""
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
        self._entries = holds.entries
        self._books = holds.entries.books
        self._release = release
        self._now = now
        self._closer = Closer(holds.entries, holds.clock)
        self._closing: set[asyncio.Task[None]] = set()
        self._turn = 0  # how many books were read in their turn
        self._nudged = asyncio.Event()
        holds.freed = self._nudged.set
        self._events = Events("worker.quota")
        self.ticked_at = holds.clock()

    async def run(self) -> None:
        """Tend for ever; cancel it to stop, and call `stop` afterwards."""
        while True:
            await self._rest()
            try:
                await self.tend()
            except StoreUnknownError as error:
                self._events.warning("quota.unknown", reason=str(error))
            self.ticked_at = self._holds.clock()

    async def _rest(self) -> None:
        """Until the next look: a period, or a moment where something has become free for who waits."""
        self._nudged.clear()
        await asyncio.sleep(NUDGED_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(PERIOD_S * self._holds.chance.uniform(0.75, 1.25) - NUDGED_S):
                await self._nudged.wait()

    async def stop(self) -> None:
        """Give back all that is not used, once nothing is held any more.

        Raises:
            StoreUnknownError: Something may be granted until this incarnation's entries are closed.
        """
        for closing in self._closing:
            closing.cancel()
        if self._closing:
            await asyncio.wait(self._closing)
        for account in list(self._holds.accounts.values()):
            if not account.settled:
                await self._entries.write(account)

    async def tend(self) -> None:
        """Go over the books once.

        Raises:
            StoreUnknownError: The next round goes on.
        """
        if not (self._holds.limited or self._holds.accounts):
            return
        await self._find_waiting()
        moment = self._holds.clock()
        restless = {key: account for key, account in self._holds.accounts.items() if _restless(account)}
        books = await self._books.read(await self._to_read(restless)) if restless else {}
        for key, account in restless.items():
            book = books.get(key)
            if _gives_back(account, book, moment):
                await self._entries.write(account)
            elif book is not None and self._in_doubt(account, book):
                await self._entries.write(account, keeping=True)
        hungry = {
            account.key.wait_key: account
            for account in restless.values()
            if account.hunger.waiting and not account.gone
        }
        await self._close(
            {key: books[key] for key in restless if key.wait_key in hungry and key in books},
            [account for key, account in restless.items() if account.hunger.doubtful and key not in books],
        )
        if hungry:
            await self._feed(list(hungry.values()))
        self._forget()

    async def _to_read(self, restless: Mapping[Key, Account]) -> list[Key]:
        """All books, where they are few; else those for which jobs wait, here or anywhere, and some of the others in their turn."""
        if len(restless) <= IN_A_ROUND:
            return list(restless)
        waiting = set(await self._books.waiting(self._now()))
        urgent = {key for key, account in restless.items() if key in waiting or account.hunger.waiting}
        others = [key for key in restless if key not in urgent]
        first, self._turn = self._turn % max(len(others), 1), self._turn + IN_A_ROUND
        return [*urgent, *(others[first:] + others[:first])[:IN_A_ROUND]]

    def _in_doubt(self, account: Account, book: Book) -> bool:
        """Whether a threshold may be reached by what we have not told; others who know more may be in doubt, too, and tell."""
        if account.shut or account.told == account.telling:
            return False
        most = added((book.taken(without=self._entries.incarnation), account.entry))
        due = reached(account.key, account.said, most, self._now())
        return any(str(threshold) not in book.alerts for threshold in due)

    # -- room ----------------------------------------------------------------------------------------------------------
    async def _feed(self, hungry: Sequence[Account]) -> None:
        """Release as many of the jobs that wait as have room now, in the window of now."""
        current = [self._holds.account(account.applied, self._now()) for account in hungry]
        books = await self._books.read([account.key for account in current])
        for account in current:
            if (book := books.get(account.key)) is not None or not account.hunger.doubtful:
                await self._feed_one(account, book or await self._entries.read_or_begin(account))

    async def _feed_one(self, account: Account, book: Book) -> None:
        hunger, key = account.hunger, account.key
        count = _room(account.limit, book, hunger.smallest, hunger.mean)
        if count == 0:
            return
        hunger.fed()
        released = await self._release(key.wait_key, count)
        if released:
            self._events.info("quota.released", key=key.wait_key, jobs=released)
        if released < count and not hunger.fresh(self._holds.clock()):
            await self._nobody_waits(account)

    async def _nobody_waits(self, account: Account) -> None:
        key = account.key
        async with account.lock:
            book = (await self._books.read([key])).get(key)
            if book is None or not book.waiting or await self._books.swap(key, book.noting(waiting=False)):
                account.hunger.waiting = False

    # -- what needs the ledger -----------------------------------------------------------------------------------------
    async def _find_waiting(self) -> None:
        """From time to time, and at first: find keys on which jobs wait."""
        if not self._closer.due:
            return
        for key in await self._books.waiting(self._now()):
            account = self._holds.of(key, self._now())
            if account is not None:
                account.hunger.waiting = True

    async def _close(self, hungry: Mapping[Key, Book], without: Sequence[Account]) -> None:
        """Have done what needs sums over the ledger; what takes long goes on beside the rounds that follow."""
        closing = asyncio.create_task(self._closer.work(hungry, without, self._now()))
        self._closing.add(closing)
        closing.add_done_callback(self._closed)
        await asyncio.wait({closing}, timeout=CLOSING_S)

    def _closed(self, closing: "asyncio.Task[None]") -> None:
        self._closing.discard(closing)
        if not closing.cancelled() and (error := closing.exception()) is not None:
            self._events.warning("quota.not_closed", reason=str(error))

    # -- windows -------------------------------------------------------------------------------------------------------
    def _forget(self) -> None:
        """Drop windows that are over and say what they should."""
        now = self._now()
        self._holds.forget(
            [
                key
                for key, account in self._holds.accounts.items()
                if key.end <= now and (account.shut or account.settled)
            ]
        )


def _restless(account: Account) -> bool:
    return (account.hunger.waiting and not account.gone) or (not account.shut and not account.at_rest)


def _gives_back(account: Account, book: Book | None, moment: float) -> bool:
    """Nothing of this key ran here lately, or somebody waits for what is free here, or more was used than granted."""
    if account.shut or account.at_rest:
        return False
    if account.changed:
        return True
    idle = account.quiet_since(moment) + IDLE_S <= moment
    return idle or account.overrun or (book is not None and book.waiting and account.has_free)


def _room(limit: Limit, book: Book, smallest: Amounts, mean: Amounts) -> int:
    """How many holds fit: as many as usual ones, or one where only a small one does."""
    if fitting(book, limit, smallest) == 0:
        return 0
    return min(max(fitting(book, limit, mean), 1), MOST_RELEASED)
