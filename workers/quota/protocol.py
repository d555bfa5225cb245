"""What the pipeline asks of quotas, and what quotas ask of a database.

A hold is taken from a chunk that was granted to this worker before, so that it never waits for MongoDB as long as the chunk lasts. The truth about
spend is the ledger row, which names the incarnation (`incarnation`) and the day (`quota_day`) of the hold.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal, NamedTuple, Protocol

from workers.quota.book import Amounts, Book


class Key(NamedTuple):
    """A tenant and a UTC day ("2026-12-01")."""

    tenant: str
    day: str

    @property
    def wait_key(self) -> str:
        """What jobs wait on that found no room."""
        return f"quota:{self.tenant}:{self.day}"


@dataclass(frozen=True, slots=True)
class Denied:
    """There is no room for a job: it waits until `until`, or until `wait_key` is released; or it is rejected with `message`."""

    policy: Literal["wait", "reject"]
    wait_key: str
    until: datetime
    message: str
    doubtful: bool = False  # nobody could be asked, so it may be that there is room


class Hold(Protocol):
    """Budget that is reserved for a running job, in the window in which it was taken; leaving its context releases it unless it was settled."""

    @property
    def day(self) -> str:
        """The window, "2026-12-01": `quota_day` of the ledger row."""

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
    """What a tenant may use."""

    def try_hold(self, tenant: str, tokens: int, usd: Decimal, now: datetime) -> Hold | None:
        """Take a hold of one request, so many tokens and dollars from what is here; None: ask `hold`."""

    async def hold(self, tenant: str, tokens: int, usd: Decimal, now: datetime) -> Hold | Denied:
        """Take a hold, after another chunk was granted where that is needed. Never raises for a database that is away: then the job waits."""


class Books(Protocol):
    """One document per tenant and day, the ledger's sums, and what is known of other incarnations.

    Every verb raises `StoreUnknownError` when its outcome is unknown.
    """

    async def read(self, keys: Sequence[Key]) -> dict[Key, Book]:
        """The books that there are, by a majority read."""

    async def swap(self, key: Key, book: Book) -> bool:
        """Write a book that was read with `book.rev` (0: there was none) as the next revision; False: another writer was faster.

        A write that is executed late changes nothing, because the revision that it expects has passed.
        """

    async def spent(self, key: Key, without: Collection[str]) -> Amounts:
        """What the ledger's billed rows of this key say, for all incarnations but `without`."""

    async def closable(self, incarnations: Collection[str]) -> set[str]:
        """Those that are dead (their lease fenced or gone) with no document claimed in their name and no outbox of theirs left."""

    async def waiting(self, days: Sequence[str]) -> list[Key]:
        """The keys of these days on which jobs may wait."""

    async def named(self, days: Sequence[str]) -> dict[str, list[Key]]:
        """The incarnations that have entries in books of these days, with the keys."""
