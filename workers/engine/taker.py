"""The only reader of waiting jobs: takes what is due in batches, for the tenants that are to be served next."""

import asyncio
import time
import uuid
from collections.abc import Awaitable
from datetime import UTC, datetime

from broker.events import Events
from workers.engine.hands import Hands
from workers.stores.control import ControlStore
from workers.stores.protocol import Claim, StoreUnknownError

BATCH = 256
"""The most ids of one take."""
IDLE_S = 1.0
"""How often an idle taker looks."""
PAGES = 8
"""How many batches of jobs that turn out to be paused are put aside for one tenant in a row."""
CANCELLED_S = 1.0
"""How often cancelled jobs are looked for, wherever they stand in the queue."""
BUSY_S = 0.02
"""What a taker that found something leaves between two rounds."""


class Taker:
    """Fills the ready queue from the waiting documents."""

    def __init__(self, store: ControlStore, priorities: list[str], hands: Hands) -> None:
        self._store = store
        self._priorities = priorities
        self._ready, self._registry, self._leases = hands.ready, hands.registry, hands.leases
        self._halts = hands.halts
        self._looked_at = -CANCELLED_S
        self._nudged = asyncio.Event()
        self._events = Events("worker.taker")
        self.ticked_at = time.monotonic()

    def nudge(self) -> None:
        """Say that something due was just put to wait."""
        self._nudged.set()

    async def run(self) -> None:
        """Take for ever."""
        while True:
            self.ticked_at = time.monotonic()
            found = 0
            if self._leases.healthy() and self._low():
                try:
                    found = await self._round()
                except StoreUnknownError as error:
                    self._events.warning("taker.unknown", reason=str(error))
            await self._rest(BUSY_S if found else IDLE_S)

    def _low(self) -> bool:
        """Whether there is room for at least one whole batch, or for half of what fits at all."""
        return self._ready.room() >= min(BATCH, self._ready.room() + len(self._ready)) // 2

    async def _rest(self, seconds: float) -> None:
        self._nudged.clear()
        waits: list[Awaitable[object]] = [self._nudged.wait()] if self._low() else [self._ready.left.wait()]
        self._ready.left.clear()
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*waits)
        except TimeoutError:
            pass

    async def _round(self) -> int:
        found = await self._cancelled()
        for priority in self._priorities:
            now = datetime.now(UTC)
            due = await self._store.due_tenants(priority, now)
            tenants = [tenant for tenant in due if not self._halts.pauses(tenant)]
            for tenant in self._ready.order(priority, tenants):
                room = self._share(len(tenants))
                if room <= 0 or not self._leases.healthy():
                    break
                found += await self._serve(priority, tenant, room, now)
        return found

    async def _cancelled(self) -> int:
        """Take what is to end, whatever is queued before it or paused."""
        room = min(BATCH, self._ready.room())
        if room <= 0 or time.monotonic() - self._looked_at < CANCELLED_S:
            return 0
        ids = await self._store.cancelled_waiting(room)
        if len(ids) < room:  # else there are more, and the next round looks again
            self._looked_at = time.monotonic()
        return await self._take(ids, datetime.now(UTC)) if ids else 0

    async def _serve(self, priority: str, tenant: str, room: int, now: datetime) -> int:
        """Take for one tenant, putting aside what waits for its batch to be resumed; return how many were taken or put aside."""
        found = 0
        for _ in range(PAGES):
            ids = await self._store.due(priority, tenant, now, room)
            batches = self._halts.paused_batches(tenant)
            parked = [await self._store.park(ids, batch) for batch in batches] if ids else []
            found += sum(parked)
            if not ids or sum(parked) < len(ids):
                return found + await self._take(ids, now)
        return found

    def _share(self, tenants: int) -> int:
        """What one of so many tenants may fill of the room that is left."""
        return min(BATCH, max(self._ready.room() // max(tenants, 1), 1), self._ready.room())

    async def _take(self, ids: list[str], now: datetime) -> int:
        # The lease is looked at here, not before the ids were read: a slow answer may have outlived it.
        new = self._registry.add(ids) if self._leases.healthy() else []
        if not new:
            return 0
        token = uuid.uuid4().hex
        taken: list[Claim] = []
        try:
            taken = await self._store.take(new, token, now)
        finally:
            got = {claim.id for claim in taken}
            self._registry.discard(job for job in new if job not in got)
        for claim in taken:
            self._ready.accept(claim)
        return len(taken)
