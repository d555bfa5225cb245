"""Follows batches to their end: workers have read all that was sent, every job of them has ended, and every outcome is told and on the ledger."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from rich.progress import Progress, TaskID

from broker import kafka, mongo
from broker.cli import database, queries, screen
from broker.cli.arrived import Ends
from broker.cli.formats import meaning
from broker.cli.pace import Pace
from broker.settings import Settings
from schemas.money import plain

_SHORTEST_PAUSE_S = 0.3
_PAUSE_SHARE = 4  # counting may take a fifth of the time
_REMARK_S = 10.0

Batches = Mapping[tuple[str, str], int]


@dataclass(slots=True, frozen=True)
class Followed:
    """What became of the jobs of the followed batches, and what was billed for them."""

    states: dict[str, int]
    codes: list[dict[str, Any]]
    cost_usd: Decimal

    @property
    def all_succeeded(self) -> bool:
        """Whether none ended otherwise."""
        return set(self.states) <= {"succeeded"}

    def report(self, *, as_json: bool) -> None:
        """Write the summary."""
        if as_json:
            found = {"states": self.states, "codes": self.codes, "cost_usd": plain(self.cost_usd)}
            screen.write_json({"event": "ended", **found})
            return
        screen.write_table(f"Ended, {_dollars(self.cost_usd)}", ["state", "jobs"], sorted(self.states.items()))
        if self.codes:
            rows = [(entry["state"], entry["code"], entry["jobs"], meaning(entry["code"])) for entry in self.codes]
            screen.write_table("Did not succeed", ["state", "code", "jobs", "what to do"], rows)


@dataclass(slots=True, frozen=True)
class _Watched:
    """Batches, how many jobs they will have at least, whether no others can come, and how many records may hold some that nobody has read."""

    batches: Batches
    complete: bool
    unread: Callable[[], Awaitable[int]]

    @property
    def total(self) -> int:
        return sum(self.batches.values())


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

        async def unread() -> int:
            return await _unread(admin, settings.group(priority), ends) if batches else 0

        return await _watch(opened, _Watched(batches, theirs_alone, unread))


async def follow_batch(settings: Settings, tenant: str, batch: str) -> Followed:
    """Stay until all jobs of a batch that whoever submitted have ended, and nothing is unread that might belong to it; the same errors."""

    async def unread() -> int:
        return sum((await kafka.backlog(settings)).values())

    async with database.opened(settings) as opened:
        seal = await opened["batches"].find_one({"_id": f"{tenant}/{batch}"}) or {}
        total = seal.get("total")
        return await _watch(opened, _Watched({(tenant, batch): total or 0}, total is not None, unread))


async def _watch(opened: mongo.Database, watched: _Watched) -> Followed:
    with screen.progress() as bars:
        telling = _Telling(opened, bars)
        unread = 1
        while True:
            begun = time.monotonic()
            unread = unread and await watched.unread()  # before the counting: what is read by now is counted
            states = await database.state_counts(opened, queries.batch_counts(watched.batches))
            ended = sum(count for state, count in states.items() if state in queries.TERMINAL)
            known = sum(states.values())
            all_there = not unread or (watched.complete and known >= watched.total)
            # A job ends before its row is on the ledger; so this is asked after the states and before the cost.
            at_end = all_there and ended == known and not await _any_unpublished(opened, watched.batches)
            cost = await _cost(opened, watched.batches)
            await telling.tell(_Look(ended, max(known, watched.total), unread, cost, at_end))
            if at_end:
                break
            await asyncio.sleep(max(_SHORTEST_PAUSE_S, _PAUSE_SHARE * (time.monotonic() - begun)))
    codes = await database.listed(opened, "jobs", queries.batch_codes(watched.batches))
    return Followed(states, [queries.code_row(entry) for entry in codes], cost)


async def _any_unpublished(opened: mongo.Database, batches: Batches) -> bool:
    """Whether an outcome is still on its way to topics and ledger; there are few of them at any time, so their index is the shorter way."""
    return bool(await opened["jobs"].find_one(queries.unpublished(batches), {"_id": 1}, hint="outbox"))


async def _cost(opened: mongo.Database, batches: Batches) -> Decimal:
    """What was billed for these batches, by the index alone."""
    rows = database.aggregate(opened, "usage", queries.batch_costs(batches), hint="batch_cost")
    found = {(row["_id"]["tenant"], row["_id"]["batch_id"]): screen.decimal(row["usd"]) async for row in rows}
    return sum((found.get(key) or Decimal(0) for key in batches), Decimal(0))


async def _unread(admin: kafka.AIOKafkaAdminClient, group: str, ends: Ends) -> int:
    """How many records before `ends` the workers' group has not read and kept."""
    try:
        done = await admin.list_consumer_group_offsets(group)
    except kafka.KafkaError:  # its coordinator moves or is being made; asked again in a moment
        return sum(ends.values())
    offsets = {place: offset.offset for place, offset in done.items()}
    return sum(max(0, end - max(0, offsets.get(place, 0))) for place, end in ends.items())


@dataclass(slots=True, frozen=True)
class _Look:
    """How far it is."""

    ended: int
    total: int
    unread: int
    cost_usd: Decimal
    at_end: bool


@dataclass(slots=True)
class _Telling:
    """How far it is, as a bar on a terminal and as a line from time to time elsewhere; and, in either, that nobody works."""

    opened: mongo.Database
    bars: Progress
    pace: Pace = field(default_factory=Pace)
    bar: TaskID | None = None
    said_at: float = field(default_factory=time.monotonic)

    async def tell(self, look: _Look) -> None:
        now = time.monotonic()
        self.pace.look(now, look.ended)
        told = f"{self.pace.told(look.total - look.ended)}, {_dollars(look.cost_usd)}"
        if self.bar is None:
            self.bar = self.bars.add_task("jobs ended")
        self.bars.update(self.bar, completed=look.ended, total=look.total, description=f"jobs ended, {told}")
        if now - self.said_at < _REMARK_S or look.at_end:
            return
        self.said_at = now
        if not await database.listed(self.opened, "workers", queries.live_workers()):
            screen.say("no worker is alive; start one with `aibroker worker`, or everything with `aibroker up`")
        elif self.bars.disable:
            reading = f", about {look.unread:,} records are not read yet" if look.unread else ""
            screen.say(f"{look.ended:,} of {look.total:,} jobs have ended, {told}{reading}")


def _dollars(amount: Decimal) -> str:
    return f"${plain(amount)} billed"
