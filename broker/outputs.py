"""How many tokens answers have, learned per (tenant, model, tag) from what providers report, as percentiles; and what bodies ask for; pure."""

from bisect import bisect_left
from collections.abc import Mapping

_GROWTH = 1.08
"""Lengths within 8 % of each other are one bucket."""
_EDGES = sorted({round(_GROWTH**power) for power in range(185)})  # up to 1.5 million
_ENOUGH = 20
"""From so many answers on their percentiles say something."""
_MEMORY = 2_000
"""Answers after which older ones weigh half."""
_REFRESH = 16
_MOST_KEYS = 50_000
ASSUMED_OUTPUT = 256
"""Output tokens of a job that does not say max_tokens, until it is settled."""
WITHOUT_OUTPUT = frozenset({"embeddings", "moderations"})
"""Operations whose answers are not paid by the token."""
MOST_CHOICES = 128
"""No provider gives more answers to one call (OpenAI's `n`)."""

Who = tuple[str, str, str]
"""Tenant, model and the tag's value; "" where a sum over all of them is meant."""


class _Lengths:
    """How often answers were how long."""

    __slots__ = ("counts", "known", "longest", "total")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.total = 0
        self.longest = 0
        self.known: dict[int, int] = {}  # percentiles that were asked for, until some more answers came

    def add(self, tokens: int) -> None:
        bucket = bisect_left(_EDGES, tokens)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.total += 1
        self.longest = max(self.longest, tokens)
        if self.total % _REFRESH == 0:
            self.known.clear()
        if self.total >= _MEMORY:
            self.counts = {bucket: half for bucket, count in self.counts.items() if (half := count // 2)}
            self.total = sum(self.counts.values())

    def percentile(self, percent: int) -> int:
        found = self.known.get(percent)
        if found is None:
            found = self.known[percent] = self._find(percent)
        return found

    def _find(self, percent: int) -> int:
        left = self.total * percent / 100
        for bucket in sorted(self.counts):
            left -= self.counts[bucket]
            if left <= 0:
                return min(_EDGES[bucket], self.longest) if bucket < len(_EDGES) else self.longest
        return self.longest


class Outputs:
    """What is known of the lengths of answers; who is not known well enough is estimated by his model's."""

    def __init__(self) -> None:
        self._lengths: dict[Who, _Lengths] = {}

    def learn(self, tenant: str, model: str, tag: str, tokens: int) -> None:
        """Remember an answer's length."""
        for who in ((tenant, model, tag), ("", model, "")):
            lengths = self._lengths.get(who)
            if lengths is None:
                if len(self._lengths) >= _MOST_KEYS:
                    del self._lengths[next(iter(self._lengths))]
                lengths = self._lengths[who] = _Lengths()
            lengths.add(tokens)

    def estimate(self, tenant: str, model: str, tag: str, percent: int) -> int | None:
        """So many percent of the answers were no longer than this, within 8 %; None: too little is known."""
        for who in ((tenant, model, tag), ("", model, "")):
            lengths = self._lengths.get(who)
            if lengths is not None and lengths.total >= _ENOUGH:
                return lengths.percentile(percent)
        return None


def output_limit(body: Mapping[str, object]) -> int | None:
    """The most output tokens that a body asks for, None where it does not say."""
    for name in ("max_completion_tokens", "max_output_tokens", "max_tokens"):
        limit = body.get(name)
        if isinstance(limit, int) and limit > 0:
            return limit
    return None


def choices(body: Mapping[str, object]) -> int:
    """How many answers a body asks for; each may be as long as `max_tokens` says."""
    answers = body.get("n")
    return min(max(answers, 1), MOST_CHOICES) if isinstance(answers, int) else 1


def likely_output(limit: int | None, answers: int, learned: int | None) -> int:
    """The output tokens of so many answers, each of at most `limit`, where one has had `learned` of late; None: nothing is known."""
    likely = ASSUMED_OUTPUT if learned is None else learned
    return answers * (likely if limit is None else min(limit, likely))


def estimated_output(operation: str, body: Mapping[str, object], learned: int | None = None) -> int:
    """The output tokens that a job will probably use."""
    return 0 if operation in WITHOUT_OUTPUT else likely_output(output_limit(body), choices(body), learned)
