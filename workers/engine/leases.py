"""Our sign of life, and the one place where the death of another worker is declared.

A lease that ran out says nothing about its owner when the database was away: everybody's has run out then and everybody is alive. So only a worker
whose own renewals went through without a gap for a whole lease may declare a death, and by equality on the `until` that it read.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from broker.events import Events
from workers.stores.protocol import Standing, Store, StoreUnknownError

AUDIT_EVERY = 3
"""The audit runs with every third look after the others."""
TELL_EVERY = 3
"""Every third renewal carries what is told beside the lease."""


class FencedError(Exception):
    """Another worker declared us dead, or our lease is gone: this process must end."""


class Leases:
    """Renews our lease, declares deaths, sweeps after the dead.

    Args:
        store: Where leases live.
        lease_s: How long a lease lives without a renewal, in seconds.
        audit: Called with every third look after the others, and told how to ask whether our lease is healthy.
        clock: Seconds of a monotonic clock.
    """

    def __init__(
        self,
        store: Store,
        lease_s: float,
        audit: Callable[[Callable[[], bool]], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._lease_s = lease_s
        self._period_s = lease_s / 3
        self._again_s = lease_s / 30
        self._gap_s = lease_s - self._period_s - lease_s / 6  # a renewal has a sixth of the lease to be answered
        self._audit = audit
        self._clock = clock
        self._tell: Callable[[], Mapping[str, Any]] = dict
        self._renewals = itertools.count()
        self._last_good = -float("inf")
        self._unbroken_since = float("inf")
        self._events = Events("worker.leases")
        self.ticked_at = clock()
        self.answered = True  # whether the last renewal was
        self.drain_asked = asyncio.Event()  # this process is to finish what runs, and to end

    def healthy(self) -> bool:
        """Whether calls, takes, adoptions and claimed inserts may start: the last good renewal was sent less than 2/3 of a lease ago."""
        return self._clock() - self._last_good < self._lease_s * 2 / 3

    def may_declare(self) -> bool:
        """Whether our renewals had no gap for a whole lease, up to now."""
        now = self._clock()
        return now - self._last_good <= self._gap_s and now - self._unbroken_since >= self._lease_s

    async def start(self, facts: dict[str, Any]) -> None:
        """Take our lease; claims may begin after it."""
        sent = self._clock()
        await self._store.start(self._lease_s, facts)
        self._good(sent)

    async def run(self, tell: Callable[[], Mapping[str, Any]] = dict) -> None:
        """Renew for ever; look after the others beside it, because what takes long there must not cost us our own lease.

        Args:
            tell: What stands beside the lease, for whoever looks at workers.

        Raises:
            FencedError: We are dead to the others (in the group of the task that found it out).
        """
        self._tell = tell
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_for_ever())
            await self._renew_for_ever()

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._period_s if await self._renew() else self._again_s)
            self.ticked_at = self._clock()

    async def _look_for_ever(self) -> None:
        for rounds in itertools.count(1):
            await asyncio.sleep(self._period_s)
            await self._look_after_others()
            if rounds % AUDIT_EVERY == 0 and self.healthy():
                await self._audit(self.healthy)

    async def _renew(self) -> bool:
        sent = self._clock()
        try:
            told = self._tell() if next(self._renewals) % TELL_EVERY == 0 else None
            standing = await self._store.renew(self._lease_s, told)
        except StoreUnknownError as error:
            self.answered = False
            self._events.warning("lease.renewal_unknown", reason=str(error))
            return False
        self.answered = True
        if standing is Standing.FENCED:
            raise FencedError("another worker declared this one dead, or its lease is gone")
        if standing is Standing.DRAINING:
            self.drain_asked.set()
        self._good(sent)
        return True

    def _good(self, sent: float) -> None:
        if sent - self._last_good > self._gap_s:
            self._unbroken_since = sent
        self._last_good = sent

    async def _look_after_others(self) -> None:
        try:
            if self.may_declare():
                await self._declare()
            swept = await self._store.sweep()
        except StoreUnknownError as error:
            self._events.warning("lease.sweep_unknown", reason=str(error))
            return
        if swept:
            self._events.info("lease.swept", jobs=swept)

    async def _declare(self) -> None:
        for lease in await self._store.expired_leases():
            if not self.may_declare():
                return
            if lease.incarnation != self._store.owner and await self._store.fence(lease):
                self._events.warning("lease.declared_dead", incarnation=lease.incarnation, until=lease.until)
