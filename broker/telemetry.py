"""Metrics and spans through OpenTelemetry; off until an exporter is set.

Sums are kept here in plain dictionaries and handed over at each export, because six SDK calls a job would cost more than everything else about it.
A span is made only for a job whose `traceparent` says sampled, or for the share of the others that the settings ask for.

Instruments: `aibroker.backlog`, `aibroker.oldest_wait`, `aibroker.loop_lag`, `aibroker.outcomes`, `aibroker.tokens`, `aibroker.cost`,
`aibroker.estimate_error` (tokens that answers had above what was held for them, and below it),
`aibroker.calls` (by the bucket of their duration: the attribute `le` is its upper bound in seconds, and each call counts in one bucket only).
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from broker import settings
from broker.events import Events
from broker.trace_context import trace_headers, with_parent

_PROPAGATOR = TraceContextTextMapPropagator()
_SAMPLED_AT = 53  # the flags' last hex digit in "00-<32>-<16>-<2>"
_BOUNDS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0, float("inf"))


class JobSpan:
    """The span of one job; without a span of its own it passes the producer's context on."""

    __slots__ = ("_span", "trace")

    def __init__(self, span: Span | None, trace: str | None) -> None:
        self._span = span
        self.trace = trace

    def end(self, status: str, code: str | None) -> None:
        """The job has its outcome, or was put back to wait."""
        if self._span is None:
            return
        self._span.set_attribute("aibroker.status", status)
        if code is not None:
            self._span.set_attribute("error.type", code)
            self._span.set_status(Status(StatusCode.ERROR, code))
        self._span.end()


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
        self._meters: MeterProvider | None = None
        self._tracers: TracerProvider | None = None
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
        tracers = self._tracers
        if tracers is None or not self._sampled(trace):
            return JobSpan(None, trace)
        parent = _PROPAGATOR.extract(_carrier(trace)) if trace else Context()
        tracer = tracers.get_tracer("aibroker")
        attributes = {"aibroker.job": key, "aibroker.priority": priority, "messaging.system": "kafka"}
        span = tracer.start_span("aibroker.job", parent, kind=SpanKind.CONSUMER, attributes=attributes)
        context = span.get_span_context()
        return JobSpan(span, with_parent(trace, f"00-{context.trace_id:032x}-{context.span_id:016x}-01"))

    def close(self) -> None:
        """Send what is left; a few seconds at most."""
        if self._tracers is not None:
            self._tracers.force_flush(3_000)
            self._tracers.shutdown()
        if self._meters is not None:
            self._meters.shutdown(3_000)

    def _sampled(self, trace: str | None) -> bool:
        if trace is not None and len(trace) > _SAMPLED_AT + 1:
            return trace[_SAMPLED_AT + 1] in "13579bdf"
        return self._share > 0 and self._chance.random() < self._share

    def _start(self, options: settings.Telemetry, incarnation: str) -> None:
        resource = Resource.create({"service.name": "aibroker", "service.instance.id": incarnation})
        spans, metrics = _exporters(options.exporter)
        self._tracers = TracerProvider(resource=resource)
        self._tracers.add_span_processor(BatchSpanProcessor(spans))
        reader = PeriodicExportingMetricReader(metrics, export_interval_millis=options.interval_s * 1000)
        self._meters = MeterProvider([reader], resource=resource)
        meter = self._meters.get_meter("aibroker")
        meter.create_observable_gauge(
            "aibroker.backlog",
            [self._backlog],
            "{job}",
            "Lag of this worker's partitions, documents that wait, jobs that are ready here",
        )
        meter.create_observable_gauge("aibroker.oldest_wait", [self._oldest], "s", "How long the oldest job has waited")
        meter.create_observable_gauge(
            "aibroker.loop_lag", [self._lag], "s", "The longest that the event loop kept a task waiting of late"
        )
        meter.create_observable_counter("aibroker.outcomes", [self._seen_outcomes], "{job}", "Jobs by their outcome")
        meter.create_observable_counter("aibroker.tokens", [self._seen_tokens], "{token}", "Tokens by direction")
        meter.create_observable_counter(
            "aibroker.estimate_error", [self._seen_errors], "{token}", "Tokens of answers above or below what was held"
        )
        meter.create_observable_counter("aibroker.cost", [self._seen_cost], "{USD}", "Dollars by tenant, inexact")
        meter.create_observable_counter(
            "aibroker.calls", [self._seen_calls], "{call}", "Calls that took up to `le` seconds"
        )

    def _backlog(self, _: CallbackOptions) -> Iterator[Observation]:
        for priority, (backlog, _oldest) in self._gauges().items():
            yield Observation(backlog, {"priority": priority})

    def _oldest(self, _: CallbackOptions) -> Iterator[Observation]:
        for priority, (_backlog, oldest) in self._gauges().items():
            yield Observation(oldest, {"priority": priority})

    def _lag(self, _: CallbackOptions) -> Iterator[Observation]:
        yield Observation(self._loop_lag())

    def _seen_outcomes(self, _: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(n, {"priority": priority, "status": status}) for (priority, status), n in self._outcomes.items()
        ]

    def _seen_calls(self, _: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(
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

    def _seen_tokens(self, _: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(n, {"gen_ai.provider.name": provider, "gen_ai.request.model": model, "gen_ai.token.type": kind})
            for (provider, model, kind), n in self._tokens.items()
        ]

    def _seen_errors(self, _: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(n, {"gen_ai.provider.name": provider, "gen_ai.request.model": model, "direction": direction})
            for (provider, model, direction), n in self._errors.items()
        ]

    def _seen_cost(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(usd, {"tenant": tenant}) for tenant, usd in self._cost.items()]


def _carrier(trace: str) -> dict[str, str]:
    return {name: content.decode() for name, content in trace_headers(trace)}


class _LoggedSpans(SpanExporter):
    """Spans as events in the process's own log."""

    def __init__(self) -> None:
        self._events = Events("telemetry")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            context, parent = span.get_span_context(), span.parent
            ids = {"trace": f"{context.trace_id:032x}", "span": f"{context.span_id:016x}"} if context else {}
            milliseconds = ((span.end_time or 0) - (span.start_time or 0)) / 1e6
            attributes = dict(span.attributes or {})
            self._events.info(
                "span", parent=f"{parent.span_id:016x}" if parent else None, ms=milliseconds, **ids, **attributes
            )
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


class _LoggedMetrics(MetricExporter):
    """Metrics as events in the process's own log."""

    def __init__(self) -> None:
        super().__init__()
        self._events = Events("telemetry")

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:  # noqa: ANN401, ARG002 theirs
        for resource in metrics_data.resource_metrics:
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                for point in metric.data.data_points:
                    names = [name for name in ("value", "count", "sum", "min", "max") if hasattr(point, name)]
                    figures = {name: getattr(point, name) for name in names}
                    attributes = dict(point.attributes or {})
                    self._events.info("metric", metric=metric.name, attributes=attributes, **figures)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002 theirs
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:  # noqa: ANN401 theirs
        pass


def _exporters(name: str) -> tuple[SpanExporter, MetricExporter]:
    if name == "log":
        return _LoggedSpans(), _LoggedMetrics()
    # Imported here because protobuf and an HTTP client are of no use to a process that sends nothing.
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415 see above
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 see above

    return OTLPSpanExporter(), OTLPMetricExporter()
