"""The book of one limit in one window: what closed incarnations have spent, what is granted to the others, and which alerts are due; pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from broker.thresholds import Threshold


class Amounts(NamedTuple):
    """Requests, tokens and US dollars."""

    requests: int
    tokens: int
    usd: Decimal


class Limit(NamedTuple):
    """The most of each; None: no limit."""

    requests: int | None
    tokens: int | None
    usd: Decimal | None


_NO_USD = Decimal(0)
NOTHING = Amounts(0, 0, _NO_USD)


def added(amounts: Iterable[Amounts]) -> Amounts:
    """The sum of several amounts."""
    requests, tokens, usd = 0, 0, Decimal(0)
    for amount in amounts:
        requests, tokens, usd = requests + amount.requests, tokens + amount.tokens, usd + amount.usd
    return Amounts(requests, tokens, usd)


class Told(NamedTuple):
    """What an incarnation says of itself with its entry: what it has spent, and how many of its holds a used up limit let pass."""

    spent: Amounts = NOTHING
    passed_over: int = 0


NOTHING_TOLD = Told()


CLOSED = "closed"
MOST_SHUT = 500
"""So many closed incarnations are remembered: a book of a lifetime would grow for ever. One of before, stopped for as long as that, would be fenced
and closed again."""


class Alert(NamedTuple):
    """A threshold that is reached, as it was noticed; `told` once Kafka has its event."""

    threshold: Threshold
    at: datetime
    unit: str  # of which most is spent, in proportion
    spent: Amounts
    limit: Limit
    mode: str
    version: int
    told: bool = False


@dataclass(frozen=True, slots=True)
class Book:
    """One document: `closed` is what incarnations without an entry have spent, `grants` what the others were granted and did not give back.

    `shut` are incarnations whose entry was closed and who never get another one, the last of them at the end; `waiting`: jobs may wait for room;
    `told` is what each incarnation said of itself, and under `CLOSED` what all closed ones let pass; `alerts` are those of this window, by threshold.
    """

    rev: int = 0
    closed: Amounts = NOTHING
    grants: Mapping[str, Amounts] = field(default_factory=dict)
    shut: tuple[str, ...] = ()
    waiting: bool = False
    told: Mapping[str, Told] = field(default_factory=dict)
    alerts: Mapping[str, Alert] = field(default_factory=dict)

    def taken(self, without: str | None = None) -> Amounts:
        """Everything that is spent or granted, except what is granted to `without`."""
        return added((self.closed, *(amounts for owner, amounts in self.grants.items() if owner != without)))

    @property
    def spent(self) -> Amounts:
        """What is spent, as far as everybody has said."""
        return added((self.closed, *(told.spent for told in self.told.values())))

    @property
    def untold(self) -> list[Alert]:
        """The alerts that Kafka may not have."""
        return [alert for alert in self.alerts.values() if not alert.told]

    def granting(self, owner: str, entry: Amounts, told: Told = NOTHING_TOLD) -> "Book":
        """The book in which `owner` has this entry; an incarnation that was closed never gets one."""
        if owner in self.shut:
            return self
        return replace(self, grants={**self.grants, owner: entry}, told={**self.told, owner: told})

    def alerting(self, alerts: Iterable[Alert]) -> "Book":
        """The book with these alerts in place of those of the same thresholds."""
        return replace(self, alerts={**self.alerts, **{str(alert.threshold): alert for alert in alerts}})

    def noting(self, *, waiting: bool) -> "Book":
        """The book with or without the note that jobs wait."""
        return replace(self, waiting=waiting)

    def closing(self, owners: Collection[str], closed: Amounts) -> "Book":
        """The book without the entries of `owners`; `closed` is what the ledger says for all without an entry, these included."""
        grants = {owner: entry for owner, entry in self.grants.items() if owner not in owners}
        gone = {owner for owner in self.told if owner in owners}
        told = {owner: said for owner, said in self.told.items() if owner not in gone}
        if passed_over := sum(self.told[owner].passed_over for owner in gone):
            told[CLOSED] = Told(passed_over=passed_over + self.told.get(CLOSED, NOTHING_TOLD).passed_over)
        shut = (*self.shut, *sorted(set(owners).difference(self.shut)))[-MOST_SHUT:]
        return replace(self, closed=closed, grants=grants, shut=shut, told=told)


class Ask(NamedTuple):
    """What a worker asks of a book: `have` is its entry as it knows it, `lack` what it needs on top, `wanted` what would last a while."""

    have: Amounts
    lack: Amounts
    wanted: Amounts


def extended(book: Book, owner: str, ask: Ask, limit: Limit) -> Amounts | None:
    """Return the entry with which `owner` has what it lacks, and up to half of the room if it wants that much; None: there is no room.

    Half, so that the last of a limit is not kept by one worker while others have jobs for it.
    """
    taken = book.taken(without=owner)
    requests = _extra(limit.requests, taken.requests + ask.have.requests, ask.lack.requests, ask.wanted.requests)
    tokens = _extra(limit.tokens, taken.tokens + ask.have.tokens, ask.lack.tokens, ask.wanted.tokens)
    usd = _extra_usd(limit.usd, taken.usd + ask.have.usd, ask.lack.usd, ask.wanted.usd)
    if requests is None or tokens is None or usd is None:
        return None
    return added((ask.have, Amounts(requests, tokens, usd)))


def _extra(limit: int | None, taken: int, lack: int, wanted: int) -> int | None:
    if limit is None:
        return 0
    if lack > max(limit - taken, 0):
        return None
    return max(lack, min(wanted, (limit - taken) // 2), 0)


def _extra_usd(limit: Decimal | None, taken: Decimal, lack: Decimal, wanted: Decimal) -> Decimal | None:
    if limit is None:
        return _NO_USD
    if lack > max(limit - taken, _NO_USD):
        return None
    return max(lack, min(wanted, (limit - taken) / 2), _NO_USD)


def used_up(taken: Amounts, limit: Limit) -> bool:
    """Whether nothing is left of some unit."""
    pairs = ((limit.requests, taken.requests), (limit.tokens, taken.tokens))
    return any(most is not None and amount >= most for most, amount in pairs) or (
        limit.usd is not None and taken.usd >= limit.usd
    )


def fitting(book: Book, limit: Limit, need: Amounts) -> int:
    """How many holds of `need` fit into what is not granted to anybody."""
    taken = book.taken()
    fits: list[int] = []
    if limit.requests is not None and need.requests:
        fits.append((limit.requests - taken.requests) // need.requests)
    if limit.tokens is not None and need.tokens:
        fits.append((limit.tokens - taken.tokens) // need.tokens)
    if limit.usd is not None and need.usd:
        fits.append(int((limit.usd - taken.usd) // need.usd))
    return max(min(fits), 0) if fits else 1
