"""What one worker has used and has left of one limit in one window; nothing in here waits, and time comes in as an argument."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from math import inf

from broker.limits import Applied
from workers.quota.book import NOTHING, NOTHING_TOLD, Amounts, Ask, Book, Limit, Told, used_up
from workers.quota.hunger import Hunger
from workers.quota.protocol import Key

LASTS_S = 180.0
"""So long a chunk is to last, by the pace of the one before, or a quarter of its window where that is less."""
MOST_GROWTH = 8
"""A chunk has so many times the holds of the one before at most, because a burst is no pace; and half of them at least."""

_FIRST_UNITS = 16
_MOST_UNITS = 65_536
_A_MOMENT_S = 0.001
_ENDLESS = 1 << 200
_ENDLESS_USD = Decimal("Infinity")
_NO_USD = Decimal(0)


class Account:
    """The local side of a key: `used` is spent or held, of what is granted (endless where there is no limit).

    More is used than granted where a settled hold was larger than estimated, or passed without room. `lock` is held by who changes our entry in
    the book: one at a time, and all others that wait find what it got.
    """

    def __init__(self, key: Key, applied: Applied, hunger: Hunger, freed: Callable[[], None]) -> None:
        self.key = key
        self.id = key.id
        self.hunger = hunger  # who was refused, in this window or in others of the same limit
        self.lasting = key.per != "concurrent"  # what is settled stays used
        self.gone = False  # there is no such limit any more
        self._apply(applied)
        self.passed_over = 0  # holds that passed though all of the limit was used, by all together
        self._judged = 0  # how many were taken when that was counted last
        self._freed = freed
        self.lock = asyncio.Lock()
        self.used_requests = self.used_tokens = 0
        self.used_usd = _NO_USD
        self.spent_tokens = 0  # settled; of requests it is all but the open ones
        self.spent_usd = _NO_USD
        self.holds = 0  # open ones
        self.asking = 0  # how many wait for a chunk
        self.meant = 0  # holds under way that are to be counted here, and may wait for another account yet
        self.unsure = 0  # of the taken ones: another limit may keep their jobs from their calls yet
        self.taken = 0  # holds that were not given back, since this worker began
        self.denied = 0  # jobs that were told to wait
        self.written: Amounts | None = NOTHING  # our entry as the book surely has it; None: a write's answer was lost
        self.told = NOTHING_TOLD  # what the book surely has of `telling`
        self.alone: Book | None = None  # the book as our last write left it, where nobody else had an entry
        self.changed = False  # the limit was, and the book may not say all that it has to
        self.entered = False  # the book has an entry of ours, or could not be asked for one
        self.shut = False  # our entry was closed: we are dead to the others
        self._seen = (0, -inf)  # how many were taken when somebody looked last, and since when it was so
        self._extended = (0, -inf)  # how many were taken at the last chunk, and when that was
        self._lasts_s = min(LASTS_S, (key.end - key.start).total_seconds() / 4)
        self._units = _FIRST_UNITS  # how many holds the last chunk was to have
        self.grant(NOTHING)

    def _apply(self, applied: Applied) -> None:
        self.applied = applied
        self.said = said = applied.limit
        self.limit = Limit(said.requests, said.tokens, said.usd)
        self.passing = said.mode != "hard"  # everything passes, and is counted
        self.passes = self.passing or said.at_limit == "lower_priority"  # some do, before they have a chunk

    def heed(self, applied: Applied | None) -> None:
        """Be of another limit from here on, for the same owner and window; None: of none, so nothing more is held here."""
        self.gone = applied is None
        if applied is None or applied == self.applied:
            return
        self.changed = not self.at_rest
        self._apply(applied)
        self.grant(self.used)
        self.hunger.fed()

    # -- holds: on the path of every job -------------------------------------------------------------------------------
    def fits(self, tokens: int, usd: Decimal) -> bool:
        """Whether a hold finds all that it needs in what is free."""
        return (
            self.used_requests < self.granted_requests
            and self.used_tokens + tokens <= self.granted_tokens
            and self.used_usd + usd <= self.granted_usd
        )

    def take(self, tokens: int, usd: Decimal) -> None:
        """Take a hold, which fits or passes all the same."""
        self.holds += 1
        self.taken += 1
        self.used_requests += 1
        self.used_tokens += tokens
        self.used_usd += usd

    def untake(self, tokens: int, usd: Decimal) -> None:
        """Give a hold back: of a job that another limit kept from its call, or whose call used nothing."""
        self.taken -= 1
        self._end(tokens, usd)

    def _end(self, tokens: int, usd: Decimal) -> None:
        self.holds -= 1
        self._unuse(tokens, usd)
        if not self.lasting and self.hunger.waiting:
            self._freed()

    def settle(self, tokens: int, usd: Decimal, *, held_tokens: int, held_usd: Decimal) -> None:
        """Replace a hold by what was used."""
        if self.lasting:
            self.holds -= 1
            self.spent_tokens += tokens
            self.spent_usd += usd
            self.used_tokens += tokens - held_tokens
            self.used_usd += usd - held_usd
        else:
            self._end(held_tokens, held_usd)

    def unsettle(self, tokens: int, usd: Decimal) -> None:
        """What was settled was not used: somebody else's finish won."""
        if self.lasting:
            self.spent_tokens -= tokens
            self.spent_usd -= usd
            self._unuse(tokens, usd)

    def _unuse(self, tokens: int, usd: Decimal) -> None:
        self.used_requests -= 1
        self.used_tokens -= tokens
        self.used_usd -= usd

    def recall(self, entry: Amounts, told: Told) -> None:
        """Go on from what the book says of us: this window was over and forgotten, then the clock was set back."""
        self.used_requests += entry.requests
        self.used_tokens += entry.tokens
        self.used_usd += entry.usd
        self.spent_tokens += told.spent.tokens
        self.spent_usd += told.spent.usd
        self.passed_over += told.passed_over
        self.written, self.told, self.entered = entry, told, True

    # -- chunks --------------------------------------------------------------------------------------------------------
    @property
    def used(self) -> Amounts:
        """What is spent or held."""
        return Amounts(self.used_requests, self.used_tokens, self.used_usd)

    @property
    def telling(self) -> Told:
        """What there is to say of us: what is spent, without what is held."""
        return Told(Amounts(self.used_requests - self.holds, self.spent_tokens, self.spent_usd), self.passed_over)

    @property
    def free(self) -> Amounts:
        """What is granted and not used, nothing where there is no limit."""
        limit = self.limit
        return Amounts(
            max(self.granted_requests - self.used_requests, 0) if limit.requests is not None else 0,
            max(self.granted_tokens - self.used_tokens, 0) if limit.tokens is not None else 0,
            max(self.granted_usd - self.used_usd, _NO_USD) if limit.usd is not None else _NO_USD,
        )

    @property
    def has_free(self) -> bool:
        """Whether anything is granted and not used: asked of each account in each round, so without making amounts."""
        return (
            self.used_requests < self.granted_requests != _ENDLESS
            or self.used_tokens < self.granted_tokens != _ENDLESS
            or self.used_usd < self.granted_usd != _ENDLESS_USD
        )

    @property
    def entry(self) -> Amounts:
        """What our entry has to be: an overrun is a fact, whatever was granted."""
        used, free = self.used, self.free
        return Amounts(used.requests + free.requests, used.tokens + free.tokens, used.usd + free.usd)

    @property
    def settled(self) -> bool:
        """Whether the book says exactly what is used, and nothing is held, free or about to be."""
        return not self.holds and not self.meant and self.at_rest

    @property
    def at_rest(self) -> bool:
        """Whether nothing is free, and the book knows all that we have to say."""
        return not self.has_free and self.known

    @property
    def known(self) -> bool:
        """Whether the book surely says what we are granted, spend and let pass."""
        return self.written == self.entry and self.told == self.telling

    def judge(self, taken: Amounts) -> None:
        """Count the holds since the last time that passed a limit of which everything was used already; `taken` is what the book says of all."""
        sure = self.taken - self.unsure
        if self.passing and used_up(taken, self.limit):
            self.passed_over += max(sure - self._judged, 0)
        self._judged = max(sure, self._judged)

    @property
    def overrun(self) -> bool:
        """Whether more was used than granted: an estimate was too low."""
        return (
            self.used_requests > self.granted_requests
            or self.used_tokens > self.granted_tokens
            or self.used_usd > self.granted_usd
        )

    def quiet_since(self, now: float) -> float:
        """Since when no hold was taken, as far as those know who look from time to time."""
        if self._seen[0] != self.taken:
            self._seen = (self.taken, now)
        return self._seen[1]

    def grant(self, entry: Amounts) -> None:
        """Have so much granted from here on; as much as is used leaves nothing free."""
        limit = self.limit
        self.granted_requests = entry.requests if limit.requests is not None else _ENDLESS
        self.granted_tokens = entry.tokens if limit.tokens is not None else _ENDLESS
        self.granted_usd = entry.usd if limit.usd is not None else _ENDLESS_USD

    def _next_units(self, now: float) -> int:
        """How many holds the next chunk should have."""
        taken, at = self._extended
        wanted = (self.taken - taken) / max(now - at, _A_MOMENT_S) * self._lasts_s
        return int(min(max(wanted, self._units / 2, _FIRST_UNITS), self._units * MOST_GROWTH, _MOST_UNITS))

    def ask(self, need: Amounts, now: float) -> Ask:
        """What to ask the book for, so that this hold and those that wait for it and those that come soon find room."""
        entry, free, units = self.entry, self.free, max(self._next_units(now), self.asking)
        lack = Amounts(
            max(need.requests - free.requests, 0), max(need.tokens - free.tokens, 0), max(need.usd - free.usd, _NO_USD)
        )
        return Ask(entry, lack, Amounts(need.requests * units, need.tokens * units, need.usd * units))

    def extend(self, entry: Amounts, now: float) -> None:
        """Our entry in the book is `entry` from here on; holds may have been taken and settled since it was asked for."""
        self._units = self._next_units(now)
        self._extended = (self.taken, now)
        self.grant(entry)
