"""Which job is next: one rule, used between priorities and again between the tenants of each; no clock, no I/O.

Each priority, and inside it each tenant, has a virtual time. The next job comes from the lowest; dispatching adds estimated cost / weight; what
settling finds above it is added at once, what it finds below is taken off what is charged next; who was idle joins at the lowest time in use. Inside
a tenant: earliest deadline, then arrival. Every weight is above zero, so nothing starves. (Start-time fair queueing: Goyal, Vin, Cheng, SIGCOMM
1996.)

Who may come in is the other half of it: whoever fills the queue decides what there is to choose from. A priority may fill half of what the others
leave free, a tenant half of what the others of its priority leave of that; so there is always room for one who comes anew. (Dynamic thresholds:
Choudhury, Hahne, IEEE/ACM Transactions on Networking 6, 1998.)
"""

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

Item = TypeVar("Item")


LEAST_SHARE = 0.01
"""Of its estimate a job is charged so much at least, whatever its name was charged too much before: who joins at the lowest time stands before it."""


class Shares:
    """Virtual times of names that compete; those with something to do are active.

    The time of an active name never falls: whoever joined at the lowest one would wait until those that fell below it have come up again.
    """

    __slots__ = ("_active", "_floor", "_heap", "_owed", "_times")

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        self._active: set[str] = set()
        self._heap: list[tuple[float, str]] = []
        self._floor = 0.0
        self._owed: dict[str, float] = {}  # of active names: below zero, what their next jobs are charged less

    def join(self, name: str) -> None:
        """Make a name active; one that was idle does not bring credit along."""
        if name not in self._active:
            self._active.add(name)
            self._set(name, max(self._times.get(name, 0.0), self._floor))

    def leave(self, name: str) -> None:
        """Make a name idle."""
        self._active.discard(name)
        self.correct(name, self._owed.pop(name, 0.0))

    def charge(self, name: str, amount: float) -> None:
        """Add what a name is to be served."""
        owed = self._owed.pop(name, 0.0)
        due = max(amount + owed, LEAST_SHARE * amount)
        if due > amount + owed:
            self._owed[name] = amount + owed - due
        self._set(name, self._times.get(name, self._floor) + due)

    def correct(self, name: str, difference: float) -> None:
        """Add what a name was served more than it was charged; negative where an estimate was too high."""
        if name in self._active and difference < 0:
            self._owed[name] = self._owed.get(name, 0.0) + difference
        elif name in self._active:
            self._set(name, self._times[name] + difference)
        else:
            self._times[name] = max(self._times.get(name, self._floor) + difference, 0.0)

    def lowest(self) -> str | None:
        """The active name with the lowest time, None if none is active."""
        while self._heap:
            time, name = self._heap[0]
            if name in self._active and self._times[name] == time:
                self._floor = max(self._floor, time)
                return name
            heapq.heappop(self._heap)
        self._forget()
        return None

    def order(self, names: Iterable[str]) -> list[str]:
        """Names by their times, lowest first; an unknown one counts as joining now."""
        return sorted(names, key=lambda name: (max(self._times.get(name, 0.0), self._floor), name))

    def _set(self, name: str, time: float) -> None:
        self._times[name] = time
        if name not in self._active:
            return
        if self._heap and self._heap[0][1] == name:  # it was served just now: what it had before is of no use
            heapq.heapreplace(self._heap, (time, name))
        else:
            heapq.heappush(self._heap, (time, name))

    def _forget(self) -> None:
        """Drop idle names that would join at the floor anyway."""
        self._times = {name: time for name, time in self._times.items() if time > self._floor}


