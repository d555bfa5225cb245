"""Follows batches to their end: workers have read all that was sent, and no job of them is left that has not ended."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker import kafka, mongo
from broker.cli import database, queries, screen
from broker.cli.formats import meaning
from broker.settings import Settings

_SHORTEST_PAUSE_S = 0.3
_PAUSE_SHARE = 4  # counting may take a fifth of the time
_REMARK_S = 15.0

Batches = Mapping[tuple[str, str], int]
Ends = Mapping[kafka.TopicPartition, int]


@dataclass(slots=True, frozen=True)
class Followed:
    """What became of the jobs of the followed batches."""

    states: dict[str, int]
    codes: list[dict[str, Any]]

    @property
    def all_succeeded(self) -> bool:
        """Whether none ended otherwise."""
        return set(self.states) <= {"succeeded"}

    def report(self, *, as_json: bool) -> None:
        """Write the summary."""
        if as_json:
            screen.write_json({"event": "ended", "states": self.states, "codes": self.codes})
            return
        screen.write_table("Ended", ["state", "jobs"], sorted(self.states.items()))
        if self.codes:
            rows = [(entry["state"], entry["code"], entry["jobs"], meaning(entry["code"])) for entry in self.codes]
            screen.write_table("Did not succeed", ["state", "code", "jobs", "what to do"], rows)


async def follow(settings: Settings, priority: str, ends: Ends, batches: Batches) -> Followed:
    """Stay until all jobs of these (tenant, batch) have ended, showing how far they are.

    Raises:
        MongoMissing: It cannot be reached; the jobs go on.
        KafkaMissing: The same.
    """
    async with database.opened(settings) as opened, kafka.admin(settings) as admin:
        with screen.progress() as bars:
            bar = bars.add_task("jobs ended", total=sum(batches.values()))
            remarks = _Remarks(opened, sum(batches.values()))
            read = not batches
            while True:
                begun = time.monotonic()
                read = read or await _read_up_to(admin, settings.group(priority), ends)
                states = await database.state_counts(opened, queries.batch_counts(batches))
                ended = sum(count for state, count in states.items() if state in queries.TERMINAL)
                bars.update(bar, completed=ended)
                if read and ended == sum(states.values()):
                    break
                await remarks.make(ended)
                await asyncio.sleep(max(_SHORTEST_PAUSE_S, _PAUSE_SHARE * (time.monotonic() - begun)))
        codes = await database.listed(opened, "jobs", queries.batch_codes(batches))
    return Followed(states, [queries.code_row(entry) for entry in codes])


async def _read_up_to(admin: kafka.AIOKafkaAdminClient, group: str, ends: Ends) -> bool:
    """Whether the workers' group has read, and kept, everything before `ends`."""
    try:
        done = await admin.list_consumer_group_offsets(group)
    except kafka.KafkaError:  # its coordinator moves or is being made; asked again in a moment
        return False
    offsets = {place: offset.offset for place, offset in done.items()}
    return all(offsets.get(place, 0) >= end for place, end in ends.items())


@dataclass(slots=True)
class _Remarks:
    """What is said beside the bar from time to time: how far it is, and that nobody works."""

    opened: mongo.Database
    total: int
    said_at: float = 0.0

    async def make(self, ended: int) -> None:
        if not self.said_at:
            self.said_at = time.monotonic()
        if time.monotonic() - self.said_at < _REMARK_S:
            return
        self.said_at = time.monotonic()
        alive = await database.listed(self.opened, "workers", queries.live_workers())
        if not alive:
            screen.say("no worker is alive; start one with `aibroker worker`, or everything with `aibroker up`")
        else:
            screen.say(f"{min(ended, self.total):,} of {self.total:,} jobs have ended; Ctrl-C stops only the watching")
