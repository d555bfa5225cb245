"""Makes a batch of records durable: what is a job is inserted with its payload, what is none goes to `jobs.dead`; then its offsets are done.

A job that may run here now is inserted as claimed by us; one that may not (scheduled, no room, no good lease) is inserted as waiting. A duplicate is
read by a majority before its offset is done: an absent one is inserted again, a stub is merged, one that is ours by a lost answer is adopted.
"""

import asyncio
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from broker.codec import Decoded, NotAJob, Refusal, decode
from broker.events import Events
from schemas.codes import MEANING, Code
from schemas.result import Status
from workers.engine.dead_letters import Burial
from workers.engine.failpoints import Failpoints
from workers.engine.halts import rest
from workers.engine.hands import Hands
from workers.engine.inlet import Inlet
from workers.engine.persistence import FIRST_RETRY_S, LONGEST_RETRY_S
from workers.engine.record import Record
from workers.engine.slices import sliced
from workers.engine.taker import Taker
from workers.settle import refused_result
from workers.stores.control import HaltKind
from workers.stores.protocol import Address, Claim, Insertion, Known, NewJob, State, StoreUnknownError

_TERMINAL = frozenset(Status)
DUPLICATES_AT_ONCE = 20
"""Each may be a write of its own, and a rebalance brings thousands: all at once, they took every connection, and our lease was not renewed."""


@dataclass(slots=True)
class _Arrival:
    """A record that is a job, on its way into the store."""

    record: Record
    decoded: Decoded
    key: str  # "<tenant>/<job id>"
    reply: Address
    ours: bool = False  # its id was registered by this arrival and nothing else
    done: bool = False  # its offset is done; what had an unknown outcome is looked at again


