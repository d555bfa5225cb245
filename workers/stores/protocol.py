"""What the engine asks of a store: each verb is one kind of write that moves a job document, exactly as the protocol of the design has it.

The idea in three sentences: (owner, fence) never comes back; the payload is durable before the offset is done; death is declared in one place.
A write has three fates: answered; executed with the answer lost; executed later or never. The last two are `StoreUnknownError`, which is never
read as "no". Every write is acknowledged by a majority, and every read that decides is a majority read on the primary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol


class StoreUnknownError(Exception):
    """The outcome of the write or read is unknown: a timeout, a network error or a write-concern error."""


class State:
    """The states that are not terminal; the terminal ones are `schemas.result.Status`."""

    ANNOUNCED = "announced"  # a stub: control came before the job
    WAITING = "waiting"
    CLAIMED = "claimed"


class Address(NamedTuple):
    """Where a result goes: a topic without the deployment's prefix, and a partition or None for the key's."""

    topic: str
    partition: int | None = None


@dataclass(slots=True)
class NewJob:
    """A job as it is inserted: claimed by its reader, or waiting."""

    id: str  # "<tenant>/<job id>"
    uid: str
    tenant: str
    job_id: str
    priority: str
    payload: bytes
    digest: bytes
    reply: Address
    arrived_at: datetime
    batch_id: str | None = None
    trace: str | None = None  # W3C traceparent, and after a space the tracestate
    deadline: datetime | None = None  # after which it has expired, wherever it stands
    due_at: datetime | None = None  # given: waiting until then; None: claimed by us
    why_waiting: str | None = None
    wait_key: str | None = None

    @property
    def generation(self) -> int:
        """A job that arrives runs for the first time."""
        return 1


@dataclass(slots=True)
class Claim:
    """A job in our hands: claimed by us under this fence."""

    id: str
    uid: str
    generation: int
    fence: int
    tenant: str
    job_id: str
    priority: str
    payload: bytes
    arrived_at: datetime
    replies: tuple[Address, ...]
    replies_n: int
    batch_id: str | None = None
    trace: str | None = None
    attempts: int = 0
    takeovers: int = 0
    called: bool = False
    cancel: str | None = None  # the reason of a cancel that waits for its owner ("" without one)
    last_failure: str | None = None  # the code of what stood in its way last, in this generation


@dataclass(slots=True, frozen=True)
class Known:
    """What a majority read says about one document."""

    state: str
    owner: str | None
    fence: int
    generation: int
    digest: bytes | None
    replies: tuple[Address, ...]
    outbox: str | None
    cancel: str | None


class Insertion(StrEnum):
    """What became of one inserted document."""

    INSERTED = "inserted"
    DUPLICATE = "duplicate"  # the id is known: read it before the offset is done
    REFUSED = "refused"  # the document itself cannot be stored


class Fate(StrEnum):
    """What became of one write on (owner, fence)."""

    DONE = "done"  # written, now or by an earlier try whose answer was lost
    AGAIN = "again"  # still claimed under our fence and not written: the same again
    MARKED = "marked"  # a cancel came: finish it as cancelled instead (only `wait`)
    FENCED = "fenced"  # a majority read shows another (owner, fence)
    REFUSED = "refused"  # surely not written: the database does not take this document


@dataclass(slots=True)
class Waiting:
    """A claimed job that is put back."""

    id: str
    fence: int
    due_at: datetime
    why_waiting: str
    attempts: int
    wait_key: str | None = None  # what it waits on, such as "quota:tenant:acme:day"; `release` makes it due
    nothing_sent: bool = True  # surely no call is open, or of unknown outcome: `called` is taken back
    last_failure: str | None = None  # None: what the document says stays
    priority: str | None = None  # the one in which it waits from here on; None: its own
    deadline: datetime | None = None  # None: what the document says stays


class Row(dict[str, Any]):
    """A ledger row. It is written twice, with its job and into the ledger: `stored` is where a store may keep how it writes it."""

    __slots__ = ("stored",)

    stored: Any


@dataclass(slots=True)
class Finish:
    """The frozen outcome of a claimed job."""

    id: str
    fence: int
    state: str  # a terminal one
    result: dict[str, Any]  # as on the wire, amounts as Decimal128, instants as datetime
    row: dict[str, Any] | None  # the ledger row of the last attempt, `billed` true; None: nothing was used
    keep_payload: bool  # true unless it succeeded, so that it can be run again


class Unpublished(NamedTuple):
    """A finished document whose result is still in its outbox; everything that publishing needs."""

    id: str
    uid: str
    generation: int
    fence: int
    tenant: str
    job_id: str
    trace: str | None
    result: dict[str, Any]
    row: dict[str, Any] | None
    replies: tuple[Address, ...]
    replies_n: int
    token: str


class Published(NamedTuple):
    """One document whose ledger row and results are acknowledged."""

    id: str
    token: str
    replies_n: int


class Standing(StrEnum):
    """What an incarnation is in the eyes of the others."""

    LIVING = "living"
    DRAINING = "draining"  # somebody asked it to finish what runs and to end
    FENCED = "fenced"  # declared dead, or its lease is gone


@dataclass(slots=True, frozen=True)
class Lease:
    """The sign of life of another incarnation that has run out."""

    incarnation: str
    until: datetime


class Backlog(NamedTuple):
    """What waits in one priority: how many documents, when the first of them is, or was, due, and how large their payloads are."""

    documents: int = 0
    due_at: datetime | None = None
    bytes: int = 0


class Store(Protocol):
    """The documents of jobs, leases and the ledger. `owner` is this store's own incarnation; the verbs of control are in `control.py`."""

    owner: str

    # -- lease ------------------------------------------------------------------------------------------------------------
    async def start(self, lease_s: float, facts: dict[str, Any]) -> None:
        """Make indexes, insert our lease (host, version in `facts`) and set its end by the server's clock; claims may begin after it."""

    async def renew(self, lease_s: float, told: Mapping[str, Any] | None = None) -> Standing:
        """Prolong our lease and say how we stand; FENCED: nothing was written. Never upserts. Its own timeout is at most 5 s.

        What is `told` stands beside the lease from then on, with the server's time of its telling.
        """

    async def expired_leases(self) -> list[Lease]:
        """Leases of others, not fenced, that the server's clock says have run out."""

    async def fence(self, lease: Lease) -> bool:
        """Declare one dead, by equality on the `until` that was read; False: it renewed, or another was faster.

        The lease is removed a day after that by the server, whose clock sets its `fenced_at`; an owner without a lease stays dead.
        """

    async def sweep(self) -> int:
        """Put back to waiting, due now, takeovers + 1, what is claimed by owners that are fenced or have no lease; return how many.

        Owners are read from the documents first, leases afterwards. `fence` and `called` of the documents stay.
        """

    async def stop(self) -> None:
        """Remove our lease; only after nothing is claimed by us any more."""

    # -- the path of a job --------------------------------------------------------------------------------------------------
    async def insert(self, jobs: Sequence[NewJob]) -> list[Insertion]:
        """Insert, unordered; one outcome a job, in order. Every document is encoded alone first: one that cannot be is REFUSED alone."""

    async def read(self, ids: Sequence[str]) -> dict[str, Known]:
        """Majority read; an absent id is not in the answer."""

    async def merge(self, job: NewJob) -> Claim | None:
        """Make a stub a job, its marks and replies kept, fence + 1, claimed by us; None: it is no stub any more.

        A job with `due_at` waits instead (due now if the stub carries a cancel); the answer is then None, too.
        """

    async def adopt(self, id: str, fence: int) -> Claim | None:  # noqa: A002 the document's own word
        """Take up what is claimed by us under `fence` and no task holds, by a CAS that raises the fence; None: look again later."""

    async def unheld(self, limit: int) -> list[tuple[str, int]]:
        """(id, fence) of up to `limit` documents claimed by us, for the audit to compare with what tasks hold."""

    async def any_due(self, now: datetime) -> bool:
        """Whether any waiting job, of whatever priority and tenant, is due: one question, for who has nothing to do."""

    async def due_tenants(self, priority: str, now: datetime) -> list[str]:
        """Tenants with waiting jobs that are due, found by hopping over the index."""

    async def due(self, priority: str, tenant: str, now: datetime, limit: int) -> list[str]:
        """Ids of waiting jobs that are due, oldest first."""

    async def take(self, ids: Sequence[str], token: str, now: datetime) -> list[Claim]:
        """Claim those that still wait and are due: one `update_many`, then read back by the token."""

    async def mark_called(self, id: str, fence: int) -> Fate:  # noqa: A002 the document's own word
        """Note that a call may have started; needed only for `at_most_once`. DONE or FENCED."""

    async def wait(self, jobs: Sequence[Waiting]) -> list[Fate]:
        """Put claimed jobs back; one fate a job: DONE, AGAIN, MARKED, FENCED or REFUSED."""

    async def release(self, wait_key: str, limit: int) -> int:
        """Make up to `limit` of the jobs that wait on this key due now, oldest first; return how many."""

    async def finish(self, jobs: Sequence[Finish], token: str) -> list[Fate]:
        """Finish claimed jobs by CAS on (owner, fence), outbox = token; DONE, AGAIN, FENCED or REFUSED.

        DONE with what is stored by an earlier try of ours counts as DONE; its outbox may then hold the earlier try's token: a repeated
        finish is therefore sent with the same token.
        """

    async def ledger(self, rows: Sequence[dict[str, Any]]) -> list[Insertion]:
        """Insert rows by their `_id`, one outcome a row: DUPLICATE is done, too; REFUSED is one that the ledger does not take."""

    async def untold(self, limit: int, *, of_the_dead: bool) -> list[dict[str, Any]]:
        """Rows with the mark `untold`, without it: our own, or those of incarnations that are fenced or have no lease."""

    async def told(self, ids: Sequence[str]) -> None:
        """Take the mark of these rows away: their events are acknowledged."""

    async def unpublished(self, limit: int, *, of_the_dead: bool) -> list[Unpublished]:
        """Finished documents with an outbox: our own, or those of owners that are fenced or have no lease."""

    async def outboxes(self, ids: Sequence[str]) -> list[Unpublished]:
        """The same for these ids, whoever owns them; ids without an outbox are not in the answer."""

    async def published(self, done: Sequence[Published], expire_at: datetime) -> list[str]:
        """Clear outboxes by token and `replies_n` and set `expire_at`; ids of those that have to be published again (a reply address came)."""

    # -- replies and counting -------------------------------------------------------------------------------------------------
    async def add_reply(self, id: str, address: Address, token: str) -> bool:  # noqa: A002 the document's own word
        """Add an address (4 at most, the oldest goes); a terminal job gets `outbox: token`, so that its result is sent again.

        Absent: a stub is made that keeps the address. True: the result has to be published (the caller reads it with `outboxes`).
        An address that is there already is not added twice, but a terminal job's result is sent again all the same.
        """

    async def waiting(self, priority: str, limit: int) -> Backlog:
        """What waits in this priority, looked at up to `limit` documents."""

    async def aclose(self) -> None:
        """Give back connections."""
