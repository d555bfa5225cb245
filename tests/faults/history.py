"""What happened in a run, as plain data: everything that the checker judges, however it was read."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any

Place = tuple[str, int, int]
"""Topic without the deployment's prefix, partition, offset."""
Document = Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """A Kafka record as it stands in its topic; `topic` is without the deployment's prefix."""

    topic: str
    partition: int
    offset: int
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.topic, self.partition, self.offset

    def header(self, name: str) -> str | None:
        """The text of its first header of that name."""
        return next((content.decode("utf-8", "replace") for key, content in self.headers if key == name), None)

    @cached_property
    def content(self) -> Any:  # noqa: ANN401 any JSON value
        """Its JSON value; None where it is none."""
        return parsed(self.value)


@dataclass(frozen=True)
class Kill:
    """One worker's end, or a line that was cut: when (unix seconds), who, and what was claimed in its name then.

    `held` are `<uid>/<generation>/<fence>`: the beginnings of the request ids of its calls. `until` is when a worker that was only stopped or
    cut off had to know that it is dead; 0 for one that was dead at once.
    """

    at: float
    incarnation: str
    held: frozenset[str]
    pid: int = 0
    how: str = ""
    until: float = 0.0


@dataclass(frozen=True)
class Limit:
    """What a tenant may spend, and how far above it the contract lets spend go."""

    tenant: str
    requests: int | None = None
    tokens: int | None = None
    usd: Decimal | None = None
    bound_requests: int = 0
    bound_tokens: int = 0
    bound_usd: Decimal = Decimal(0)


@dataclass(frozen=True)
class History:
    """A whole run: what went in, what came out, what was called, what was killed."""

    accepted: Sequence[Place] = ()  # what producers were told was acknowledged
    records: Sequence[Record] = ()  # the topics of jobs
    dead: Sequence[Record] = ()  # jobs.dead
    events: Sequence[Record] = ()  # results and results.*
    usage_events: Sequence[Record] = ()
    documents: Sequence[Document] = ()  # the collection jobs
    ledger: Sequence[Document] = ()  # the collection usage
    quotas: Sequence[Document] = ()
    calls: Sequence[Document] = ()  # the simulator's log
    committed: Mapping[tuple[str, int], int] = field(default_factory=dict)
    kills: Sequence[Kill] = ()
    limits: Sequence[Limit] = ()
    prefix: str = ""
    reassigned: frozenset[tuple[str, int]] = frozenset()
    """The partitions that were given out again once there was something to read: what nobody had committed was read, and buried, once more."""
    unacknowledged: frozenset[Place] = frozenset()
    """The records whose dead letter was sent once more, because Kafka did not say that it has it."""


def parsed(value: bytes | None) -> Any:  # noqa: ANN401 any JSON value
    """The JSON value of these bytes; None where they are none."""
    try:
        return json.loads(value) if value is not None else None
    except (ValueError, RecursionError):
        return None


def amount(value: object) -> Decimal:
    """An exact amount, from JSON (a string) or from BSON (a Decimal128)."""
    to_decimal = getattr(value, "to_decimal", None)
    return to_decimal() if to_decimal is not None else Decimal(str(value))


def kill_line(kill: Kill) -> str:
    """The kill log's line about one kill."""
    return json.dumps({**asdict(kill), "held": sorted(kill.held)}) + "\n"


def read_kills(lines: Iterable[str]) -> list[Kill]:
    """The kill log: JSON lines of `at`, `incarnation`, `held`, `pid`, `how`, `until`."""
    kills = [json.loads(line) for line in lines if line.strip()]
    return [
        Kill(k["at"], k["incarnation"], frozenset(k["held"]), k["pid"], k["how"], k.get("until", 0.0)) for k in kills
    ]
