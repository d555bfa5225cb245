"""How late the event loop is: how long a task that could go on is kept waiting for its turn."""

import asyncio
import time
from collections.abc import Callable

BEAT_S = 0.5
WINDOW_S = 10.0


class LoopLag:
    """Beats on the loop, and remembers how late its worst beat was; any thread may ask."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beat_at = self._window_at = clock()
        self._worst_s = self._before_s = 0.0

    async def run(self) -> None:
        """Beat for ever."""
        self._beat_at = self._clock()
        while True:
            await asyncio.sleep(BEAT_S)
            self._beat()

    def silent_s(self) -> float:
        """Seconds since the last beat."""
        return self._clock() - self._beat_at

    def worst_s(self) -> float:
        """The worst of the last `WINDOW_S` seconds, or of up to twice as many; a stall that still lasts counts."""
        return max(self._worst_s, self._before_s, self.silent_s() - BEAT_S, 0.0)

    def _beat(self) -> None:
        now = self._clock()
        self._worst_s = max(self._worst_s, now - self._beat_at - BEAT_S)
        self._beat_at = now
        if now - self._window_at >= WINDOW_S:
            self._window_at, self._before_s, self._worst_s = now, self._worst_s, 0.0
