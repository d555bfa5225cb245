"""Which document or dead letter each accepted record became, found by the wire's words alone."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.faults.history import Document, History, Place, Record, parsed

TERMINAL = frozenset({"succeeded", "failed", "rejected", "expired", "cancelled", "dead"})
"""The states in which a job has ended."""
STUB = "announced"

Problems = Iterator[str]
"""Sentences, each of which says what is wrong with one thing."""


@dataclass(frozen=True)
class Asked:
    """What a record asks for: who, which job (None where it names none), what work, and where the result shall go."""

    tenant: str
    job_id: str | None
    work: str
    metadata: str
    reply_to: str
    reply_partition: int | None


def asked(record: Record) -> Asked | None:
    """What the record asks for; None where it cannot be a job of anybody."""
    content = parsed(record.value)
    event_id = record.header("ce_id")
    if isinstance(content, dict) and (record.header("content-type") or "").startswith("application/cloudevents"):
        event_id, content = content.get("id"), content.get("data")
    if not isinstance(content, dict):
        return None
    tenant, job_id = content.get("tenant", "default"), content.get("id", event_id)
    if not isinstance(tenant, str) or not isinstance(job_id, str | None):
        return None
    reply, partition = content.get("reply_to", "results"), content.get("reply_partition")
    return Asked(
        tenant,
        job_id,
        canonical([content.get("operation", "chat"), content.get("body")]),
        canonical(content.get("metadata")),
        reply if isinstance(reply, str) else "results",
        partition if isinstance(partition, int) else None,
    )


def canonical(value: Any) -> str:  # noqa: ANN401 any JSON value
    """The same text for the same JSON value."""
    return json.dumps(value, sort_keys=True)


class Links:
    """Records, documents and dead letters of one history, joined."""

    def __init__(self, history: History) -> None:
        self.documents: dict[str, Document] = {d["_id"]: d for d in history.documents if d["state"] != STUB}
        self.asked: dict[Place, Asked | None] = {record.place: asked(record) for record in history.records}
        self.dead: dict[Place, list[Record]] = defaultdict(list)
        for letter in history.dead:
            self.dead[_origin(letter, history.prefix)].append(letter)
        self.document_of: dict[Place, str] = {}
        self.records_of: dict[str, list[Record]] = defaultdict(list)
        self._join(record for record in history.records if record.place not in self.dead)

    def _join(self, records: Iterable[Record]) -> None:
        """Join by the id; what has none is joined by its metadata, which the payload says and the result echoes."""
        unnamed = []
        for record in records:
            wanted = self.asked[record.place]
            if wanted is not None and wanted.job_id is None:
                unnamed.append((record, wanted))
            elif wanted is not None:
                self._link(record, f"{wanted.tenant}/{wanted.job_id}")
        free: dict[tuple[str, str], list[str]] = defaultdict(list)
        for key, document in self.documents.items():
            if key not in self.records_of:
                free[key.partition("/")[0], canonical(_metadata(document))].append(key)
        for record, wanted in unnamed:
            if found := free[wanted.tenant, wanted.metadata]:
                self._link(record, found.pop())

    def _link(self, record: Record, key: str) -> None:
        if key in self.documents:
            self.document_of[record.place] = key
            self.records_of[key].append(record)


def _metadata(document: Document) -> object:
    said = document.get("result") or parsed(document.get("payload"))
    return said.get("metadata") if isinstance(said, dict) else None


def _origin(letter: Record, prefix: str) -> Place:
    """The place that a dead letter says it came from; an impossible one where it does not say."""
    topic = letter.header("aibroker-topic") or ""
    try:
        partition, offset = int(letter.header("aibroker-partition") or -1), int(letter.header("aibroker-offset") or -1)
    except ValueError:
        return topic, -1, -1
    return topic.removeprefix(f"{prefix}.") if prefix else topic, partition, offset
