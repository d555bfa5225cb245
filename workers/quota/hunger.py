"""Who was refused: for a moment nobody else asks the book in vain, and for as long as jobs wait somebody looks for room."""

from collections.abc import Callable
from decimal import Decimal

from workers.quota.book import Amounts

ASK_AGAIN_S = 0.5
"""So long a refusal holds for every hold that is not smaller."""
CALL_IN_S = 5.0
"""So long after the first refusal everybody has given back what is not used: what is refused then is refused for good."""
MEMORY_S = 15.0
"""So long after a refusal its job is surely in the database."""
_ONE = Amounts(1, 0, Decimal(0))


class Hunger:
    """The refusals of one key; times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self.waiting = False  # jobs wait for room, as far as we know
        self.doubtful = False  # the last refusal was for want of an answer
        self.alone = False  # nobody else had an entry then: nothing can be given back
        self.smallest = self.mean = _ONE
        self._until = self._last = -MEMORY_S
        self._since: float | None = None
        self._need = _ONE

    def refuses(self, need: Amounts, now: float) -> bool:
        """Whether a hold would only be refused again."""
        return now < self._until and need.tokens >= self._need.tokens and need.usd >= self._need.usd

    def refused(self, need: Amounts, now: float, *, doubtful: bool = False, alone: bool = False) -> None:
        """The book had no room for this hold, or could not be asked."""
        if self._since is None:
            self._since = now
        if self.waiting:
            self.smallest = _each(min, self.smallest, need)
            self.mean = Amounts(1, (3 * self.mean.tokens + need.tokens) // 4, (3 * self.mean.usd + need.usd) / 4)
        else:
            self.smallest = self.mean = need
        self.waiting, self.doubtful, self.alone = True, doubtful, alone
        self._need, self._until = need, now + ASK_AGAIN_S

    def denied(self, now: float) -> None:
        """A job was told to wait."""
        self._last = now

    def fed(self) -> None:
        """There was room."""
        self._since, self._until = None, 0.0

    def for_good(self, now: float) -> bool:
        """Whether everybody had the time to give back what is not used."""
        return self._since is not None and now - self._since >= CALL_IN_S

    def fresh(self, now: float) -> bool:
        """Whether a job that was told to wait may not be in the database yet."""
        return now - self._last < MEMORY_S


def _each(choose: Callable[..., int], one: Amounts, other: Amounts) -> Amounts:
    return Amounts(1, choose(one.tokens, other.tokens), min(one.usd, other.usd))
