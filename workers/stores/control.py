"""What the control messages ask of a store: marks on jobs, halts of whole scopes, and what becomes of sealed batches.

Each control record is done once by its offset (`seq`): later ones win, a repeated or late one is refused in silence. Offsets of one job, one batch,
one tenant come from one partition each and compare only there: what a batch's record does to its jobs leaves their own `control_seq` alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol

from schemas.codes import Code
from workers.stores.protocol import Address, Store

EVERYTHING = "*"
"""The scope of everything; a tenant's is its name, a batch's is `<tenant>/<batch id>`."""
PARKED = "paused:"
"""What the `wait_key` of a job that waits for its batch to be resumed begins with; the batch follows."""
NEVER = datetime(9999, 1, 1, tzinfo=UTC)
"""When a parked job is due by itself."""


class HaltKind(StrEnum):
    """Why jobs of a scope do not run."""

    PAUSED = "paused"  # they wait until it is resumed
    CANCELLED = "cancelled"  # they end, those that arrive later, too
    LIMITED = "limited"  # the batch has passed a limit of its seal: they end, running calls go on


@dataclass(slots=True, frozen=True)
class Halt:
    """A mark that keeps the jobs of a scope from running."""

    scope: str
    kind: HaltKind
    seq: int
    reason: str
    at: datetime  # by the database's clock
    applied: bool = False  # the documents that were there know of it; a tenant's, or everything's, need not

    def meets(self, generation: int, arrived_at: datetime) -> bool:
        """Whether it holds for a job of its scope: what ends jobs leaves alone those that somebody ran again afterwards."""
        return self.kind is HaltKind.PAUSED or generation == 1 or arrived_at < self.at


@dataclass(slots=True, frozen=True)
class Seal:
    """That a batch is complete, and within which limits it may go on."""

    id: str  # "<tenant>/<batch id>"
    tenant: str
    batch_id: str
    total: int
    reply: Address | None
    seq: int
    max_cost_usd: Decimal | None = None
    max_errors: int | None = None
    max_error_rate: float | None = None


@dataclass(slots=True, frozen=True)
class Sealed:
    """A sealed batch whose turn it is to be looked at."""

    seal: Seal
    limited: str | None = None  # which limit it has passed, a sentence
    event: Mapping[str, Any] | None = None  # its completion event, frozen when it was complete first
    ended: int = -1  # how many of its jobs had ended at the last look
    pause_s: float = 0.0  # how long it has not been looked at


class ControlStore(Store, Protocol):
    """The verbs of control."""

    # -- jobs -----------------------------------------------------------------------------------------------------------------
    async def cancel(self, job: str, seq: int, reason: str) -> Code | None:
        """Mark a job, or a stub, as cancelled and make it due now; the code tells that it has ended."""

    async def cancelled(self) -> list[tuple[str, str]]:
        """(id, reason) of jobs claimed by us that carry a cancel."""

    async def cancelled_waiting(self, limit: int) -> list[str]:
        """Ids of up to `limit` waiting jobs that carry a cancel: they are to end, whatever is queued before them."""

    async def overdue(self, now: datetime, limit: int) -> list[str]:
        """Ids of up to `limit` waiting jobs whose deadline has passed, made due now if they were not: whoever awaits them is to be told."""

    async def rerun(self, job: str, seq: int) -> Code | None:
        """Start the next generation of a job that has ended without success; the code tells why not.

        Where its result is still on its way out the wish is kept, and `rerun_published` fulfils it.
        """

    async def rerun_published(self) -> int:
        """Start the next generation of jobs that were to be run again as soon as their results are out; return how many."""

    # -- halts ----------------------------------------------------------------------------------------------------------------
    async def halt(self, scope: str, kind: HaltKind | None, seq: int, *, reason: str = "") -> None:
        """Halt a scope, or let it go on (None)."""

    async def halts(self) -> list[Halt]:
        """Every scope that is halted now, batches that have passed a limit included."""

    async def apply(self, halt: Halt) -> None:
        """Let a batch's documents know of a halt.

        Those of a cancelled one that go on are marked; those that wait are due now if it passed a limit, and wait for it if it is paused and they
        were due.
        """

    async def park(self, ids: Sequence[str], batch: str) -> int:
        """Have those of these waiting jobs that are of a paused batch and not cancelled wait for it; return how many."""

    async def parked(self) -> list[str]:
        """The batches that jobs wait for."""

    async def unpark(self, batch: str, limit: int) -> int:
        """Make up to `limit` of the jobs that wait for a batch due again, as of their arrival; return how many."""

    # -- batches --------------------------------------------------------------------------------------------------------------
    async def seal(self, seal: Seal) -> Code | None:
        """Keep that a batch is complete, and have it looked at; the code tells that more jobs than `total` have arrived."""

    async def look(self, now: datetime, again_at: datetime) -> Sealed | None:
        """A sealed batch that is to be looked at by `now`; unless `watch` says otherwise it is looked at again at `again_at`."""

    async def counts(self, batch: str) -> dict[str, int]:
        """How many jobs of a batch are in which state."""

    async def any_unpublished(self, batch: str) -> bool:
        """Whether the ledger row or the result of any finished job of a batch is still on its way."""

    async def billed(self, tenant: str, batch_id: str) -> Decimal:
        """What a batch has cost its tenant, in dollars."""

    async def limit(self, seal: Seal, sentence: str) -> None:
        """Keep that a batch has passed a limit of this seal."""

    async def complete(self, seal: Seal, event: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Freeze the completion event; the answer is the one that is kept, or None where a later seal came."""

    async def watch(self, sealed: Sealed, at: datetime) -> None:
        """Have a batch looked at again at `at`, remembering what this look saw."""

    async def unwatch(self, seal: Seal) -> None:
        """Nothing is left to be done for this seal."""
