"""Holds: taken from the chunks that this worker was granted; only who finds one used up asks its book for another one."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import NamedTuple

from broker.limits import Applied, Rulebook, never_fits
from broker.windows import BEGINNING, END, window
from workers.quota.account import Account
from workers.quota.book import Amounts
from workers.quota.entries import Entries
from workers.quota.hold import ChunkHold, FreeHold
from workers.quota.hunger import Hunger
from workers.quota.protocol import Books, Denied, Hold, Key, Need

SHORT_S = 3.0
"""Who cannot be answered now asks again after about this long."""
ENDLESS_S = 3_600.0
"""Who waits for a limit without a window's end looks again after about this long, if nobody releases him earlier."""
CONCURRENT_S = 60.0
SPREAD = timedelta(minutes=10)
"""Jobs that wait for the next window become due spread over its first ten minutes, or over all of it where it is shorter."""
_MOST_WINDOWS = 1_000.0
_MOST_KNOWN = 50_000


class Applying(NamedTuple):
    """What counts a job, from `since` until before `until`."""

    accounts: tuple[Account, ...]
    keys: list[str]
    since: datetime
    until: datetime


class Holds:
    """The quotas of one worker; `Tender` gives back, closes and releases in its background.

    Args:
        rules: From the settings.
        books: Where the books are.
        incarnation: This worker's.
        lowest: The lowest priority: there jobs pass a limit that only lowers their priority.
        clock: Seconds of a monotonic clock.
        chance: For jitter.
        now: The time in UTC, for alerts.
    """

    def __init__(
        self,
        rules: Rulebook,
        books: Books,
        incarnation: str,
        *,
        lowest: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Random | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.entries = Entries(rules, books, incarnation, clock=clock, now=now)
        self.clock = clock
        self.chance = chance or Random()  # noqa: S311 jitter is no secret
        self.accounts: dict[Key, Account] = {}
        self.freed: Callable[[], None] = lambda: (
            None
        )  # called when what is limited at one moment has become free for who waits
        self._lowest = lowest
        self._hungers: dict[str, Hunger] = {}
        self._applying: dict[object, Applying] = {}

    @property
    def rules(self) -> Rulebook:
        """The limits now."""
        return self.entries.rules

    # -- the path of a job ---------------------------------------------------------------------------------------------
    def try_hold(self, need: Need, now: datetime) -> Hold | None:
        """Take a hold in all scopes from what is here, without waiting; None: ask `hold`. `now` is in UTC."""
        if self.rules.of_jobs and self._too_large(need):
            return None
        applying = self._applies(need, now)
        tokens, usd = need.tokens, need.usd
        for account in applying.accounts:
            if not (account.fits(tokens, usd) or (account.entered and self._passes(account, need))):
                return None
        for account in applying.accounts:
            account.take(tokens, usd)
        return ChunkHold(applying.accounts, applying.keys, tokens, usd) if applying.accounts else FreeHold()

    async def hold(self, need: Need, now: datetime) -> Hold | Denied:
        """Take a hold, after other chunks were granted where that is needed."""
        hold = self.try_hold(need, now)
        if hold is not None:
            return hold
        if too_large := self._too_large(need):
            return Denied("reject", "", now, f"{too_large} of one job; make it smaller")
        applying = self._applies(need, now)
        for account in applying.accounts:
            account.meant += 1
        try:
            denied = await self._take_all(applying.accounts, need, now)
        finally:
            for account in applying.accounts:
                account.meant -= 1
        return denied or ChunkHold(applying.accounts, applying.keys, need.tokens, need.usd)

    async def _take_all(self, accounts: tuple[Account, ...], need: Need, now: datetime) -> Denied | None:
        """Take a hold's parts, all or none."""
        taken: list[Account] = []
        whole = False
        try:
            for account in accounts:
                denied = await self._take(account, need, now)
                if denied is not None:
                    return denied
                account.unsure += 1
                taken.append(account)
            whole = True
        finally:
            for account in taken:
                account.unsure -= 1
                if not whole:
                    account.untake(need.tokens, need.usd)
        return None

    async def _take(self, account: Account, need: Need, now: datetime) -> Denied | None:
        """Take one account's part of a hold, or say why not."""
        amounts = Amounts(1, need.tokens, need.usd)
        if not account.entered and self._passes(account, need):
            await self.entries.begin(account)
        if account.fits(need.tokens, need.usd) or self._passes(account, need):
            account.take(need.tokens, need.usd)
            return None
        if too_large := never_fits(account.said, need.tokens, need.usd):
            return self._denied(account, now, too_large)
        if account.shut or account.hunger.refuses(amounts, self.clock()):
            return self._denied(account, now)
        account.asking += 1
        try:
            async with account.lock:
                while not account.fits(need.tokens, need.usd):
                    refused = account.shut or account.hunger.refuses(amounts, self.clock())
                    if refused or not await self.entries.extend(account, amounts):
                        return self._denied(account, now)
                account.take(need.tokens, need.usd)
        finally:
            account.asking -= 1
        return None

    def _passes(self, account: Account, need: Need) -> bool:
        """Whether the limit lets everything pass, or the job is already where the limit would send it."""
        return account.passing or (account.passes and need.priority == self._lowest)

    def _too_large(self, need: Need) -> str:
        """Which limit of a single job this one is above; "": none."""
        of_jobs = (limit for limit in self.rules.of_jobs if limit.counts(need.tenant))
        return next(filter(None, (never_fits(limit, need.tokens, need.usd) for limit in of_jobs)), "")

    # -- limits and windows --------------------------------------------------------------------------------------------
    def _applies(self, need: Need, now: datetime) -> Applying:
        """What counts this job now: windows begin and end, and a clock may be set back; holds remember where they were taken."""
        same = self.rules.distinct(need)
        found = self._applying.get(same)
        if found is None:
            accounts = tuple(self.account(applied, now) for applied in self.rules.applying(need))
        elif found.since <= now < found.until:
            return found
        else:
            accounts = tuple(self._in_window(account, now) for account in found.accounts)
        keys = [account.id for account in accounts if account.key.on_ledger]
        since = max((account.key.start for account in accounts), default=BEGINNING)
        until = min((account.key.end for account in accounts), default=END)
        if len(self._applying) >= _MOST_KNOWN:
            self._applying.clear()
        found = self._applying[same] = Applying(accounts, keys, since, until)
        return found

    def _in_window(self, account: Account, now: datetime) -> Account:
        """The same account, or that of the same limit in the window of now."""
        known = account.key.start <= now < account.key.end and self.accounts.get(account.key) is account
        return account if known else self.account(account.applied, now)

    def account(self, applied: Applied, now: datetime) -> Account:
        """The account of a limit in the window of now, made if it is not there."""
        start, end = window(applied.limit.per, applied.zone, now)
        key = Key(applied.subject, applied.limit.per, start, end)
        known = self.accounts.get(key)
        if known is None:
            hunger = self._hungers.setdefault(key.wait_key, Hunger())
            hunger.fed()  # nobody was refused in this window yet
            known = self.accounts[key] = Account(key, applied, hunger, self._free)
        return known

    def adopt(self, rules: Rulebook) -> None:
        """Heed other limits from here on; what is held stays where it was taken."""
        self.entries.rules = rules
        self._applying.clear()
        for key, account in self.accounts.items():
            account.heed(rules.of(key.subject, key.per))

    def _free(self) -> None:
        self.freed()

    def of(self, key: Key, now: datetime) -> Account | None:
        """Today's account of the limit whose book this is; None: there is no such limit any more."""
        applied = self.rules.of(key.subject, key.per)
        return None if applied is None else self.account(applied, now)

    @property
    def limited(self) -> bool:
        """Whether there is any limit that has a book."""
        return bool(self.rules.limits)

    def forget(self, keys: list[Key]) -> None:
        """Drop keys whose windows are over."""
        for key in keys:
            del self.accounts[key]
        if keys:
            for same, applying in self._applying.items():  # it may name one of them, and a clock may be set back
                self._applying[same] = applying._replace(until=BEGINNING)
            current = {key.wait_key for key in self.accounts}
            self._hungers = {
                wait_key: hunger for wait_key, hunger in self._hungers.items() if hunger.waiting or wait_key in current
            }

    # -- refusals ------------------------------------------------------------------------------------------------------
    def _denied(self, account: Account, now: datetime, too_large: str = "") -> Denied:
        said, key, hunger, moment = account.said, account.key, account.hunger, self.clock()
        owner, model = key.name, said.cheaper_model
        if too_large:
            message = f"{too_large} of {owner}; make it smaller"
            policy = "reject" if said.at_limit == "wait" else said.at_limit
            return Denied(policy, key.wait_key, now, message, model=model, hopeless=True)
        hunger.denied(moment)
        account.denied += 1
        if account.shut or hunger.doubtful:
            message = f"the limit of {owner} cannot be asked now"
            return Denied("wait", key.wait_key, now + self._about(SHORT_S), message, doubtful=True)
        message = f"{owner} has used its limit ({said.amounts})"
        if said.at_limit != "reject":
            return Denied(said.at_limit, key.wait_key, self._until(account, now), message, model=model)
        if hunger.alone or hunger.for_good(moment):
            return Denied("reject", key.wait_key, now, message)
        return Denied("wait", key.wait_key, now + self._about(SHORT_S), message)

    def _until(self, account: Account, now: datetime) -> datetime:
        """When to look again if nobody releases the job earlier: in the next window, or later where those who wait are more than one can take."""
        if account.key.end == END:
            return now + self._about(ENDLESS_S if account.lasting else CONCURRENT_S)
        length = account.key.end - account.key.start
        windows = min(account.denied / max(account.taken, 1), _MOST_WINDOWS)
        spread = min(SPREAD, length) + max(windows - 1, 0.0) * length
        return account.key.end + self.chance.random() * spread

    def _about(self, seconds: float) -> timedelta:
        return timedelta(seconds=self.chance.uniform(0.5, 1.0) * seconds)
