"""An event loop whose clock jumps to the next timer instead of waiting for it: hours of a worker's life in a moment."""

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

Answer = TypeVar("Answer")

BEGINNING = datetime(2026, 12, 1, 8, tzinfo=UTC)
LONGEST_S = 1e6
TURNS = 20


class _Jump(selectors.DefaultSelector):  # type: ignore[misc, valid-type] # chosen by the platform
    """Does not wait, but says how long it would have waited."""

    waited_s = 0.0

    def select(self, timeout: float | None = None) -> Any:  # noqa: ANN401 as its parent
        events = super().select(0)
        if not events and timeout != 0:
            assert timeout is not None, "nothing will ever happen: every task waits for another"
            self.waited_s += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop for one test; `time()` begins at 0."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Seconds since the beginning."""
        return self._jump.waited_s

    def now(self) -> datetime:
        """The same as an instant."""
        return BEGINNING + timedelta(seconds=self.time())

    def pass_time(self, seconds: float) -> None:
        """Let the tasks live for so long."""
        self.run_until_complete(asyncio.sleep(seconds))

    def settle(self) -> None:
        """Let the tasks do what they can do now, without time passing."""
        self.run_until_complete(_turns(TURNS))

    def end(self) -> None:
        """Cancel what is left and close."""
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()
        if tasks:
            self.run_until_complete(asyncio.wait(tasks))
        self.close()


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def run(work: Coroutine[Any, Any, Answer]) -> Answer:
    """Run to the end in virtual time."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(asyncio.wait_for(work, LONGEST_S))
    finally:
        loop.end()
