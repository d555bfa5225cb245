"""Places where a test can have a worker kill itself, or block its event loop, to prove that nothing is lost there."""

import os
import signal
import time
from typing import Literal

from broker.errors import SettingsError
from broker.events import Events

Name = Literal[
    "after_insert", "before_call", "after_call", "after_finish", "after_publish", "before_commit", "before_alert"
]
NAMES: tuple[Name, ...] = (
    "after_insert",
    "before_call",
    "after_call",
    "after_finish",
    "after_publish",
    "before_commit",
    "before_alert",
)


BLOCK = "block_"
BLOCK_S = 3_600.0


class Failpoints:
    """Counts passes; at the n-th of the named one the process kills itself with SIGKILL, logged first.

    Args:
        spec: `<name>[:n]`, or "" for none; `block_<name>[:n]` blocks the event loop there instead, for the watchdog to see.
    """

    def __init__(self, spec: str, events: Events) -> None:
        said, _, count = spec.partition(":")
        name = said.removeprefix(BLOCK)
        if said and name not in NAMES:
            raise SettingsError(f"AIBROKER_FAIL_AT: {name!r} is no failpoint; there are {', '.join(NAMES)}")
        self._name = name
        self._blocks = said != name
        self._left = int(count or 1)
        self._events = events

    def hit(self, name: Name) -> None:
        """Pass a failpoint."""
        if name != self._name:
            return
        self._left -= 1
        if self._left <= 0:
            self._events.warning("failpoint.hit", failpoint=name)
            self._fail()

    def _fail(self) -> None:
        if self._blocks:
            time.sleep(BLOCK_S)
        else:
            os.kill(os.getpid(), signal.SIGKILL)
