"""What shall not run now: pauses, cancelled batches, batches over a limit, as this worker has learnt of them, a second ago at most.

On the path of a job it costs a look-up in what is mostly empty. Learning never waits for what a halt asks of documents: the emergency stop must not
queue behind a million marks.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from broker.events import Events
from schemas.codes import Code
from schemas.result import Status
from workers.engine.persistence import until_known
from workers.outcome import Ended
from workers.stores.control import EVERYTHING, NEVER, PARKED, ControlStore, Halt, HaltKind
from workers.stores.protocol import Claim, NewJob, StoreUnknownError

LOOK_S = 1.0
RESTLESS_S = 10.0
"""How long after news it is seen every second whether anything is left to be done: others had the news later, and put jobs aside until then."""
CALM_S = 10.0
"""How often that is seen otherwise."""
UNPARK_AT_ONCE = 1_000
TAKE_OVER = timedelta(seconds=15)
"""When others do what the worker that read the control record has not done: it may have died."""


class Rest(NamedTuple):
    """How a paused job waits."""

    due_at: datetime
    why: str
    wait_key: str | None


class Halts:
    """Every halt that this worker knows of."""

    def __init__(self) -> None:
        self.known: list[Halt] = []
        self._everything: Halt | None = None
        self._tenants: dict[str, Halt] = {}
        self._paused: dict[str, Halt] = {}
        self._ended: dict[str, Halt] = {}

    def learn(self, halts: Sequence[Halt]) -> bool:
        """Take what is halted now in place of what was; whether anything is different."""
        new = sorted(halts, key=lambda halt: (halt.scope, halt.kind))
        if new == self.known:
            return False
        self.known = new
        paused = {halt.scope: halt for halt in new if halt.kind is HaltKind.PAUSED}
        self._everything = paused.pop(EVERYTHING, None)
        self._tenants = {scope: halt for scope, halt in paused.items() if "/" not in scope}
        self._paused = {scope: halt for scope, halt in paused.items() if "/" in scope}
        self._ended = {halt.scope: halt for halt in reversed(new) if halt.kind is not HaltKind.PAUSED}
        return True

    def of(self, job: Claim | NewJob) -> Halt | None:
        """What keeps a job from running; what ends it comes before what has it wait."""
        if not self.known:
            return None
        batch = f"{job.tenant}/{job.batch_id}" if job.batch_id is not None else ""
        ended = self._ended.get(batch)
        if ended is not None and ended.meets(job.generation, job.arrived_at):
            return ended
        return self._everything or self._tenants.get(job.tenant) or self._paused.get(batch)

    def pauses(self, tenant: str) -> bool:
        """Whether nothing of a tenant may be taken."""
        return self._everything is not None or tenant in self._tenants

    def paused_batches(self, tenant: str) -> list[str]:
        """The paused batches of a tenant, as scopes."""
        return [scope for scope in self._paused if scope.startswith(f"{tenant}/")] if self._paused else []

    def any_paused_batch(self) -> bool:
        """Whether jobs may wait for a batch to be resumed."""
        return bool(self._paused)

    def is_paused(self, batch: str) -> bool:
        """Whether a batch itself is paused."""
        return batch in self._paused

    def unapplied(self) -> list[Halt]:
        """Halts of which the documents that were there do not know yet."""
        return [halt for halt in (*self._ended.values(), *self._paused.values()) if not halt.applied]


def rest(halt: Halt, now: datetime) -> Rest:
    """How a job waits under a pause: of a batch, until it is released; else it is due, and the taker passes it over."""
    if "/" in halt.scope:
        return Rest(NEVER, HaltKind.PAUSED, PARKED + halt.scope)
    return Rest(now, HaltKind.PAUSED, None)


def stop(halt: Halt) -> Ended:
    """How a job ends whose batch was cancelled, or has passed a limit."""
    code = Code.BATCH_LIMIT if halt.kind is HaltKind.LIMITED else Code.CANCELLED
    return Ended(Status.CANCELLED, code, halt.reason)


class Halting:
    """Keeps `halts` current, and does what they ask of documents.

    Args:
        store: Where halts are kept.
        halts: What the other parts of this worker heed.
        told: Called when anything was halted or goes on.
    """

    def __init__(self, store: ControlStore, halts: Halts, told: Sequence[Callable[[], None]]) -> None:
        self._store = store
        self._halts = halts
        self._told = told
        self._mine: set[str] = set()
        self._asked = asyncio.Event()
        self._restless_until = self._calm_until = 0.0
        self._events = Events("worker.halts")
        self.ticked_at = time.monotonic()

    def hurry(self, scope: str) -> None:
        """Look at once: this worker was told of a halt, and is the one to tell the documents."""
        self._mine.add(scope)
        self.stir()
        self._asked.set()

    def stir(self) -> None:
        """See more often for a while what is left to be done: there is news."""
        self._restless_until = asyncio.get_running_loop().time() + RESTLESS_S

    async def begin(self) -> None:
        """Know what is halted before anything can be taken."""
        await until_known(self._learn, self._events, "halts")

    async def run(self) -> None:
        """Learn and do, for ever, side by side."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._do_for_ever())
            while True:
                self.ticked_at = time.monotonic()
                try:
                    await self._learn()
                except StoreUnknownError as error:
                    self._events.warning("halts.unknown", reason=str(error))
                await self._rest()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(LOOK_S):
                await self._asked.wait()
        except TimeoutError:
            return
        self._asked.clear()

    async def _learn(self) -> None:
        if self._halts.learn(await self._store.halts()):
            self._events.info("halts.changed", halts=[f"{halt.kind} {halt.scope}" for halt in self._halts.known])
            self._changed()

    def _changed(self) -> None:
        self.stir()
        for tell in self._told:
            tell()

    async def _do_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            now = asyncio.get_running_loop().time()
            if self._halts.unapplied() or now < self._restless_until or now >= self._calm_until:
                self._calm_until = now + CALM_S
                await self._try_to_do()

    async def _try_to_do(self) -> None:
        try:
            await self.do()
        except StoreUnknownError as error:  # each of its writes may be done again
            self.stir()
            self._events.warning("halts.undone", reason=str(error))

    async def do(self) -> None:
        """Tell documents of halts, have those go on whose batch was resumed, and run again what waited for its result to be out."""
        for halt in self._halts.unapplied():
            if halt.scope in self._mine or datetime.now(UTC) - halt.at > TAKE_OVER:
                await self._store.apply(halt)
                self._mine.discard(halt.scope)
        for batch in await self._store.parked():
            while not self._halts.is_paused(batch) and await self._store.unpark(batch, UNPARK_AT_ONCE):
                self._changed()
        if await self._store.rerun_published():
            self._changed()
