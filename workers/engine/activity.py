"""What a worker does now, as it tells the others with its lease: how many jobs run and are ready, and how fast jobs start."""

import time
from collections.abc import Callable
from typing import Any

from workers.engine.dispatcher import Dispatcher
from workers.engine.ready import ReadyQueue

TOLD_AT_MOST = 100
"""Of how many tenants the rates are told: those with the most starts."""


class Activity:
    """Turns counts into rates.

    Args:
        ready: What waits here for a slot.
        dispatcher: What starts it.
        clock: Seconds of a monotonic clock.
    """

    def __init__(self, ready: ReadyQueue, dispatcher: Dispatcher, clock: Callable[[], float] = time.monotonic) -> None:
        self._ready = ready
        self._dispatcher = dispatcher
        self._clock = clock
        self._since = clock()

    def told(self) -> dict[str, Any]:
        """What runs and is ready now, and how many jobs of each priority and tenant have started a second since this was asked last."""
        now = self._clock()
        elapsed_s, self._since = now - self._since, now
        started = self._dispatcher.started().most_common(TOLD_AT_MOST) if elapsed_s > 0 else []
        return {
            "running": len(self._dispatcher),
            "ready": [{"priority": name, "jobs": self._ready.size(name)} for name in self._ready.priorities],
            "starts": [
                {"priority": priority, "tenant": tenant, "per_s": count / elapsed_s}
                for (priority, tenant), count in started
            ],
        }
