"""Brings finished jobs out: ledger rows and events side by side, then the outbox is cleared by its token.

Everything is made from what was stored, so that a result which is sent again is the same event with the same content.
"""

import asyncio
import itertools
import time
from collections.abc import Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.errors import AibrokerError, TopicMissing
from broker.events import Events
from broker.lanes import Record, Sent
from broker.outgoing import encode_result, result_headers, usage_event, usage_headers
from broker.sending import Sending
from broker.settings import Settings
from workers.engine.failpoints import Failpoints
from workers.engine.persistence import until_known
from workers.engine.slices import sliced
from workers.stores.protocol import Address, Insertion, Published, Store, StoreUnknownError, Unpublished

REPUBLISH_S = 5.0
"""How often outboxes that nobody holds are looked for."""
OWN_TURNS = 6
"""How many of these turns until our own are looked for: another worker may have died that wanted to send our job's result again."""
BATCH = 256


class Publisher:
    """Ledger, topics and outbox.

    Args:
        store: Where outboxes and the ledger are.
        sending: The way to Kafka.
        settings: For names of topics, the source of events, and how long documents are kept.
        failpoints: For tests.
    """

    def __init__(self, store: Store, sending: Sending, settings: Settings, failpoints: Failpoints) -> None:
        self._store = store
        self._sending = sending
        self._settings = settings
        self._failpoints = failpoints
        self._under_way: set[str] = set()
        self._once_more: set[str] = set()
        self._telling: set[str] = set()  # rows
        self._tasks: set[asyncio.Task[None]] = set()
        self._left_over = True  # an earlier life of this database may have left some
        self._events = Events("worker.publisher")
        self.ticked_at = time.monotonic()

    def publish(self, jobs: Sequence[Unpublished]) -> None:
        """Bring finished jobs out, in a task of its own."""
        self._under_way.update(job.id for job in jobs)
        self.start(self._conclude(jobs))

    def record(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows that belong to no finish of ours, in a task of its own."""
        if rows:
            self.start(self.record_now(rows))

    async def record_now(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows that no outbox tells of; back when they are in the ledger, each with a mark until its event is acknowledged."""
        await self._to_ledger([{**row, "untold": True} for row in rows])
        self._tell_of(rows)

    async def run(self) -> None:
        """Publish again, for ever, what is in outboxes that nobody holds."""
        for turn in itertools.count(1):
            await asyncio.sleep(REPUBLISH_S)
            self.ticked_at = time.monotonic()
            try:
                await self._republish(of_the_dead=True)
                await self._retell(of_the_dead=True)
                if self._left_over or turn % OWN_TURNS == 0:
                    self._left_over = False
                    await self._republish(of_the_dead=False)
                    await self._retell(of_the_dead=False)
            except StoreUnknownError as error:
                self._left_over = True
                self._events.warning("outbox.unknown", reason=str(error))

    async def again(self, ids: Sequence[str]) -> None:
        """Publish the results of these jobs again: a reply address came."""
        found = await self._store.outboxes(ids)
        busy = {job.id for job in found} & self._under_way
        self._once_more |= busy  # what is under way clears an older token, not this one
        if free := [job for job in found if job.id not in busy]:
            self.publish(free)

    async def tell(
        self, result: Mapping[str, Any], key: str, reply: Address, trace: str | None
    ) -> "asyncio.Future[Sent]":
        """Hand over a result that no document keeps."""
        headers = result_headers(result, key, self._settings.source, trace)
        topic = self._settings.topic(reply.topic)
        return await self._sending.put(Record(topic, encode_result(result), key.encode(), headers, reply.partition))

    async def flush(self) -> None:
        """Wait until all that was begun is out, or left in its outbox."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do some work in a task that this part owns."""
        self._begin(work)

    def _begin(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._left_over = True
            self._events.error("publish.failed", error)

    async def _republish(self, *, of_the_dead: bool) -> None:
        while True:
            found = await self._store.unpublished(BATCH, of_the_dead=of_the_dead)
            mine = [job for job in found if job.id not in self._under_way]
            if not mine:
                return
            self._events.info("outbox.republish", jobs=len(mine), of_the_dead=of_the_dead)
            self._under_way.update(job.id for job in mine)
            concluding = self._begin(self._conclude(mine))
            while not concluding.done():  # an outage that is waited for is no loop that stands still
                await asyncio.wait({concluding}, timeout=REPUBLISH_S)
                self.ticked_at = time.monotonic()
            if self._left_over or len(found) < BATCH:
                return

    async def _retell(self, *, of_the_dead: bool) -> None:
        """Tell of rows whose events nobody is sending; a batch a turn."""
        found = await self._store.untold(BATCH, of_the_dead=of_the_dead)
        rows = [row for row in found if row["_id"] not in self._telling]
        if rows:
            self._events.info("usage.retold", rows=len(rows), of_the_dead=of_the_dead)
            self._tell_of(rows)
        self._left_over = self._left_over or len(found) == BATCH

    def _tell_of(self, rows: Sequence[dict[str, Any]]) -> None:
        self._telling.update(row["_id"] for row in rows)
        self.start(self._told(rows))

    async def _told(self, rows: Sequence[dict[str, Any]]) -> None:
        """Send the events of rows that are in the ledger, then take their marks away; what is not acknowledged keeps its mark."""
        try:
            sending = self._sending.try_put_many([self._usage(row, None) for row in rows])
            failed = range(len(rows)) if sending is None else await sending
            told = [row["_id"] for position, row in enumerate(rows) if position not in failed]
            self._left_over = self._left_over or len(told) < len(rows)
            if told:
                await until_known(lambda: self._store.told(told), self._events, "told")
        finally:
            self._telling.difference_update(row["_id"] for row in rows)

    async def _conclude(self, jobs: Sequence[Unpublished]) -> None:
        try:
            records, owners = await self._records(jobs)
            sending = self._sending.try_put_many(records)
            rows = [job.row for job in jobs if job.row is not None]
            if rows:
                await self._to_ledger(rows)
            out = jobs if sending is None else await self._acknowledged(jobs, owners, sending)
            self._left_over = self._left_over or sending is None or len(out) < len(jobs)
            if sending is None:
                return
            self._failpoints.hit("after_publish")
            again = await self._clear(out)
        finally:
            self._under_way.difference_update(job.id for job in jobs)
        again = [*again, *self._once_more.intersection(job.id for job in jobs)]
        self._once_more.difference_update(again)
        if again:
            await self.again(again)

    async def _acknowledged(
        self, jobs: Sequence[Unpublished], owners: Sequence[int], sending: "asyncio.Future[dict[int, AibrokerError]]"
    ) -> list[Unpublished]:
        """Those of which every record is out; a reply topic that was deleted meanwhile is not waited for."""
        late: set[int] = set()
        for position, error in (await sending).items():
            self._events.warning(
                "publish.unacknowledged", job=jobs[owners[position]].id, code=error.code, reason=str(error)
            )
            if not isinstance(error, TopicMissing):
                late.add(owners[position])
        return [job for index, job in enumerate(jobs) if index not in late]

    async def _clear(self, jobs: Sequence[Unpublished]) -> list[str]:
        if not jobs:
            return []
        done = [Published(job.id, job.token, job.replies_n) for job in jobs]
        expire_at = datetime.now(UTC) + timedelta(seconds=self._settings.expire_s)
        return await until_known(lambda: self._store.published(done, expire_at), self._events, "clear")

    async def _records(self, jobs: Sequence[Unpublished]) -> tuple[list[Record], list[int]]:
        """Everything that tells of these jobs, and whose each record is."""
        records: list[Record] = []
        owners: list[int] = []
        topic, source = self._settings.topic, self._settings.source
        async for index, job in sliced(enumerate(jobs)):
            value, key = encode_result(job.result), job.id.encode()
            headers = result_headers(job.result, job.id, source, job.trace)
            for reply in job.replies:
                records.append(Record(topic(reply.topic), value, key, headers, reply.partition))
                owners.append(index)
            if job.row is not None:
                records.append(self._usage(job.row, job.trace))
                owners.append(index)
        return records, owners

    def _usage(self, row: dict[str, Any], trace: str | None) -> Record:
        headers = usage_headers(row, self._settings.source, trace)
        return Record(self._settings.topic("usage"), usage_event(row), row["tenant"].encode(), headers)

    async def _to_ledger(self, rows: Sequence[dict[str, Any]]) -> None:
        outcomes = await until_known(lambda: self._store.ledger(rows), self._events, "ledger")
        for row, outcome in zip(rows, outcomes, strict=True):
            if outcome is Insertion.REFUSED:
                self._events.error("ledger.refused", row=row["_id"])
