"""Ends a process whose loop has stopped turning, from a thread: what hangs holds its lease and its partitions for ever otherwise.

Not "no progress": long calls, a cooldown or a budget are no fault, and a restart pays running calls twice.

Once the work is over, it ends what does not end: PyMongo's client (4.20) was seen to wait for ever for a lock of its own, cancelled or not, when its
server had gone while many operations waited.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping

from broker.events import Events
from workers.engine.loop_lag import LoopLag

EXIT = 70
"""EX_SOFTWARE of sysexits.h: the process was found to be of no use any more."""
LOOK_S = 1.0
TICK_S = 60.0
"""How long one of our loops may be silent while the event loop itself turns."""
ENDING_S = 60.0
"""How long a process may take to close everything after the watchdog was cancelled; by then all that can be written is."""
TELL_S = 2.0
"""How long the end waits for its last words."""


class Watchdog:
    """Looks at the loop once a second.

    Args:
        stuck_s: How long the event loop may stand still, in seconds.
        lag: Beats on the loop while the watchdog runs.
        ticks: When each of our own loops ticked last, on the monotonic clock, by name.
        end: Ends the process.
        ending_s: How long the process may live on once `run` was cancelled, in seconds.
    """

    def __init__(
        self,
        stuck_s: float,
        lag: LoopLag,
        ticks: Callable[[], Mapping[str, float]],
        end: Callable[[int], None] = os._exit,
        *,
        ending_s: float = ENDING_S,
    ) -> None:
        self._stuck_s = stuck_s
        self._lag = lag
        self._ticks = ticks
        self._end = end
        self._ending_s = ending_s
        self._stopped = threading.Event()
        self._events = Events("worker.watchdog")

    async def run(self) -> None:
        """Watch until cancelled; after that only the process's end ends the watch."""
        thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        thread.start()
        try:
            await self._lag.run()
        finally:
            self._stopped.set()

    def stuck(self) -> str | None:
        """What stands still, None where nothing does."""
        silent_s, now = self._lag.silent_s(), time.monotonic()
        if silent_s > self._stuck_s:
            return f"the event loop has not turned for {silent_s:.0f} s"
        for name, ticked_at in self._ticks().items():
            if now - ticked_at > max(TICK_S, self._stuck_s):
                return f"{name} has not ticked for {now - ticked_at:.0f} s"
        return None

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_S):
            stuck = self.stuck()
            if stuck:
                self._end_now(stuck)
                return
        time.sleep(self._ending_s)
        self._end_now(f"the process has not ended {self._ending_s:.0f} s after its work")

    def _end_now(self, stuck: str) -> None:
        self._tell_at_most(TELL_S, stuck)
        self._end(EXIT)

    def _tell_at_most(self, seconds: float, stuck: str) -> None:
        """Log it in a thread of its own: what stands still may be the log, whose reader has gone to sleep."""
        telling = threading.Thread(target=self._tell, args=(stuck,), name="watchdog-tells", daemon=True)
        telling.start()
        telling.join(seconds)

    def _tell(self, stuck: str) -> None:
        self._events.warning("watchdog.exit", stuck=stuck)
        sys.stdout.flush()
