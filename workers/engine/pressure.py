"""How much waits: pauses a priority's partitions while too much of it waits in the store, and tells telemetry the backlog and the oldest wait."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from broker.events import Events
from broker.settings import Settings
from workers.engine.reader import Reader
from workers.engine.ready import ReadyQueue
from workers.stores.protocol import Backlog, Store, StoreUnknownError

LOOK_S = 10.0
GOES_ON = 0.9
"""At which share of a limit paused partitions go on: a pause throws away what was fetched, so that it is not to come and go."""


class Pressure:
    """Counts and weighs waiting documents of each priority, up to the limit of their number."""

    def __init__(self, settings: Settings, store: Store, readers: Sequence[Reader], ready: ReadyQueue) -> None:
        self._limit = settings.worker.waiting_documents
        self._bytes_limit = settings.worker.waiting_mb * 1_000_000
        self._store = store
        self._readers = readers
        self._ready = ready
        self._waiting: dict[str, Backlog] = {}
        self._events = Events("worker.pressure")

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            for reader in self._readers:
                try:
                    found = await self._store.waiting(reader.priority, self._limit)
                except StoreUnknownError as error:
                    self._events.warning("pressure.unknown", reason=str(error))
                    continue
                self._waiting[reader.priority] = found
                share = max(found.documents / self._limit, found.bytes / self._bytes_limit)
                reader.hold(full=share >= (GOES_ON if reader.held else 1.0))

    def gauges(self) -> Mapping[str, tuple[int, float]]:
        """Priority -> (lag of our partitions, documents that wait and jobs that are ready here; seconds of the oldest wait)."""
        now = datetime.now(UTC)
        return {reader.priority: self._gauges(reader, now) for reader in self._readers}

    def _gauges(self, reader: Reader, now: datetime) -> tuple[int, float]:
        """The oldest wait is that of the next job which is ready here, or of the document that is due for the longest time."""
        waiting = self._waiting.get(reader.priority, Backlog())
        backlog = reader.lag() + waiting.documents + self._ready.size(reader.priority)
        due_s = (now - waiting.due_at).total_seconds() if waiting.due_at is not None else 0.0
        return backlog, max(self._ready.oldest_s(reader.priority, now), due_s)
