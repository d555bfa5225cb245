"""Follows batches to their end: workers have read all that was sent, and no job of them is left that has not ended."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker import kafka, mongo
from broker.cli import database, queries, screen
from broker.cli.formats import meaning
from broker.cli.upload import Ends
from broker.settings import Settings

_SHORTEST_PAUSE_S = 0.3
_PAUSE_SHARE = 4  # counting may take a fifth of the time
_REMARK_S = 15.0

Batches = Mapping[tuple[str, str], int]


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


async def follow(settings: Settings, priority: str, ends: Ends, batches: Batches, *, theirs_alone: bool) -> Followed:
    """Stay until all jobs of these (tenant, batch) have ended, showing how far they are.

    Args:
        settings: Where Kafka and MongoDB are.
        priority: Whose workers read what was sent.
        ends: Where its topic ended after the sending.
        batches: How many jobs were sent for each.
        theirs_alone: No other jobs can be in these batches, so that none is missing once there are as many as were sent.

    Raises:
        MongoMissing: It cannot be reached; the jobs go on.
        KafkaMissing: The same.
    """
    async with database.opened(settings) as opened, kafka.admin(settings) as admin:
        with screen.progress() as bars:
            bar = bars.add_task("jobs ended", total=sum(batches.values()))
            total = sum(batches.values())
            remarks = _Remarks(opened, total)
            unread = 1 if batches else 0
            while True:
                begun = time.monotonic()
                unread = unread and await _unread(admin, settings.group(priority), ends)
                states = await database.state_counts(opened, queries.batch_counts(batches))
                ended = sum(count for state, count in states.items() if state in queries.TERMINAL)
                bars.update(bar, completed=ended)
                all_there = not unread or (theirs_alone and sum(states.values()) >= total)
                if all_there and ended == sum(states.values()):
                    break
                await remarks.make(ended, unread)
                await asyncio.sleep(max(_SHORTEST_PAUSE_S, _PAUSE_SHARE * (time.monotonic() - begun)))
        codes = await database.listed(opened, "jobs", queries.batch_codes(batches))
    return Followed(states, [queries.code_row(entry) for entry in codes])


async def _unread(admin: kafka.AIOKafkaAdminClient, group: str, ends: Ends) -> int:
    """How many records before `ends` the workers' group has not read and kept."""
    try:
        done = await admin.list_consumer_group_offsets(group)
    except kafka.KafkaError:  # its coordinator moves or is being made; asked again in a moment
        return sum(ends.values())
    offsets = {place: offset.offset for place, offset in done.items()}
    return sum(max(0, end - max(0, offsets.get(place, 0))) for place, end in ends.items())


@dataclass(slots=True)
class _Remarks:
    """What is said beside the bar from time to time: how far it is, and that nobody works."""

    opened: mongo.Database
    total: int
    said_at: float = 0.0

    async def make(self, ended: int, unread: int) -> None:
        if not self.said_at:
            self.said_at = time.monotonic()
        if time.monotonic() - self.said_at < _REMARK_S:
            return
        self.said_at = time.monotonic()
        alive = await database.listed(self.opened, "workers", queries.live_workers())
        if not alive:
            screen.say("no worker is alive; start one with `aibroker worker`, or everything with `aibroker up`")
        else:
            reading = f", about {unread:,} records are not read yet" if unread else ""
            screen.say(
                f"{min(ended, self.total):,} of {self.total:,} jobs have ended{reading}; Ctrl-C stops only the watching"
            )
