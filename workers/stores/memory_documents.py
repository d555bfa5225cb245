"""What the store in memory holds, and how its dictionaries read as the Protocol's types."""

import copy
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from schemas.result import Status
from workers.stores.protocol import Address, Claim, Known, Unpublished

Job = dict[str, Any]
MAX_DOCUMENT_BYTES = 12_000_000
TERMINAL = frozenset(str(status) for status in Status)
_MAX_LEVELS = 178
_MAX_REPLIES = 4
_INT64 = 1 << 63


def _server_time() -> datetime:
    return datetime.now(UTC)


class MemoryDatabase:
    """What MongoDB would hold; `clock` stands in for the server's."""

    def __init__(self, clock: Callable[[], datetime] = _server_time) -> None:
        self.clock = clock
        self.jobs: dict[str, Job] = {}
        self.usage: dict[str, dict[str, Any]] = {}
        self.workers: dict[str, dict[str, Any]] = {}
        self.halts: dict[str, dict[str, Any]] = {}
        self.batches: dict[str, dict[str, Any]] = {}

    def dead(self, owner: str | None) -> bool:
        """Whether an owner is fenced or has no lease."""
        return "fenced" in self.workers.get(owner or "", {"fenced": True})


def add_address(job: Job, address: Address) -> None:
    """Add an address that is new; the oldest goes when there are too many."""
    if address not in job["replies"]:
        job["replies"] = [*job["replies"], address][-_MAX_REPLIES:]
        job["replies_n"] += 1


def claim(id_: str, job: Job) -> Claim:
    """A job that was just claimed."""
    names = ("uid", "generation", "fence", "tenant", "job_id", "priority", "payload", "arrived_at", "replies_n")
    fields = {name: job[name] for name in (*names, "batch_id", "trace", "attempts", "takeovers")}
    fields |= {"called": job.get("called", False), "cancel": job.get("cancel"), "last_failure": job.get("last_failure")}
    return Claim(id=id_, replies=tuple(job["replies"]), **fields)


def known(job: Job) -> Known:
    """What a read says of a job."""
    fields = {name: job[name] for name in ("state", "owner", "fence", "generation")}
    fields |= {name: job.get(name) for name in ("digest", "outbox", "cancel")}
    return Known(replies=tuple(job["replies"]), **fields)


def unpublished(id_: str, job: Job) -> Unpublished:
    """A finished job with its outbox."""
    names = ("uid", "generation", "fence", "tenant", "job_id", "trace", "replies_n")
    result, row = copy.deepcopy(job["result"]), copy.deepcopy(job.get("row"))
    fields = {name: job[name] for name in names}
    return Unpublished(id=id_, result=result, row=row, replies=tuple(job["replies"]), token=job["outbox"], **fields)


def storable(document: Any) -> bool:  # noqa: ANN401 whatever JSON and the ledger hold
    """Whether MongoDB would take a document: what BSON can hold, 12 MB, 178 levels below the document."""
    size = 0
    rest: list[tuple[Any, int]] = [(document, 0)]
    while rest:
        value, level = rest.pop()
        if level > _MAX_LEVELS:
            return False
        if isinstance(value, Mapping):
            if any("\x00" in name for name in value):
                return False
            rest.extend((inner, level + 1) for inner in (*value, *value.values()))
        elif isinstance(value, list | tuple):
            rest.extend((inner, level + 1) for inner in value)
        else:
            size += _size(value)
    return size <= MAX_DOCUMENT_BYTES


def _size(value: object) -> int:
    """The bytes of a value that holds no others; what BSON cannot hold is beyond all limits."""
    if isinstance(value, int):
        return 8 if -_INT64 <= value < _INT64 else MAX_DOCUMENT_BYTES + 1
    if isinstance(value, str):
        try:
            return len(value.encode())
        except UnicodeEncodeError:
            return MAX_DOCUMENT_BYTES + 1
    return len(value) if isinstance(value, bytes) else 8
