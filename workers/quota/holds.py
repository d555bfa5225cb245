"""Holds: taken from the chunk that this worker was granted; only who finds it used up asks the book for another one."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Literal

from broker import settings
from broker.events import Events
from workers.quota.account import Account
from workers.quota.book import NOTHING, Amounts, Book, Limit, extended
from workers.quota.hold import ChunkHold, FreeHold
from workers.quota.hunger import Hunger
from workers.quota.protocol import Books, Denied, Hold, Key
from workers.stores.protocol import StoreUnknownError

EVERYBODY = "*"
SHORT_S = 3.0
"""Who cannot be answered now asks again after about this long."""
SPREAD = timedelta(minutes=10)
"""Jobs that wait for the next day become due spread over its first ten minutes."""
_TRIES = 8


class Tenancy:
    """A tenant's day in this worker: its account, and who was refused."""

    __slots__ = ("account", "hunger")

    def __init__(self, account: Account) -> None:
        self.account = account
        self.hunger = Hunger()


class Holds:
    """The quotas of one worker; `Tender` gives back, closes and releases in its background.

    Args:
        limits: From the settings; a tenant's own comes before that of `*`, which each other tenant has for itself.
        books: Where the books are.
        incarnation: This worker's.
        clock: Seconds of a monotonic clock.
        chance: For jitter.
    """

    def __init__(
        self,
        limits: Sequence[settings.Quota],
        books: Books,
        incarnation: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Random | None = None,
    ) -> None:
        self.books = books
        self.incarnation = incarnation
        self.clock = clock
        self.chance = chance or Random()  # noqa: S311 jitter is no secret
        self.tenancies: dict[Key, Tenancy] = {}
        self._limits = {limit.tenant: limit for limit in limits}
        self._today: dict[str, Tenancy] = {}
        self._day, self._ordinal = "", 0
        self._events = Events("worker.quota")

    # -- the path of a job ---------------------------------------------------------------------------------------------
    def try_hold(self, tenant: str, tokens: int, usd: Decimal, now: datetime) -> Hold | None:
        """Take a hold from what is here, without waiting; None: ask `hold`. `now` is in UTC."""
        if now.toordinal() != self._ordinal:
            self._turn(now)
        tenancy = self._today.get(tenant)
        if tenancy is None:
            tenancy = self._open(tenant)
            if tenancy is None:
                return FreeHold(self._day)
        account = tenancy.account
        if not account.take(tokens, usd):
            return None
        return ChunkHold(account, self._day, tokens, usd)

    async def hold(self, tenant: str, tokens: int, usd: Decimal, now: datetime) -> Hold | Denied:
        """Take a hold, after another chunk was granted where that is needed."""
        hold = self.try_hold(tenant, tokens, usd, now)
        if hold is not None:
            return hold
        tenancy = self._today[tenant]
        account, need = tenancy.account, Amounts(1, tokens, usd)
        if too_large := _never_fits(account.limit, need):
            return Denied("reject", account.key.wait_key, now, f"{too_large} of tenant {tenant} a day; make it smaller")
        if not account.shut and not tenancy.hunger.refuses(need, self.clock()):
            account.asking += 1
            try:
                async with account.lock:
                    while not account.take(tokens, usd):
                        refused = account.shut or tenancy.hunger.refuses(need, self.clock())
                        if refused or not await self._extend(tenancy, need):
                            return self._denied(tenancy, now)
            finally:
                account.asking -= 1
            return ChunkHold(account, account.key.day, tokens, usd)
        return self._denied(tenancy, now)

    # -- chunks --------------------------------------------------------------------------------------------------------
    async def _extend(self, tenancy: Tenancy, need: Amounts) -> bool:
        """Ask the book for another chunk; False: it was refused, or cannot be had now. The account's lock is held."""
        try:
            for _ in range(_TRIES):
                extended_or_refused = await self._try_extend(tenancy, need)
                if extended_or_refused is not None:
                    return extended_or_refused
        except StoreUnknownError as error:
            self._events.warning("quota.unknown", key=tenancy.account.key.wait_key, reason=str(error))
        tenancy.hunger.refused(need, self.clock(), doubtful=True)
        return False

    async def _try_extend(self, tenancy: Tenancy, need: Amounts) -> bool | None:
        """Read the book and write it with a larger entry, or note that jobs wait; None: another worker was faster."""
        account = tenancy.account
        book = await self.read_or_begin(account.key)
        if self.incarnation in book.shut:
            account.shut = True
            account.keep(NOTHING)
            return False
        ask = account.ask(need)
        entry = extended(book, self.incarnation, ask, account.limit)
        if entry is None:
            return await self._refuse(tenancy, book, need, ask.have)
        account.written = None  # until the answer is there, and for ever if it is lost
        if not await self.books.swap(account.key, book.granting(self.incarnation, entry)):
            return None
        account.extend(entry, self.clock())
        tenancy.hunger.fed()
        return True

    async def _refuse(self, tenancy: Tenancy, book: Book, need: Amounts, have: Amounts) -> Literal[False] | None:
        """Note in the book that jobs wait, so that others give back what they do not use."""
        if not book.waiting or book.grants.get(self.incarnation, have) != have:
            account = tenancy.account
            account.written = None
            noted = book.noting(waiting=True)
            if self.incarnation in book.grants:
                noted = noted.granting(self.incarnation, have)
            if not await self.books.swap(account.key, noted):
                return None
            account.written = noted.grants.get(self.incarnation, NOTHING)
        tenancy.hunger.refused(need, self.clock(), alone=not book.grants.keys() - {self.incarnation})
        return False

    async def read_or_begin(self, key: Key) -> Book:
        """The book; where there is none yet, one that knows what the ledger says of this day."""
        book = (await self.books.read([key])).get(key)
        return book if book is not None else Book(closed=await self.books.spent(key, ()))

    async def give_back(self, tenancy: Tenancy) -> None:
        """Have the book say what is used, and nothing more: lowered here first, then there.

        Raises:
            StoreUnknownError: It may say more than that; nothing is lost.
        """
        account = tenancy.account
        async with account.lock:
            for _ in range(_TRIES):
                account.keep(NOTHING)
                entry = account.used
                if account.written == entry or account.shut:
                    return
                book = await self.read_or_begin(account.key)
                if self.incarnation in book.shut:
                    account.shut = True
                    return
                account.written = None
                if await self.books.swap(account.key, book.granting(self.incarnation, entry)):
                    account.written = entry
                    return

    # -- tenants and days ----------------------------------------------------------------------------------------------
    def tenancy(self, key: Key) -> Tenancy | None:
        """The tenancy of a key, made if it is not there; None: the tenant has no limit."""
        known = self.tenancies.get(key)
        limit = self._limits.get(key.tenant) or self._limits.get(EVERYBODY)
        if known is not None or limit is None:
            return known
        account = Account(key, Limit(limit.requests, limit.tokens, limit.usd), limit.policy)
        made = self.tenancies[key] = Tenancy(account)
        return made

    @property
    def limited(self) -> bool:
        """Whether any tenant has a limit."""
        return bool(self._limits)

    def forget(self, key: Key) -> None:
        """Drop a key whose day is over."""
        del self.tenancies[key]
        if self._day == key.day:
            self._today.pop(key.tenant, None)

    def _open(self, tenant: str) -> Tenancy | None:
        tenancy = self.tenancy(Key(tenant, self._day))
        if tenancy is not None:
            self._today[tenant] = tenancy
        return tenancy

    def _turn(self, now: datetime) -> None:
        """A new day begins, or a clock was set back; holds remember the day in which they were taken."""
        self._day, self._ordinal = day_of(now), now.toordinal()
        self._today = {}

    # -- refusals ------------------------------------------------------------------------------------------------------
    def _denied(self, tenancy: Tenancy, now: datetime) -> Denied:
        account, hunger = tenancy.account, tenancy.hunger
        key, moment = account.key, self.clock()
        hunger.denied(moment)
        if account.shut or hunger.doubtful:
            message = f"the quota of tenant {key.tenant} cannot be asked now"
            return Denied("wait", key.wait_key, now + self._about(SHORT_S), message, doubtful=True)
        message = f"tenant {key.tenant} has used its quota of {key.day} ({_written(account.limit)})"
        if account.policy == "wait":
            return Denied("wait", key.wait_key, end_of(now) + self.chance.random() * SPREAD, message)
        if hunger.alone or hunger.for_good(moment):
            return Denied("reject", key.wait_key, now, message)
        return Denied("wait", key.wait_key, now + self._about(SHORT_S), message)

    def _about(self, seconds: float) -> timedelta:
        return timedelta(seconds=self.chance.uniform(0.5, 1.0) * seconds)


def day_of(now: datetime) -> str:
    """The UTC day of an instant, "2026-12-01"."""
    return now.astimezone(UTC).date().isoformat()


def end_of(now: datetime) -> datetime:
    """The end of an instant's UTC day."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def _never_fits(limit: Limit, need: Amounts) -> str:
    """Why not even an unused limit has room for a hold; "" if it has."""
    if limit.tokens is not None and need.tokens > limit.tokens:
        return f"the job may use {need.tokens} tokens, more than the {limit.tokens}"
    if limit.usd is not None and need.usd > limit.usd:
        return f"the job may cost {need.usd.normalize():f} dollars, more than the {limit.usd.normalize():f}"
    return ""


def _written(limit: Limit) -> str:
    parts = []
    if limit.requests is not None:
        parts.append(f"{limit.requests} requests")
    if limit.tokens is not None:
        parts.append(f"{limit.tokens} tokens")
    if limit.usd is not None:
        parts.append(f"{limit.usd.normalize():f} dollars")
    return ", ".join(parts)
