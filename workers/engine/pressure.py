"""How much waits: pauses a priority's partitions while too many of its documents wait, and tells telemetry the backlog."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from broker.events import Events
from broker.settings import Settings
from workers.engine.reader import Reader
from workers.engine.ready import ReadyQueue
from workers.stores.protocol import Store, StoreUnknownError

LOOK_S = 10.0


class Pressure:
    """Counts waiting documents of each priority, up to the limit."""

    def __init__(self, settings: Settings, store: Store, readers: Sequence[Reader], ready: ReadyQueue) -> None:
        self._limit = settings.worker.waiting_documents
        self._store = store
        self._readers = readers
        self._ready = ready
        self._waiting: dict[str, int] = {}
        self._events = Events("worker.pressure")

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            for reader in self._readers:
                try:
                    count = await self._store.waiting(reader.priority, self._limit)
                except StoreUnknownError as error:
                    self._events.warning("pressure.unknown", reason=str(error))
                    continue
                self._waiting[reader.priority] = count
                reader.hold(full=count >= self._limit)

    def gauges(self) -> Mapping[str, tuple[int, float]]:
        """Priority -> (lag of our partitions, documents that wait and jobs that are ready here; seconds that the oldest ready one has waited)."""
        now = datetime.now(UTC)
        return {
            reader.priority: (
                reader.lag() + self._waiting.get(reader.priority, 0) + self._ready.size(reader.priority),
                self._ready.oldest_s(reader.priority, now),
            )
            for reader in self._readers
        }
