"""Looks at sealed batches: stops one that has passed a limit of its seal, and tells its sealer when all of its jobs have ended.

Counts are questions to an index, never counters. One worker looks at a batch at a time, but nothing depends on it: each write is bound to the
seal by its offset, and the completion event is frozen before it is sent.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from broker.errors import TopicMissing
from broker.events import Events
from broker.lanes import Record
from broker.outgoing import batch_headers, encode
from broker.sending import Sending
from broker.settings import Settings
from schemas.codes import MEANING, Code
from schemas.result import Status
from workers.amounts import exact
from workers.stores.control import ControlStore, Seal, Sealed
from workers.stores.protocol import StoreUnknownError

LOOK_S = 1.0
CALM_S = 5.0
"""How often it is asked whose turn it is while this worker watches no batch: who read a seal asks at once."""
AT_ONCE = 20
"""How many batches are looked at in a row."""
TAKEN = timedelta(seconds=30)
"""When another worker looks at a batch whose looker has not come back."""
SHORTEST_S = 2.0
LONGEST_S = 15.0
"""How long a batch rests between two looks: the shortest where jobs have ended since the last one, doubling up to the longest where none has."""
REST_SHARE = 10
"""It rests so many times as long as the counting took, too: a million lines must not keep the database busy."""
TOLD_S = 10.0
ENOUGH = 20
"""How many jobs must have ended before their share of errors says anything."""

TERMINAL = frozenset(status.value for status in Status)
ERRORS = TERMINAL - {Status.SUCCEEDED, Status.CANCELLED}


class Batches:
    """The looker.

    Args:
        store: Where seals and counts are.
        sending: The way to reply topics.
        settings: Names of topics, the source of events.
        limited: Told of a batch that has just passed a limit, by its scope.
    """

    def __init__(
        self, store: ControlStore, sending: Sending, settings: Settings, limited: Callable[[str], None]
    ) -> None:
        self._store = store
        self._sending = sending
        self._settings = settings
        self._limited = limited
        self._turns: dict[str, datetime] = {}  # when batches that we looked at last are to be looked at again
        self._nudged = asyncio.Event()
        self._events = Events("worker.batches")
        self.ticked_at = time.monotonic()

    def nudge(self) -> None:
        """Say that a batch was sealed."""
        self._nudged.set()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            rest_s = LOOK_S if await self._look_at_some() else self._calm_s()
            try:
                async with asyncio.timeout(rest_s):
                    await self._nudged.wait()
            except TimeoutError:
                continue

    async def _look_at_some(self) -> bool:
        """Look at batches whose turn it is; whether there may be more of them."""
        self._nudged.clear()
        try:
            for _ in range(AT_ONCE):
                self.ticked_at = time.monotonic()
                if not await self.look():
                    return False
        except StoreUnknownError as error:
            self._events.warning("batches.unknown", reason=str(error))
        return True

    def _calm_s(self) -> float:
        """How long nothing is due, as far as this worker knows."""
        now = datetime.now(UTC)
        self._turns = {batch: at for batch, at in self._turns.items() if at > now}  # others have looked at the rest
        next_s = min(((at - now).total_seconds() for at in self._turns.values()), default=CALM_S)
        return min(max(next_s, LOOK_S), CALM_S)

    async def look(self) -> bool:
        """Look at the next batch whose turn it is; False if there is none."""
        now = datetime.now(UTC)
        sealed = await self._store.look(now, now + TAKEN)
        if sealed is None:
            return False
        self._turns.pop(sealed.seal.id, None)
        event = sealed.event or await self._completed(sealed)
        if event is not None and await self._told(sealed.seal, event):
            await self._store.unwatch(sealed.seal)
        return True

    async def _completed(self, sealed: Sealed) -> Mapping[str, Any] | None:
        """The completion event, now frozen; None: it is not complete, and may have to stop."""
        seal, started = sealed.seal, time.monotonic()
        states = await self._store.counts(seal.id)
        ended = sum(count for state, count in states.items() if state in TERMINAL)
        complete = seal.total <= ended == sum(states.values()) and not await self._store.any_unpublished(seal.id)
        usd = (
            await self._store.billed(seal.tenant, seal.batch_id) if complete or seal.max_cost_usd is not None else None
        )
        if complete:
            return await self._store.complete(seal, _event(sealed, states, usd or Decimal(0)))
        passed = passed_limit(seal, states, usd) if sealed.limited is None else None
        if passed is not None:
            self._events.warning("batch.limited", batch=seal.id, why=passed)
            await self._store.limit(seal, passed)
            self._limited(seal.id)
        pause_s = max(_pause_s(sealed, ended), REST_SHARE * (time.monotonic() - started))
        at = datetime.now(UTC) + timedelta(seconds=pause_s)
        await self._store.watch(replace(sealed, ended=ended, pause_s=pause_s), at)
        self._turns[seal.id] = at
        return None

    async def _told(self, seal: Seal, event: Mapping[str, Any]) -> bool:
        """Whether the sealer is told; one whose topic was deleted meanwhile is not waited for."""
        if seal.reply is None:
            return True
        headers = batch_headers(event, seal.id, seal.seq, self._settings.source)
        topic = self._settings.topic(seal.reply.topic)
        sent = self._sending.try_put(Record(topic, encode(event), seal.id.encode(), headers, seal.reply.partition))
        if sent is None:
            return False
        await asyncio.wait({sent}, timeout=TOLD_S)
        error = sent.exception() if sent.done() else TimeoutError()
        if error is not None:
            self._events.warning("batch.untold", batch=seal.id, reason=str(error) or "Kafka has not acknowledged it")
        return error is None or isinstance(error, TopicMissing)


def passed_limit(seal: Seal, states: Mapping[str, int], usd: Decimal | None) -> str | None:
    """Say which limit of its seal a batch has passed, None if none; what was cancelled counts neither as an error nor as ended."""
    errors = sum(states.get(state, 0) for state in ERRORS)
    ended = errors + states.get(Status.SUCCEEDED, 0)
    passed: str | None = None
    if seal.max_cost_usd is not None and usd is not None and usd > seal.max_cost_usd:
        passed = f"max_cost_usd: {usd} was billed, {seal.max_cost_usd} may be"
    elif seal.max_errors is not None and errors > seal.max_errors:
        passed = f"max_errors: {errors} of the batch's jobs have ended without success, {seal.max_errors} may"
    elif seal.max_error_rate is not None and ended >= min(ENOUGH, seal.total) and errors > seal.max_error_rate * ended:
        passed = (
            f"max_error_rate: {errors} of {ended} jobs have ended without success, a share of {seal.max_error_rate} may"
        )
    return f"{passed}; {MEANING[Code.BATCH_LIMIT]}" if passed else None


def _pause_s(sealed: Sealed, ended: int) -> float:
    return SHORTEST_S if ended != sealed.ended else min(max(2 * sealed.pause_s, SHORTEST_S), LONGEST_S)


def _event(sealed: Sealed, states: Mapping[str, int], usd: Decimal) -> dict[str, Any]:
    limited: dict[str, Any] = {"code": Code.BATCH_LIMIT.value, "message": sealed.limited} if sealed.limited else {}
    return {
        "batch_id": sealed.seal.batch_id,
        "tenant": sealed.seal.tenant,
        "total": sealed.seal.total,
        "jobs": sum(states.values()),
        "states": dict(sorted(states.items())),
        "cost_usd": exact(usd),
        **limited,
        "finished_at": datetime.now(UTC),
    }
