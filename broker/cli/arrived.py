"""What of a file Kafka has already: a note beside the file says where its jobs begin in their topic, which is read from there.

So a submission that was killed goes on with what is missing, whatever it saw last: Kafka alone knows what arrived. The note is made before the
first job is sent and removed when all is done; where it is lost, everything is sent again, which the jobs' ids make harmless.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from broker import kafka
from broker.cli import screen
from broker.cli.lines import JobLine
from broker.cli.seen import Seen
from broker.codec import digest
from broker.settings import Settings

Ends = Mapping[kafka.TopicPartition, int]
"""Where topics end: the offset of the next record of each partition."""

_PATIENCE = 20  # empty answers in a row: what lies behind an open transaction is sent again
_WAIT_MS = 500
_AT_ONCE = 500  # all that was fetched would be tens of megabytes of small objects
_PARTITION_BYTES = 262_144


@dataclass(slots=True)
class Arrived:
    """Jobs that stand in a topic, by id, operation and body: 16 bytes a job."""

    count: int = 0
    _seen: Seen = field(default_factory=Seen)

    def add(self, value: bytes | None) -> None:
        """Remember a record's job."""
        try:
            job = orjson.loads(value or b"")
        except orjson.JSONDecodeError:  # somebody else's
            return
        if isinstance(job, dict) and self._seen.add(_mark(job.get("tenant"), job.get("id"), job)):
            self.count += 1

    def holds(self, line: JobLine) -> bool:
        """Whether a line's job is there; another body under the same id is another job, which somebody has to be told of."""
        return bool(self.count) and self._seen.holds(_mark(line.tenant, line.job_id, line.job))


def _mark(tenant: object, job_id: object, job: Mapping[str, Any]) -> str:
    return f"{tenant}/{job_id}/{digest(job).hex()}"


@dataclass(slots=True, frozen=True)
class Note:
    """The note of one file, None for one that has no name."""

    path: Path | None

    @classmethod
    def beside(cls, file: str) -> "Note":
        """The note of a file that is named as on the command line."""
        return cls(None if file == "-" else Path(f"{file}.sent"))

    async def resume(self, settings: Settings, ends_now: Callable[[], Awaitable[Ends]]) -> Arrived:
        """Say which jobs have arrived since the note was made, and make one where there is none of this Kafka and topic."""
        cluster, ends = (await kafka.check(settings)).id, await ends_now()
        begins = self._begins(cluster, ends)
        arrived = Arrived()
        if begins is not None:
            await _read(settings, begins, ends, arrived)
            later = await ends_now()  # what a killed submitter had under way may land a moment after its end
            await _read(settings, ends, later, arrived)
        if not arrived.count:
            self._write(cluster, ends)
        return arrived

    def remove(self) -> None:
        """Everything is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _begins(self, cluster: str, ends: Ends) -> Ends | None:
        """Where the file's jobs begin in the topic; None where the note is of another one, or none."""
        if self.path is None:
            return None
        try:
            found = orjson.loads(self.path.read_bytes())
            if found["cluster"] != cluster:
                return None
            return {place: int(found["from"][place.topic].get(str(place.partition), 0)) for place in ends}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None

    def _write(self, cluster: str, ends: Ends) -> None:
        if self.path is None:
            return
        begins: dict[str, dict[str, int]] = {}
        for place, offset in ends.items():
            begins.setdefault(place.topic, {})[str(place.partition)] = offset
        draft = self.path.with_name(f".{self.path.name}")
        try:
            draft.write_bytes(orjson.dumps({"cluster": cluster, "from": begins}))
            draft.replace(self.path)
        except OSError as error:
            screen.say(
                f"no note can be kept beside the file ({error.strerror}): if this is interrupted, all is sent again; no job runs twice"
            )


async def _read(settings: Settings, begins: Ends, ends: Ends, into: Arrived) -> None:
    """Read what stands between these places; what retention has taken is not there."""
    reader = kafka.consumer(settings, partition_bytes=_PARTITION_BYTES)
    with kafka.reaching(settings):
        await reader.start()
        try:
            kept = await reader.beginning_offsets(list(ends))
            begin = {place: max(begins.get(place, 0), kept[place]) for place in ends}
            left = {place: end for place, end in ends.items() if begin[place] < end}
            reader.assign(list(left))
            for place in left:
                reader.seek(place, begin[place])
            empty = 0
            while left and empty < _PATIENCE:
                got = await reader.getmany(timeout_ms=_WAIT_MS, max_records=_AT_ONCE)
                empty = 0 if got else empty + 1
                for records in got.values():
                    for record in records:
                        into.add(record.value)
                for place in [place for place, end in left.items() if await reader.position(place) >= end]:
                    reader.pause(place)
                    del left[place]
        finally:
            await reader.stop()
