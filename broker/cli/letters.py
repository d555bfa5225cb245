"""Dead letters as the command sees them: read from `jobs.dead`, and made the records again that they were."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broker import kafka
from broker.errors import UsageError
from broker.lanes import Record
from broker.settings import Settings

OURS = "aibroker-"
"""What the names of the headers that say why a record is here begin with."""
_POLL_MS = 500
_AT_ONCE = 500
_SHOWN_BYTES = 10_000


@dataclass(slots=True, frozen=True)
class Letter:
    """One record of `jobs.dead`."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    @property
    def place(self) -> str:
        """Where it stands, as it is typed: `<partition>/<offset>`."""
        return f"{self.partition}/{self.offset}"

    def said(self, name: str) -> str:
        """What one of our headers says, "" where it is not there."""
        return (dict(self.headers).get(OURS + name) or b"").decode("utf-8", "replace")

    def row(self) -> dict[str, Any]:
        """What is told of it in a listing, in stable keys."""
        told = {name: self.said(name) for name in ("reason", "message", "topic", "partition", "offset", "at")}
        was = f"{told['partition']}/{told['offset']}"
        return {
            "place": self.place,
            "at": told["at"],
            "reason": told["reason"],
            "topic": told["topic"],
            "was": was,
            "bytes": len(self.value) if self.value is not None else None,
            "message": told["message"],
        }

    def whole(self) -> dict[str, Any]:
        """The same with its key, headers and content; what is no text is in hexadecimal digits."""
        return {
            **self.row(),
            "key": _shown(self.key),
            "headers": [(name, _shown(content)) for name, content in self.headers if not name.startswith(OURS)],
            "value": _shown(self.value),
        }

    def record(self, settings: Settings, counts: Mapping[str, int]) -> Record:
        """The record that it was, for the topic and partition from which it came.

        Raises:
            UsageError: That place is none of this deployment's.
        """
        topic, partition = self.said("topic"), self.said("partition")
        before = settings.topic("jobs.")
        known = counts.get(topic.removeprefix(settings.topic("")), 0)
        if not topic.startswith(before) or not partition.isdigit() or int(partition) >= known:
            raise UsageError(
                f"{self.place}: it came from {topic or 'nowhere'}, partition {partition or 'none'}, which is no place of this deployment"
            )
        kept = [(name, content) for name, content in self.headers if not name.startswith(OURS)]
        return Record(topic, self.value, self.key, kept, int(partition))


def _shown(content: bytes | None) -> str | None:
    """Bytes as people read them."""
    if content is None:
        return None
    cut = content[:_SHOWN_BYTES]
    more = f"... and {len(content) - len(cut):,} bytes more" if len(content) > len(cut) else ""
    try:
        return cut.decode() + more
    except UnicodeDecodeError as error:
        if more and error.start >= len(cut) - 3:  # the cut went through a character
            return cut[: error.start].decode() + more
        return cut.hex() + more


def place(text: str) -> tuple[int, int]:
    """Partition and offset of a letter as they are typed.

    Raises:
        UsageError: They are none.
    """
    partition, _, offset = text.partition("/")
    if not (partition.isdigit() and offset.isdigit()):
        raise UsageError(f"{text!r} is no place of a dead letter; `aibroker dead list` shows them, such as 2/17")
    return int(partition), int(offset)


async def letters(settings: Settings, since: datetime | None = None) -> AsyncIterator[Letter]:
    """Every dead letter that is kept, or those from a moment on; each partition's in order.

    Raises:
        KafkaMissing: Kafka does not answer.
    """
    async with _reader(settings) as (reader, places):
        with kafka.reaching(settings):
            starts, ends = await _span(reader, places, since)
        left = {at for at in places if starts[at] < ends[at]}
        reader.assign(left)
        for at in left:
            reader.seek(at, starts[at])
        while left:
            for at, records in (await reader.getmany(*left, timeout_ms=_POLL_MS, max_records=_AT_ONCE)).items():
                for record in records:
                    if record.offset < ends[at]:  # what came later may be what was just put back
                        yield _letter(record)
            left = {at for at in left if await reader.position(at) < ends[at]}


async def _span(reader: Any, places: list[Any], since: datetime | None) -> tuple[dict[Any, int], dict[Any, int]]:  # noqa: ANN401 aiokafka publishes no types
    """The first and the next offset of what is to be read of each partition."""
    ends, starts = await reader.end_offsets(places), await reader.beginning_offsets(places)
    if since is not None:
        found = await reader.offsets_for_times(dict.fromkeys(places, int(since.timestamp() * 1000)))
        starts = {at: found[at].offset if found.get(at) else ends[at] for at in places}
    return starts, ends


async def letter(settings: Settings, partition: int, offset: int) -> Letter:
    """One dead letter.

    Raises:
        UsageError: There is none in that place (any more).
    """
    async with _reader(settings) as (reader, places):
        at = kafka.TopicPartition(settings.topic("jobs.dead"), partition)
        with kafka.reaching(settings):
            known = at in places and (await reader.beginning_offsets([at]))[at] <= offset
            known = known and offset < (await reader.end_offsets([at]))[at]
        if known:
            reader.assign([at])
            reader.seek(at, offset)
            record = (await reader.getmany(at, timeout_ms=10_000, max_records=1)).get(at, [None])[0]
            if record is not None and record.offset == offset:
                return _letter(record)
    raise UsageError(
        f"there is no dead letter {partition}/{offset}, or no longer; `aibroker dead list` shows what there is"
    )


@asynccontextmanager
async def _reader(settings: Settings) -> AsyncIterator[tuple[Any, list[Any]]]:
    counts = await kafka.partition_counts(settings)
    topic = settings.topic("jobs.dead")
    reader = kafka.consumer(settings, reset="earliest")
    try:
        with kafka.reaching(settings):
            await reader.start()
        yield reader, [kafka.TopicPartition(topic, number) for number in range(counts.get("jobs.dead", 0))]
    finally:
        await reader.stop()


def _letter(record: kafka.ConsumerRecord) -> Letter:
    return Letter(record.partition, record.offset, record.key, record.value, tuple(record.headers))
