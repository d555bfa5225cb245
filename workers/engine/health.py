"""Whether a worker lives and whether it can take work, with its reasons; any thread may ask, also while the event loop does not turn."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from broker.kafka import heartbeat_s
from broker.settings import Settings
from workers.engine.leases import Leases
from workers.engine.loop_lag import LoopLag
from workers.engine.reader import Reader


class Phase(StrEnum):
    """Where a worker is in its life."""

    STARTING = "starting"
    WORKING = "working"
    DRAINING = "draining"
    STOPPING = "stopping"


class Check(NamedTuple):
    """One thing that was looked at, and a sentence about it."""

    ok: bool
    reason: str


@dataclass(slots=True, frozen=True)
class Report:
    """What is answered: whether all is well, and everything that was looked at."""

    ok: bool
    document: Mapping[str, Any]


class Health:
    """Looks at what the other parts note anyway.

    Args:
        settings: How long what may be silent.
        incarnation: Whose health it is.
        stuck: What the watchdog finds to stand still.
        phase: Where it is in its life.
    """

    def __init__(
        self,
        settings: Settings,
        incarnation: str,
        *,
        leases: Leases,
        readers: Sequence[Reader],
        lag: LoopLag,
        stuck: Callable[[], str | None],
        phase: Callable[[], Phase],
    ) -> None:
        self._incarnation = incarnation
        self._session_s = settings.session_timeout_s
        self._heartbeat_s = heartbeat_s(settings)
        self._leases = leases
        self._readers = readers
        self._lag = lag
        self._stuck = stuck
        self._phase = phase

    def live(self) -> Report:
        """Whether this process is of use: no other remedy than its end is known for what stands still here."""
        stuck = self._stuck()
        return self._report(
            {"loops": Check(stuck is None, stuck or "the event loop turns, and every loop of ours ticks")}
        )

    def ready(self) -> Report:
        """Whether this worker takes work now."""
        phase = self._phase()
        return self._report(
            {
                "phase": Check(phase is Phase.WORKING, f"this worker is {phase}"),
                "lease": self._lease(),
                "mongo": self._mongo(),
                "kafka": self._kafka(),
                "loop_lag": self._loop_lag(),
            }
        )

    def _report(self, checks: Mapping[str, Check]) -> Report:
        ok = all(check.ok for check in checks.values())
        document = {
            "ok": ok,
            "incarnation": self._incarnation,
            "phase": self._phase(),
            "checks": {name: check._asdict() for name, check in checks.items()},
        }
        return Report(ok, document)

    def _lease(self) -> Check:
        if self._leases.healthy():
            return Check(True, "renewed in time")
        return Check(False, "no good renewal for two thirds of the lease: no call starts, nothing is taken")

    def _mongo(self) -> Check:
        answered = self._leases.answered
        return Check(
            answered, "answered the last renewal" if answered else "did not answer the last renewal; the log says more"
        )

    def _kafka(self) -> Check:
        now = time.monotonic()
        for reader in self._readers:
            if now - reader.ticked_at > self._session_s:
                silent = f"has not polled for {now - reader.ticked_at:.0f} s: it rejoins its group, or what it read is not durable yet"
                return Check(False, f"the reader of {reader.priority} {silent}")
            if now - reader.heard_at > self._session_s:
                return Check(
                    False, f"has not answered the reader of {reader.priority} for {now - reader.heard_at:.0f} s"
                )
        return Check(True, "polled, and answers every reader")

    def _loop_lag(self) -> Check:
        worst_s = self._lag.worst_s()
        limit = f"{self._heartbeat_s:.1f} s between two heartbeats"
        return Check(worst_s <= self._heartbeat_s, f"tasks waited for {worst_s:.3f} s at most of late; {limit}")
