"""What a process counts and which jobs have a span; nothing at all where no exporter is set."""

import io
import json
import logging
import threading
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from broker import settings
from broker.events import to_stream
from broker.telemetry import Telemetry

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = SAMPLED[:-1] + "0"


class _Log:
    """What the exporter `log` has written."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def lines(self, event: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [line for line in found if line["event"] == event]

    def metric(self, name: str) -> list[tuple[dict[str, str], Any]]:
        return [
            (line["attributes"], line.get("value", line.get("sum")))
            for line in self.lines("metric")
            if line["metric"] == name
        ]


@pytest.fixture
def log() -> Iterator[_Log]:
    """The process's log; the loggers are as they were afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("aibroker")
    before = root.handlers[:], root.level, ours.level
    taken = _Log()
    to_stream("info", taken.stream)
    yield taken
    root.handlers[:], root.level, ours.level = before


def telemetry(exporter: str = "log", share: float = 0.0) -> Telemetry:
    options = settings.Telemetry.model_validate({"exporter": exporter, "sampled_share": share, "interval_s": 3_600})
    return Telemetry(options, "an-incarnation", Random(7))


def test_without_an_exporter_nothing_runs_and_contexts_pass_through() -> None:
    threads = threading.active_count()
    quiet = telemetry("none", share=1.0)
    quiet.call("openai", "m", "succeeded", 0.1)
    quiet.outcome("normal", "succeeded")
    for trace in (SAMPLED, UNSAMPLED, None, "broken"):
        span = quiet.span(trace, "acme/1", "normal")
        assert span.trace == trace
        span.end("succeeded", None)
    quiet.close()
    assert threading.active_count() == threads


def test_a_sampled_job_has_a_span_in_its_producers_trace(log: _Log) -> None:
    counted = telemetry()
    span = counted.span(SAMPLED, "acme/1", "normal")
    assert span.trace is not None
    version, trace, own, flags = span.trace.split("-")
    assert (version, trace, flags) == ("00", SAMPLED.split("-")[1], "01")
    assert own != SAMPLED.split("-")[2]
    span.end("failed", "provider_error")
    counted.close()
    (line,) = log.lines("span")
    assert (line["trace"], line["span"], line["parent"]) == (trace, own, SAMPLED.split("-")[2])
    assert line["aibroker.job"] == "acme/1"
    assert (line["aibroker.status"], line["error.type"]) == ("failed", "provider_error")


def test_the_tracestate_goes_on_with_the_span_and_without_one(log: _Log) -> None:
    counted = telemetry()
    span = counted.span(f"{SAMPLED} a=b,c=d", "acme/1", "normal")
    assert span.trace is not None
    assert span.trace.endswith("-01 a=b,c=d")
    assert counted.span(f"{UNSAMPLED} a=b", "acme/2", "normal").trace == f"{UNSAMPLED} a=b"
    span.end("succeeded", None)
    counted.close()
    (line,) = log.lines("span")
    assert line["parent"] == SAMPLED.split("-")[2]


@pytest.mark.parametrize("trace", [UNSAMPLED, None, "", "broken", SAMPLED[:54]])
def test_a_job_that_nobody_samples_has_none_and_passes_its_context_on(log: _Log, trace: str | None) -> None:
    counted = telemetry()
    span = counted.span(trace, "acme/1", "normal")
    assert span.trace == trace
    span.end("succeeded", None)
    counted.close()
    assert log.lines("span") == []


def test_a_share_of_the_jobs_without_a_context_is_sampled(log: _Log) -> None:
    counted = telemetry(share=0.25)
    for number in range(1_000):
        counted.span(None, f"acme/{number}", "normal").end("succeeded", None)
        counted.span(UNSAMPLED, f"acme/{number}", "normal").end("succeeded", None)
    counted.close()
    spans = log.lines("span")
    assert len(spans) == pytest.approx(250, abs=60)
    assert len({line["trace"] for line in spans}) == len(spans)
    assert {line["parent"] for line in spans} == {None}


def test_what_was_counted_is_told_at_each_export(log: _Log) -> None:
    counted = telemetry()
    counted.watch(lambda: {"normal": (12, 3.5), "batch": (0, 0.0)}, lambda: 0.25)
    for _ in range(3):
        counted.outcome("normal", "succeeded")
    counted.outcome("batch", "failed")
    counted.used("openai", "m", "acme", input_tokens=10, output_tokens=2, usd=0.25)
    counted.used("openai", "m", "acme", input_tokens=5, output_tokens=1, usd=0.5)
    for seconds in (0.3, 0.5, 0.6):
        counted.call("openai", "m", "succeeded", seconds)
    counted.close()
    assert log.metric("aibroker.outcomes") == [
        ({"priority": "normal", "status": "succeeded"}, 3),
        ({"priority": "batch", "status": "failed"}, 1),
    ]
    tokens = {attributes["gen_ai.token.type"]: value for attributes, value in log.metric("aibroker.tokens")}
    assert tokens == {"input": 15, "output": 3}
    assert log.metric("aibroker.cost") == [({"tenant": "acme"}, 0.75)]
    assert log.metric("aibroker.backlog") == [({"priority": "normal"}, 12), ({"priority": "batch"}, 0)]
    assert log.metric("aibroker.oldest_wait") == [({"priority": "normal"}, 3.5), ({"priority": "batch"}, 0.0)]
    assert log.metric("aibroker.loop_lag") == [({}, 0.25)]
    counted_calls = log.metric("aibroker.calls")
    assert [calls for _, calls in counted_calls] == [2, 1]
    assert [attributes.pop("le") for attributes, _ in counted_calls] == [0.5, 1.0]
    assert counted_calls[0][0] == {
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "aibroker.outcome": "succeeded",
    }


def test_closing_ends_the_threads() -> None:
    threads = threading.active_count()
    counted = telemetry()
    counted.close()
    assert threading.active_count() == threads


def test_the_error_of_estimates_is_summed_by_its_direction(log: _Log) -> None:
    counted = telemetry()
    for error in (5, -3, 0, 7):
        counted.estimated("openai", "m", error)
    counted.close()
    found = {attributes["direction"]: tokens for attributes, tokens in log.metric("aibroker.estimate_error")}
    assert found == {"above": 12, "below": 3}