def _half(size: int) -> int:
    """Rounded up: the last free place is somebody's, too."""
    return -(-size // 2)


class _Tenants(Generic[Item]):
    """The queue of one priority."""

    __slots__ = ("queues", "shares", "size")

    def __init__(self) -> None:
        self.shares = Shares()
        self.queues: dict[str, list[tuple[float, int, float, Item]]] = {}
        self.size = 0


class FairQueue(Generic[Item]):
    """Jobs that may start now.

    Args:
        weights: Priority -> weight above zero, in the order of the priorities.
        tenant_weight: Tenant -> weight above zero.
    """

    def __init__(self, weights: Mapping[str, float], tenant_weight: Callable[[str], float] = lambda _: 1.0) -> None:
        if not weights or min(weights.values()) <= 0:
            raise ValueError("every priority needs a weight above zero")
        self._weights = dict(weights)
        self._tenant_weight = tenant_weight
        self._priorities: dict[str, _Tenants[Item]] = {name: _Tenants() for name in weights}
        self._shares = Shares()
        self._arrivals = itertools.count()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def size(self, priority: str) -> int:
        """How many jobs of a priority are here."""
        return self._priorities[priority].size

    def held(self, priority: str, tenant: str) -> int:
        """How many jobs of a tenant in a priority are here."""
        return len(self._priorities[priority].queues.get(tenant, ()))

    def room(self, priority: str, tenant: str, limit: int) -> int:
        """How many more of a tenant's jobs may come in where `limit` is for all."""
        tenants, held = self._priorities[priority], self.held(priority, tenant)
        share = _half(limit - (self._size - tenants.size))
        own = _half(share - (tenants.size - held)) - held
        return max(min(own, limit - self._size), 0)

    def push(self, item: Item, priority: str, tenant: str, *, cost: float, deadline: float) -> None:
        """Add a job: `cost` in cost units (above zero), `deadline` in seconds of any one clock."""
        tenants = self._priorities[priority]
        queue = tenants.queues.setdefault(tenant, [])
        heapq.heappush(queue, (deadline, next(self._arrivals), cost, item))
        tenants.shares.join(tenant)
        self._shares.join(priority)
        tenants.size += 1
        self._size += 1

    def pop(self, only: str | None = None) -> Item | None:
        """Return the next job, of one priority only where one is given; None if there is none."""
        priority = only if only is not None else self._shares.lowest()
        if priority is None:
            return None
        tenants = self._priorities[priority]
        tenant = tenants.shares.lowest()
        if tenant is None:
            return None
        return self._take(priority, tenant)

    def overdue(self, now: float) -> list[Item]:
        """Take out, in whatever order, what has its deadline behind it."""
        found: list[Item] = []
        for priority, tenants in self._priorities.items():
            for tenant in list(tenants.queues):
                while tenant in tenants.queues and tenants.queues[tenant][0][0] <= now:
                    found.append(self._take(priority, tenant))
        return found

    def _take(self, priority: str, tenant: str) -> Item:
        """Take out a tenant's next job and charge its estimate."""
        tenants = self._priorities[priority]
        queue = tenants.queues[tenant]
        _, _, cost, item = heapq.heappop(queue)
        tenants.shares.charge(tenant, cost / self._tenant_weight(tenant))
        self._shares.charge(priority, cost / self._weights[priority])
        tenants.size -= 1
        self._size -= 1
        if not queue:
            del tenants.queues[tenant]
            tenants.shares.leave(tenant)
        if not tenants.size:
            self._shares.leave(priority)
        return item

    def peek(self, priority: str) -> Item | None:
        """The next job of a priority, left where it is."""
        tenants = self._priorities[priority]
        tenant = tenants.shares.lowest()
        return tenants.queues[tenant][0][3] if tenant is not None else None

    def correct(self, priority: str, tenant: str, difference: float) -> None:
        """Charge a served tenant by the difference of true and estimated cost, in cost units."""
        self._priorities[priority].shares.correct(tenant, difference / self._tenant_weight(tenant))
        self._shares.correct(priority, difference / self._weights[priority])

    def order(self, priority: str, tenants: Iterable[str]) -> list[str]:
        """Tenants by their right to be served next."""
        return self._priorities[priority].shares.order(tenants)

    def withdraw(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Take out what is unwanted, each asked about once; nobody is charged for what was not served."""
        found: list[Item] = []
        for priority, tenants in self._priorities.items():
            for tenant, queue in list(tenants.queues.items()):
                gone: list[tuple[float, int, float, Item]] = []
                kept: list[tuple[float, int, float, Item]] = []
                for entry in queue:
                    (gone if unwanted(entry[3]) else kept).append(entry)
                if not gone:
                    continue
                found += [entry[3] for entry in sorted(gone, key=lambda entry: entry[:2])]
                tenants.size -= len(gone)
                self._size -= len(gone)
                heapq.heapify(kept)
                tenants.queues[tenant] = kept
                if not kept:
                    del tenants.queues[tenant]
                    tenants.shares.leave(tenant)
            if not tenants.size:
                self._shares.leave(priority)
        return found

    def drain(self) -> list[Item]:
        """Take everything out, for the shutdown to hand it back."""
        return [item for item in iter(self.pop, None) if item is not None]
