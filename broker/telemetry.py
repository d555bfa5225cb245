"""Metrics and spans through OpenTelemetry; off until an exporter is set.

Sums are kept here in plain dictionaries and handed over at each export, because six SDK calls a job would cost more than everything else about it.
A span is made only for a job whose `traceparent` says sampled, or for the share of the others that the settings ask for. The SDK is imported where
an exporter is set: what any other worker spends to start would be a tenth more.

Instruments: `aibroker.backlog`, `aibroker.oldest_wait`, `aibroker.loop_lag`, `aibroker.outcomes`, `aibroker.tokens`, `aibroker.cost`,
`aibroker.estimate_error` (tokens that answers had above what was held for them, and below it),
`aibroker.calls` (by the bucket of their duration: the attribute `le` is its upper bound in seconds, and each call counts in one bucket only).
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from random import Random
from typing import TYPE_CHECKING

from broker import settings

if TYPE_CHECKING:
    from broker.exporting import Exporting

_SAMPLED_AT = 53  # the flags' last hex digit in "00-<32>-<16>-<2>"
_BOUNDS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0, float("inf"))


Reading = tuple[float, Mapping[str, str | float]]
"""The value of an instrument, and the attributes that it goes with."""


class JobSpan:
    """The span of one job; without a span of its own it passes the producer's context on."""

    __slots__ = ("_end", "trace")

    def __init__(self, trace: str | None, end: Callable[[str, str | None], None] | None = None) -> None:
        self.trace = trace
        self._end = end

    def end(self, status: str, code: str | None) -> None:
        """The job has its outcome, or was put back to wait."""
        if self._end is not None:
            self._end(status, code)


class Telemetry:
    """What a process counts.

    Args:
        options: Which exporter, how often, how many spans.
        incarnation: Goes with everything as `service.instance.id`.
        chance: Decides which jobs without a context of their own are sampled.
    """

    def __init__(self, options: settings.Telemetry, incarnation: str, chance: Random) -> None:
        self._share = options.sampled_share
        self._chance = chance
        self._outcomes: dict[tuple[str, str], int] = defaultdict(int)
        self._calls: dict[tuple[str, str, str, int], int] = defaultdict(int)
        self._tokens: dict[tuple[str, str, str], int] = defaultdict(int)
        self._errors: dict[tuple[str, str, str], int] = defaultdict(int)
        self._cost: dict[str, float] = defaultdict(float)
        self._gauges: Callable[[], Mapping[str, tuple[int, float]]] = dict
        self._loop_lag: Callable[[], float] = float
        self.on = options.exporter != "none"
        self._exporting: Exporting | None = None
        if self.on:
            self._start(options, incarnation)

    def outcome(self, priority: str, status: str) -> None:
        """A job left the pipeline."""
        self._outcomes[priority, status] += 1

    def call(self, provider: str, model: str, outcome: str, seconds: float) -> None:
        """A call ended."""
        self._calls[provider, model, outcome, bisect_left(_BOUNDS_S, seconds)] += 1

    def used(
        self, provider: str, model: str, tenant: str, *, input_tokens: int, output_tokens: int, usd: float
    ) -> None:
        """Tokens were used and money was spent (for dashboards; the ledger is exact)."""
        self._tokens[provider, model, "input"] += input_tokens
        self._tokens[provider, model, "output"] += output_tokens
        self._cost[tenant] += usd

    def estimated(self, provider: str, model: str, error: int) -> None:
        """An answer had so many tokens more than were held for it; less where it is below zero."""
        self._errors[provider, model, "above" if error > 0 else "below"] += abs(error)

    def watch(self, gauges: Callable[[], Mapping[str, tuple[int, float]]], loop_lag: Callable[[], float]) -> None:
        """Set where backlog and oldest wait (seconds) of each priority come from, and the event loop's lag (seconds)."""
        self._gauges = gauges
        self._loop_lag = loop_lag

    def span(self, trace: str | None, key: str, priority: str) -> JobSpan:
        """The span of a job that begins to run."""
        if self._exporting is None or not self._sampled(trace):
            return JobSpan(trace)
        return JobSpan(*self._exporting.span(trace, key, priority))

    def close(self) -> None:
        """Send what is left; a few seconds at most."""
        if self._exporting is not None:
            self._exporting.close()

    def _sampled(self, trace: str | None) -> bool:
        if trace is not None and len(trace) > _SAMPLED_AT + 1:
            return trace[_SAMPLED_AT + 1] in "13579bdf"
        return self._share > 0 and self._chance.random() < self._share

    def _start(self, options: settings.Telemetry, incarnation: str) -> None:
        from broker.exporting import Exporting  # noqa: PLC0415 the reason is above

        self._exporting = out = Exporting(options, incarnation)
        out.gauge(
            "aibroker.backlog",
            self._backlog,
            "{job}",
            "Lag of this worker's partitions, documents that wait, jobs that are ready here",
        )
        out.gauge("aibroker.oldest_wait", self._oldest, "s", "How long the oldest job has waited")
        out.gauge("aibroker.loop_lag", self._lag, "s", "The longest that the event loop kept a task waiting of late")
        out.counter("aibroker.outcomes", self._seen_outcomes, "{job}", "Jobs by their outcome")
        out.counter("aibroker.tokens", self._seen_tokens, "{token}", "Tokens by direction")
        out.counter(
            "aibroker.estimate_error", self._seen_errors, "{token}", "Tokens of answers above or below what was held"
        )
        out.counter("aibroker.cost", self._seen_cost, "{USD}", "Dollars by tenant, inexact")
        out.counter("aibroker.calls", self._seen_calls, "{call}", "Calls that took up to `le` seconds")

    def _backlog(self) -> Iterator[Reading]:
        for priority, (backlog, _oldest) in self._gauges().items():
            yield (backlog, {"priority": priority})

    def _oldest(self) -> Iterator[Reading]:
        for priority, (_backlog, oldest) in self._gauges().items():
            yield (oldest, {"priority": priority})

    def _lag(self) -> Iterator[Reading]:
        yield (self._loop_lag(), {})

    def _seen_outcomes(self) -> Iterable[Reading]:
        return [(n, {"priority": priority, "status": status}) for (priority, status), n in self._outcomes.items()]

    def _seen_calls(self) -> Iterable[Reading]:
        return [
            (
                n,
                {
                    "gen_ai.provider.name": provider,
                    "gen_ai.request.model": model,
                    "aibroker.outcome": outcome,
                    "le": _BOUNDS_S[bucket],
                },
            )
            for (provider, model, outcome, bucket), n in self._calls.items()
        ]

    def _seen_tokens(self) -> Iterable[Reading]:
        return [
            (n, {"gen_ai.provider.name": provider, "gen_ai.request.model": model, "gen_ai.token.type": kind})
            for (provider, model, kind), n in self._tokens.items()
        ]

    def _seen_errors(self) -> Iterable[Reading]:
        return [
            (n, {"gen_ai.provider.name": provider, "gen_ai.request.model": model, "direction": direction})
            for (provider, model, direction), n in self._errors.items()
        ]

    def _seen_cost(self) -> Iterable[Reading]:
        return [(usd, {"tenant": tenant}) for tenant, usd in self._cost.items()]
