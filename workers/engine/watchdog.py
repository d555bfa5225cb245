"""Ends a process whose loop has stopped turning, from a thread: what hangs holds its lease and its partitions for ever otherwise.

Not "no progress": long calls, a cooldown or a budget are no fault, and a restart pays running calls twice.
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping

from broker.events import Events

EXIT = 70
"""EX_SOFTWARE of sysexits.h: the process was found to be of no use any more."""
LOOK_S = 1.0
TICK_S = 60.0
"""How long one of our loops may be silent while the event loop itself turns."""


class Watchdog:
    """Looks at the loop once a second.

    Args:
        stuck_s: How long the event loop may stand still, in seconds.
        ticks: When each of our own loops ticked last, on the monotonic clock, by name.
        end: Ends the process.
    """

    def __init__(
        self, stuck_s: float, ticks: Callable[[], Mapping[str, float]], end: Callable[[int], None] = os._exit
    ) -> None:
        self._stuck_s = stuck_s
        self._ticks = ticks
        self._end = end
        self._turned_at = time.monotonic()
        self._stopped = threading.Event()
        self._events = Events("worker.watchdog")

    async def run(self) -> None:
        """Watch until cancelled."""
        thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._turned_at = time.monotonic()
        thread.start()
        try:
            while True:
                self._turned_at = time.monotonic()
                await asyncio.sleep(LOOK_S)
        finally:
            self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_S):
            stuck = self._what_is_stuck(time.monotonic())
            if stuck:
                self._events.warning("watchdog.exit", stuck=stuck)
                sys.stdout.flush()
                self._end(EXIT)
                return

    def _what_is_stuck(self, now: float) -> str | None:
        if now - self._turned_at > self._stuck_s:
            return f"the event loop has not turned for {now - self._turned_at:.0f} s"
        for name, ticked_at in self._ticks().items():
            if now - ticked_at > max(TICK_S, self._stuck_s):
                return f"{name} has not ticked for {now - ticked_at:.0f} s"
        return None
