"""Follows a batch: every result of its jobs, from whichever process submitted them, as it is published."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from pydantic import ValidationError

from broker import kafka
from broker.client.replies import REPLY_TOPIC
from broker.settings import Settings
from schemas.result import RESULT_TYPE, Result

FOLLOWED = ("results", REPLY_TOPIC)
"""The topics that are read; a job with another `reply_to` is not seen."""
_POLL_MS = 500
_AT_ONCE = 500


@dataclass(slots=True, frozen=True)
class Batch:
    """Whose batch is followed, and from when on."""

    tenant: str
    id: str
    since: datetime


async def results(
    settings: Settings, counts: Mapping[str, int], batch: Batch, total: int | None
) -> AsyncIterator[Result]:
    """Give the results of a batch's jobs, each job's once a generation; end after `total` jobs, or never."""
    sieve = Sieve(batch)
    async with _reader(settings, counts, batch.since) as reader:
        while total is None or len(sieve.seen) < total:
            try:
                read = await reader.getmany(timeout_ms=_POLL_MS, max_records=_AT_ONCE)
            except kafka.OffsetOutOfRangeError as error:  # the oldest that is left is all that there is
                await reader.seek_to_beginning(*error.args[0])
                continue
            for records in read.values():
                for record in records:
                    result = sieve.take(record.key, record.value, record.headers)
                    if result is not None:
                        yield result


class Sieve:
    """Tells the results of one batch from all others, before decoding where that can be; pure.

    Attributes:
        seen: The generation of the newest result of each job.
    """

    def __init__(self, batch: Batch) -> None:
        self.seen: dict[str, int] = {}
        self._batch = batch
        self._owner = f"{batch.tenant}/".encode()
        self._mark = b'"batch_id":' + orjson.dumps(batch.id)

    def take(self, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> Result | None:
        """Return the record's result if it is one of the batch that was not here before."""
        if key is None or value is None or not key.startswith(self._owner) or self._mark not in value:
            return None
        named = dict(headers)
        if named.get("ce_type", RESULT_TYPE.encode()) != RESULT_TYPE.encode():
            return None
        try:
            result = Result.model_validate_json(value)
        except ValidationError:
            return None
        ours = result.batch_id == self._batch.id and result.tenant == self._batch.tenant
        if not ours or result.generation <= self.seen.get(result.job_id, -1):
            return None
        self.seen[result.job_id] = result.generation
        return result


@asynccontextmanager
async def _reader(settings: Settings, counts: Mapping[str, int], since: datetime) -> AsyncIterator[Any]:
    """A consumer of all partitions of the followed topics, standing at the first record that is not older than `since`."""
    places = [kafka.TopicPartition(settings.topic(name), n) for name in FOLLOWED for n in range(counts.get(name, 0))]
    reader = kafka.consumer(settings, reset="none")
    try:
        with kafka.reaching(settings):
            await reader.start()
            reader.assign(places)
            at_ms = int(since.timestamp() * 1000)
            found = await reader.offsets_for_times(dict.fromkeys(places, at_ms))
            ends = await reader.end_offsets(places)
        for place in places:
            reader.seek(place, found[place].offset if found.get(place) else ends[place])
        yield reader
    finally:
        await reader.stop()
