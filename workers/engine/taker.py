"""The only reader of waiting jobs: takes what is due in batches, for the tenants that are to be served next."""

import asyncio
import time
import uuid
from datetime import UTC, datetime

from broker.events import Events
from workers.engine.hands import Hands
from workers.engine.slices import SLICE
from workers.stores.control import ControlStore
from workers.stores.protocol import Claim, StoreUnknownError

BATCH = 256
"""The most ids of one take, and the most of one tenant in it."""
LOOK_S = 1.0
"""How often it is asked who has due jobs, and how often an idle taker looks."""
PAGES = 8
"""How many batches of jobs that turn out to be paused are put aside for one tenant in a row."""
ENDING_S = 1.0
"""How often jobs are looked for that are to end, wherever they stand in the queue."""
WITHOUT_ROOM = 32
"""So many jobs that are to end are held at once beyond what there is room for: they need no slot, and leave within a second."""
LONG_AGO_S = 1e9
BUSY_S = 0.02
"""What a taker leaves between two rounds while there is something to take."""


class Taker:
    """Fills the ready queue from the waiting documents: of each priority, for the tenants that are to be served next and have few jobs here."""

    def __init__(self, store: ControlStore, priorities: list[str], hands: Hands) -> None:
        self._store = store
        self._priorities = priorities
        self._ready, self._registry, self._leases = hands.ready, hands.registry, hands.leases
        self._halts = hands.halts
        self._looked_at = self._ended_at = -LONG_AGO_S  # by the loop's clock
        self._without_room: list[str] = []
        self._nudged = asyncio.Event()
        self._events = Events("worker.taker")
        self.ticked_at = time.monotonic()

    def wake(self) -> None:
        """Say that something due was just put to wait, of a tenant that the ready queue knows to be behind."""
        self._nudged.set()

    def nudge(self) -> None:
        """Say that others may have due jobs than was known."""
        self._looked_at = -LONG_AGO_S
        self._nudged.set()

    async def run(self) -> None:
        """Take for ever."""
        while True:
            self.ticked_at = time.monotonic()
            self._nudged.clear()
            if self._leases.healthy():
                try:
                    await self._turn()
                except StoreUnknownError as error:
                    self._events.warning("taker.unknown", reason=str(error))
            await self._rest(BUSY_S if self._ready.any_behind() else LOOK_S)

    async def _turn(self) -> None:
        """Take what there is room for, or only some of what is to end: that needs no room for long."""
        if self._ready.room(self._priorities[0]) <= 0:
            await self._ending(datetime.now(UTC))
        elif await self._any_due():
            await self._round()

    async def _any_due(self) -> bool:
        """Who knows of nobody behind asks one question for all; a cancel makes what waits due, a deadline does so but for paused batches."""
        if self._ready.any_behind() or self._halts.any_paused_batch():
            return True
        return await self._store.any_due(datetime.now(UTC))

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._nudged.wait()
        except TimeoutError:
            pass

    async def _round(self) -> int:
        """Take what is to end and what there is room for; return how many jobs were taken or put aside."""
        now = datetime.now(UTC)
        found = await self._ending(now)
        await self._look(now)
        for priority in self._priorities:
            found += await self._fill(priority, now)
        return found

    async def _look(self, now: datetime) -> None:
        """Ask from time to time who has due jobs: in between, what this worker puts to wait is known here."""
        clock_s = asyncio.get_running_loop().time()
        if clock_s - self._looked_at < LOOK_S:
            return
        self._looked_at = clock_s
        for priority in self._priorities:
            self._ready.behind(priority, await self._store.due_tenants(priority, now))

    async def _fill(self, priority: str, now: datetime) -> int:
        found, ids = 0, list[str]()
        for tenant in self._ready.hungry(priority):
            room = min(self._ready.room_for(priority, tenant), self._ready.room(priority) - len(ids), BATCH)
            if room <= 0 or not self._leases.healthy():
                break
            if self._halts.pauses(tenant):
                continue
            parked, due = await self._due(priority, tenant, room, now)
            found += parked
            ids += due
            if len(ids) >= BATCH:
                found += await self._take(ids, now)
                ids = []
        return found + (await self._take(ids, now) if ids else 0)

    async def _due(self, priority: str, tenant: str, room: int, now: datetime) -> tuple[int, list[str]]:
        """How many jobs of a tenant were put aside until their batch is resumed, and the ids of those to take."""
        parked = 0
        for _ in range(PAGES):
            ids = await self._store.due(priority, tenant, now, room)
            if len(ids) < room:
                self._ready.caught_up(priority, tenant)
            batches = self._halts.paused_batches(tenant)
            aside = sum([await self._store.park(ids, batch) for batch in batches]) if ids else 0
            parked += aside
            if not ids or aside < len(ids):
                return parked, ids
        return parked, []

    async def _ending(self, now: datetime) -> int:
        """Take what is to end, whatever is queued before it or paused: what was cancelled, and what its deadline has passed."""
        clock_s = asyncio.get_running_loop().time()
        if clock_s - self._ended_at < ENDING_S:
            return 0
        room = min(BATCH, self._ready.room(self._priorities[-1]))
        full = room <= 0
        if full:
            room = self._few_more()
        if room <= 0:
            return 0
        ids = await self._store.cancelled_waiting(room)
        if len(ids) < room:
            ids += await self._store.overdue(now, room - len(ids))
        if full or len(ids) < room:  # else there are more, and the next round looks again
            self._ended_at = clock_s
        if full:
            self._without_room += ids
        return await self._take(ids, datetime.now(UTC)) if ids else 0

    def _few_more(self) -> int:
        """How many may come in without room: those that did before are waited for, where they do not end at once."""
        self._without_room = [job for job in self._without_room if job in self._registry]
        return WITHOUT_ROOM - len(self._without_room)

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
        rest = iter(taken)
        try:
            for number, claim in enumerate(rest, 1):
                self._ready.accept(claim)
                if number % SLICE == 0:
                    await asyncio.sleep(0)
        finally:
            for claim in rest:  # who is told to end meanwhile hands back all
                self._ready.accept(claim)
        return len(taken)