class Intake:
    """What the readers hand their batches to.

    Args:
        inlet: What a record needs on its way in.
        hands: Take what may run now.
        taker: Is told of what waits and is due.
        failpoints: For tests.
    """

    def __init__(self, inlet: Inlet, *, hands: Hands, taker: Taker, failpoints: Failpoints) -> None:
        self._store, self._dead_letters = inlet.store, inlet.dead_letters
        self._publisher, self._topics = inlet.publisher, inlet.topics
        self._ready, self._registry, self._leases = hands.ready, hands.registry, hands.leases
        self._halts = hands.halts
        self._taker = taker
        self._failpoints = failpoints
        self._turns = asyncio.Semaphore(DUPLICATES_AT_ONCE)
        self._events = Events("worker.intake")

    async def keep(self, priority: str, records: Sequence[Record]) -> None:
        """Make a batch of one priority durable; back when its offsets are done."""
        burials: list[Burial] = []
        jobs: list[_Arrival] = []
        async for record in sliced(records):
            decoded = decode(record.value, record.headers, record.place)
            if isinstance(decoded, NotAJob):
                burials.append(await self._dead_letters.bury(record, decoded))
            else:
                jobs.append(_Arrival(record, decoded, decoded.key, await self._reply(decoded)))
        await self._insert_all(priority, jobs)
        self._failpoints.hit("after_insert")
        await self._dead_letters.kept(burials)

    async def _reply(self, decoded: Decoded) -> Address:
        """Where the result goes; an address that does not exist is answered on `results`."""
        address = Address(decoded.reply_topic, decoded.reply_partition)
        return address if self._topics.known(*address) or await self._topics.knows(*address) else Address("results")

    # -- what is a job ----------------------------------------------------------------------------------------------
    async def _insert_all(self, priority: str, arrivals: list[_Arrival]) -> None:
        wait_s = FIRST_RETRY_S
        left = arrivals
        while left:
            for arrival in left:
                arrival.ours = arrival.ours or self._registry.add_one(arrival.key)
            try:
                known = await self._insert(priority, [arrival for arrival in left if arrival.ours])
                await self._duplicates(priority, known + [arrival for arrival in left if not arrival.ours])
            except StoreUnknownError as error:
                self._events.warning("intake.unknown", reason=str(error), jobs=len(left), again_in_s=wait_s)
            left = [arrival for arrival in left if not arrival.done]
            if left:
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_RETRY_S)

    async def _insert(self, priority: str, arrivals: list[_Arrival]) -> list[_Arrival]:
        """Insert those that nothing else here holds; return those whose id is known."""
        if not arrivals:
            return []
        now = datetime.now(UTC)
        fits = self._fitting(priority)
        jobs = [self._new(priority, arrival, fits, now) for arrival in arrivals]
        outcomes = await self._store.insert(jobs)
        known: list[_Arrival] = []
        for arrival, job, outcome in zip(arrivals, jobs, outcomes, strict=True):
            arrival.done = outcome is not Insertion.DUPLICATE
            if outcome is Insertion.DUPLICATE:
                known.append(arrival)
            elif outcome is Insertion.REFUSED:
                await self._not_storable(arrival)
            elif job.due_at is None:
                self._ready.accept(_claimed(job), arrival.decoded.parsed)
            else:
                self._registry.discard([job.id])
        behind = {job.tenant for job in jobs if job.due_at is not None and job.due_at <= now}
        for tenant in behind:
            self._ready.fell_behind(priority, tenant)
        if behind:
            self._taker.wake()
        return known

    def _fitting(self, priority: str) -> Callable[[str, int], bool]:
        """Whether one more job of a tenant may come in; none before those of its own that wait already."""
        left = self._ready.room(priority) if self._leases.healthy() else 0
        left_bytes = self._ready.room_bytes(priority)
        rooms: dict[str, int] = {}

        def fits(tenant: str, size: int) -> bool:
            nonlocal left, left_bytes
            room = rooms.get(tenant)
            if room is None:
                behind = self._ready.is_behind(priority, tenant)
                room = 0 if behind else self._ready.room_for(priority, tenant)
            fitting = min(room, left) > 0 and size <= left_bytes
            rooms[tenant] = room - fitting
            left -= fitting
            left_bytes -= size if fitting else 0
            return fitting

        return fits

    def _new(self, priority: str, arrival: _Arrival, fits: Callable[[str, int], bool], now: datetime) -> NewJob:
        decoded = arrival.decoded
        job = decoded.parsed.job
        new = NewJob(
            id=arrival.key,
            uid=os.urandom(16).hex(),
            tenant=decoded.tenant,
            job_id=decoded.job_id,
            priority=priority,
            payload=decoded.payload,
            digest=decoded.digest,
            reply=arrival.reply,
            arrived_at=min(arrival.record.place.timestamp, now),
            batch_id=decoded.parsed.batch_id,
            trace=decoded.trace,
        )
        new.deadline = self._ready.deadline(priority, job, new.arrived_at)
        halt = self._halts.of(new)
        ends = halt is not None and halt.kind is not HaltKind.PAUSED
        scheduled = job.not_before if job is not None and self._ready.keeps(job, new.arrived_at) else None
        if not ends and scheduled is not None and scheduled > now:
            new.due_at, new.why_waiting = scheduled, "scheduled"
        elif halt is not None and not ends:
            new.due_at, new.why_waiting, new.wait_key = rest(halt, now)
        elif not fits(new.tenant, len(new.payload)):
            new.due_at, new.why_waiting = now, "queued"
        return new

    # -- what was known ----------------------------------------------------------------------------------------------
    async def _duplicates(self, priority: str, arrivals: list[_Arrival]) -> None:
        """Deal with arrivals whose id is known; an absent one is not visible yet, or not there: it is not done."""
        if not arrivals:
            return
        known = await self._store.read([arrival.key for arrival in arrivals])
        found = [(arrival, known[arrival.key]) for arrival in arrivals if arrival.key in known]
        dealt = (self._duplicate(priority, arrival, document) for arrival, document in found)
        outcomes = await asyncio.gather(
            *dealt, return_exceptions=True
        )  # all end, so that none is begun again meanwhile
        again = [outcome for outcome in outcomes if isinstance(outcome, str)]
        if again:
            await self._publisher.again(again)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _duplicate(self, priority: str, arrival: _Arrival, known: Known) -> str | None:
        """Deal with one, in its turn; return its id where its result has to be sent again."""
        async with self._turns:
            if known.state == State.ANNOUNCED:
                arrival.done = await self._merge(priority, arrival)
                return None
            again = await self._known(arrival, known)
            arrival.done = True
            return arrival.key if again else None

    async def _merge(self, priority: str, arrival: _Arrival) -> bool:
        job = self._new(priority, arrival, lambda _tenant, _size: True, now=datetime.now(UTC))
        claim = await self._store.merge(job) if arrival.ours and self._leases.healthy() else None
        if claim is not None:
            self._ready.accept(claim, arrival.decoded.parsed)
        return claim is not None

    async def _known(self, arrival: _Arrival, known: Known) -> bool:
        """Deal with a record of a job that is known; True: its result has to be sent again."""
        again, same = False, known.digest == arrival.decoded.digest
        if not same:
            await self._conflict(arrival)
        elif known.state in _TERMINAL or arrival.reply not in known.replies:
            again = await self._store.add_reply(arrival.key, arrival.reply, uuid.uuid4().hex)
        if same and arrival.ours and known.state == State.CLAIMED and known.owner == self._store.owner:
            await self._adopt(arrival, known)
        elif arrival.ours:
            self._registry.discard([arrival.key])
        return again

    async def _adopt(self, arrival: _Arrival, known: Known) -> None:
        """Take up what is ours by a lost answer: of our own insert, or of a take whose job was submitted again."""
        claim = await self._store.adopt(arrival.key, known.fence) if self._leases.healthy() else None
        if claim is None:
            self._registry.discard([arrival.key])  # the audit looks again
        else:
            self._ready.accept(claim)  # what the document says, which another record may have made

    async def _conflict(self, arrival: _Arrival) -> None:
        """Another job has this id: the bytes are kept, and who sent them is told."""
        decoded = arrival.decoded
        why = NotAJob(Code.ID_CONFLICT, MEANING[Code.ID_CONFLICT])
        result = refused_result(decoded, Refusal(why.code, why.message), datetime.now(UTC))
        told = await self._publisher.tell(result, decoded.key, arrival.reply, decoded.trace)
        buried = await self._dead_letters.bury(arrival.record, why)
        await asyncio.gather(told, return_exceptions=True)  # the bytes that are kept say the same
        await self._dead_letters.kept([buried])

    async def _not_storable(self, arrival: _Arrival) -> None:
        self._registry.discard([arrival.key])
        why = NotAJob(Code.UNDECODABLE, "the job cannot be stored as a document; look at its id, batch_id and headers")
        await self._dead_letters.keep(arrival.record, why)


def _claimed(job: NewJob) -> Claim:
    return Claim(
        id=job.id,
        uid=job.uid,
        generation=1,
        fence=1,
        tenant=job.tenant,
        job_id=job.job_id,
        priority=job.priority,
        payload=job.payload,
        arrived_at=job.arrived_at,
        replies=(job.reply,),
        replies_n=1,
        batch_id=job.batch_id,
        trace=job.trace,
    )
