"""What OpenTelemetry's SDK makes of telemetry: instruments that read sums, spans of jobs, and the exporters that both leave by."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
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
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from broker import settings
from broker.events import Events
from broker.trace_context import trace_headers, with_parent

_PROPAGATOR = TraceContextTextMapPropagator()

Read = Callable[[], Iterable[tuple[float, Mapping[str, str | float]]]]
"""Gives an instrument's values, each with its attributes."""


class Exporting:
    """What leaves a process for a collector or for its log; it has threads of its own.

    Args:
        options: Which exporter, and how often.
        incarnation: Goes with everything as `service.instance.id`.
    """

    def __init__(self, options: settings.Telemetry, incarnation: str) -> None:
        resource = Resource.create({"service.name": "aibroker", "service.instance.id": incarnation})
        spans, metrics = _exporters(options.exporter)
        self._tracers = TracerProvider(resource=resource)
        self._tracers.add_span_processor(BatchSpanProcessor(spans))
        reader = PeriodicExportingMetricReader(metrics, export_interval_millis=options.interval_s * 1000)
        self._meters = MeterProvider([reader], resource=resource)
        self._meter = self._meters.get_meter("aibroker")
        self._tracer = self._tracers.get_tracer("aibroker")

    def gauge(self, name: str, read: Read, unit: str, description: str) -> None:
        """Tell at each export what is read then."""
        self._meter.create_observable_gauge(name, [_observed(read)], unit, description)

    def counter(self, name: str, read: Read, unit: str, description: str) -> None:
        """Tell at each export the sums that are read then; they only grow."""
        self._meter.create_observable_counter(name, [_observed(read)], unit, description)

    def span(self, trace: str | None, key: str, priority: str) -> tuple[str, Callable[[str, str | None], None]]:
        """Begin the span of a job: its context for what follows from it, and what ends it with status and code."""
        parent = _PROPAGATOR.extract(_carrier(trace)) if trace else Context()
        attributes = {"aibroker.job": key, "aibroker.priority": priority, "messaging.system": "kafka"}
        span = self._tracer.start_span("aibroker.job", parent, kind=SpanKind.CONSUMER, attributes=attributes)
        context = span.get_span_context()

        def end(status: str, code: str | None) -> None:
            span.set_attribute("aibroker.status", status)
            if code is not None:
                span.set_attribute("error.type", code)
                span.set_status(Status(StatusCode.ERROR, code))
            span.end()

        return with_parent(trace, f"00-{context.trace_id:032x}-{context.span_id:016x}-01"), end

    def close(self) -> None:
        """Send what is left; a few seconds at most."""
        self._tracers.force_flush(3_000)
        self._tracers.shutdown()
        self._meters.shutdown(3_000)


def _observed(read: Read) -> Callable[[CallbackOptions], list[Observation]]:
    return lambda _: [Observation(value, attributes) for value, attributes in read()]


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
    return (_LoggedSpans(), _LoggedMetrics()) if name == "log" else (OTLPSpanExporter(), OTLPMetricExporter())
