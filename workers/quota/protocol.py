"""What the pipeline asks of quotas, and what quotas ask of a database.

A hold is taken from chunks that were granted to this worker before, so that it never waits for MongoDB as long as the chunks last. The truth about
spend is the ledger row, which names the incarnation (`incarnation`) and the books (`quota_keys`) of the hold.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import NamedTuple, Protocol

from broker.limit_versions import LimitVersion
from broker.limits import AtLimit, book_id
from broker.windows import END, Per, Window
from workers.quota.book import Amounts, Book

LEAST, MOST = timedelta(minutes=10), timedelta(days=1)
"""For how long a book is looked after once its window has ended: what its jobs hold is settled and what they wait for is known by then."""
_NO_TAGS: Mapping[str, str] = MappingProxyType({})


class Key(NamedTuple):
    """Whose limit it is ("tenant:acme"), for how long it counts, and the window, in UTC."""

    subject: str
    per: Per
    start: datetime
    end: datetime

    @property
    def id(self) -> str:
        """The name of its book, "tenant:acme/day/2026-12-01T00:00Z"."""
        return book_id(self.subject, self.per, Window(self.start, self.end))

    @property
    def wait_key(self) -> str:
        """What jobs wait on that found no room, in whichever window."""
        return f"quota:{self.subject}:{self.per}"

    @property
    def name(self) -> str:
        """The limit and its window for a person: "tenant acme per day until 2026-12-02T00:00Z"."""
        until = "" if self.end == END else f" until {self.end:%Y-%m-%dT%H:%MZ}"
        return f"{self.subject.replace(':', ' ', 1)} per {self.per}{until}"

    @property
    def on_ledger(self) -> bool:
        """Whether the ledger says what was spent; of what is held at one moment it says nothing."""
        return self.per != "concurrent"


class Need(NamedTuple):
    """What a job needs: one request of so many tokens and dollars, and what limits look at in it."""

    tenant: str
    model: str
    tokens: int
    usd: Decimal
    priority: str = ""
    batch_id: str | None = None
    tags: Mapping[str, str] = _NO_TAGS


@dataclass(frozen=True, slots=True)
class Denied:
    """There is no room for a job; by `policy` it waits, is rejected, is answered by `model`, or goes on in the lowest priority.

    Who waits does so until `until`, or until `wait_key` is released; `message` says to whom it matters what is used up.
    """

    policy: AtLimit
    wait_key: str
    until: datetime
    message: str
    doubtful: bool = False  # nobody could be asked, so it may be that there is room
    model: str | None = None
    hopeless: bool = False  # no window has room for it


class Hold(Protocol):
    """Budget that is reserved for a running job, in the windows in which it was taken; leaving its context releases it unless it was settled."""

    @property
    def keys(self) -> list[str]:
        """The books that count it: `quota_keys` of the ledger row."""

    def settle(self, tokens: int, usd: Decimal) -> None:
        """Replace the hold by what was used: the sum of the row's `input_tokens` and `output_tokens`, and its `cost_usd`.

        Only for a row that will be `billed`; once, and nothing after a release.
        """

    def release(self) -> None:
        """Give the hold back; nothing after it was settled or released."""

    def revoke(self) -> None:
        """Give back also what was settled: the finish was fenced, and the row is not billed."""

    def __enter__(self) -> "Hold":
        """The hold itself."""

    def __exit__(self, *_: object) -> None:
        """Release what was not settled."""


class Quota(Protocol):
    """What may be used."""

    def try_hold(self, need: Need, now: datetime) -> Hold | None:
        """Take a hold in all scopes from what is here, or none; None: ask `hold`."""

    async def hold(self, need: Need, now: datetime) -> Hold | Denied:
        """Take a hold, after other chunks were granted where that is needed. Never raises for a database that is away: then the job waits."""


def looked_at_until(key: Key) -> datetime:
    """Until when a book is looked after: for one more window, a day at most."""
    return key.end if key.end == END else key.end + min(max(key.end - key.start, LEAST), MOST)


SOON_S = 5.0
"""What is asked on a job's path ends by then."""


class Books(Protocol):
    """One document per limit's owner and window, the ledger's sums, and what is known of other incarnations.

    Every verb raises `StoreUnknownError` when its outcome is unknown.
    """

    async def read(self, keys: Sequence[Key]) -> dict[Key, Book]:
        """The books that there are, by a majority read."""

    async def swap(self, key: Key, book: Book) -> bool:
        """Write a book that was read with `book.rev` (0: there was none) as the next revision; False: another writer was faster.

        A write that is executed late changes nothing, because the revision that it expects has passed.
        """

    async def spent(self, key: Key, without: Collection[str], within_s: float = SOON_S) -> Amounts:
        """What the ledger's billed rows of this key say, for all incarnations but `without`; unknown where that takes longer."""

    async def closable(self, incarnations: Collection[str]) -> set[str]:
        """Those that are dead (their lease fenced or gone) with no document claimed in their name and no outbox of theirs left."""

    async def waiting(self, now: datetime) -> list[Key]:
        """The keys on which jobs may wait, of windows that are open or ended not long ago."""

    async def named(self, now: datetime) -> dict[str, list[Key]]:
        """The incarnations that have entries in books of such windows, with the keys."""

    async def untold(self) -> list[Key]:
        """The keys of books with an alert that Kafka may not have."""

    async def current(self, now: datetime) -> list[Key]:
        """The keys of all books of such windows."""

    async def limits(self, after: int) -> LimitVersion | None:
        """The last version of the limits that was set by command, if it is later than `after`; unknown where it cannot be read."""
