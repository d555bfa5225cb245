"""Takes up what is claimed by us and held by no task: otherwise a lost answer orphans a job for as long as we live."""

from collections.abc import Callable

from broker.events import Events
from workers.engine.ready import ReadyQueue
from workers.engine.registry import Registry
from workers.stores.protocol import Store, StoreUnknownError

LIMIT = 10_000


class Audit:
    """Compares what the store says is ours with what the registry knows."""

    def __init__(self, store: Store, registry: Registry, ready: ReadyQueue) -> None:
        self._store = store
        self._registry = registry
        self._ready = ready
        self._events = Events("worker.audit")
        self._suspects: set[tuple[str, int]] = set()

    async def run(self, healthy: Callable[[], bool]) -> None:
        """Adopt, by a CAS that raises the fence, what nobody held at two audits in a row, as long as our lease is `healthy`.

        Twice, because a job whose outcome was just written may still be seen as claimed by a read that began before.
        """
        try:
            orphans = {(job, fence) for job, fence in await self._store.unheld(LIMIT) if job not in self._registry}
            again, self._suspects = orphans & self._suspects, orphans
            for job, fence in again:
                if healthy():  # asked before each: many adoptions, or a slow one, may outlive it
                    await self._adopt(job, fence)
        except StoreUnknownError as error:
            self._events.warning("audit.unknown", reason=str(error))

    async def _adopt(self, job: str, fence: int) -> None:
        if not self._registry.add([job]):
            return
        claim = None
        try:
            claim = await self._store.adopt(job, fence)
        finally:
            if claim is None:
                self._registry.discard([job])
        if claim is not None:
            self._events.warning("audit.adopted", job=job, fence=claim.fence)
            self._ready.accept(claim)
