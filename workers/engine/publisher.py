"""Brings finished jobs out: ledger rows and events side by side, then the outbox is cleared by its token.

Everything is made from what was stored, so that a result which is sent again is the same event with the same content.
"""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.codec import encode_result, result_headers, usage_event, usage_headers
from broker.events import Events
from broker.settings import Settings
from workers.engine.failpoints import Failpoints
from workers.engine.persistence import until_known
from workers.engine.sender import Sending, acknowledged
from workers.stores.protocol import Published, Store, StoreUnknownError, Unpublished

REPUBLISH_S = 5.0
"""How often outboxes that nobody holds are looked for."""
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
        self._tasks: set[asyncio.Task[None]] = set()
        self._left_over = True  # an earlier life of this database may have left some
        self._events = Events("worker.publisher")
        self.ticked_at = time.monotonic()

    def publish(self, jobs: Sequence[Unpublished]) -> None:
        """Bring finished jobs out, in a task of its own."""
        self._under_way.update(job.id for job in jobs)
        self._start(self._conclude(jobs))

    def record(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows that belong to no finish of ours, in a task of its own."""
        if rows:
            self._start(self.record_now(rows))

    async def record_now(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows and tell of them; back when they are in the ledger."""
        await until_known(lambda: self._store.ledger(rows), self._events, "ledger")
        for row in rows:
            self._send_usage(row, None)

    async def run(self) -> None:
        """Publish again, for ever, what is in outboxes that nobody holds."""
        while True:
            await asyncio.sleep(REPUBLISH_S)
            self.ticked_at = time.monotonic()
            try:
                await self._republish(of_the_dead=True)
                if self._left_over:
                    self._left_over = False
                    await self._republish(of_the_dead=False)
            except StoreUnknownError as error:
                self._left_over = True
                self._events.warning("outbox.unknown", reason=str(error))

    async def again(self, ids: Sequence[str]) -> None:
        """Publish the results of these jobs again: a reply address came."""
        found = await self._store.outboxes(ids)
        self.publish([job for job in found if job.id not in self._under_way])

    async def flush(self) -> None:
        """Wait until all that was begun is out, or left in its outbox."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

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
            await self._conclude(mine)
            if self._left_over or len(found) < BATCH:
                return

    async def _conclude(self, jobs: Sequence[Unpublished]) -> None:
        try:
            sent = [self._send(job) for job in jobs]
            rows = [job.row for job in jobs if job.row is not None]
            if rows:
                await until_known(lambda: self._store.ledger(rows), self._events, "ledger")
            out = [job for job, futures in zip(jobs, sent, strict=True) if all(await acknowledged(futures))]
            self._left_over = self._left_over or len(out) < len(jobs)
            self._failpoints.hit("after_publish")
            again = await self._clear(out)
        finally:
            self._under_way.difference_update(job.id for job in jobs)
        if again:
            await self.again(again)

    async def _clear(self, jobs: Sequence[Unpublished]) -> list[str]:
        if not jobs:
            return []
        done = [Published(job.id, job.token, job.replies_n) for job in jobs]
        expire_at = datetime.now(UTC) + timedelta(seconds=self._settings.expire_s)
        return await until_known(lambda: self._store.published(done, expire_at), self._events, "clear")

    def _send(self, job: Unpublished) -> list["asyncio.Future[object] | None"]:
        value = encode_result(job.result)
        headers = result_headers(job.result, job.id, self._settings.source, job.trace)
        key = job.id.encode()
        futures = [
            self._sending.try_put(self._settings.topic(reply.topic), key, value, headers, reply.partition)
            for reply in job.replies
        ]
        if job.row is not None:
            futures.append(self._send_usage(job.row, job.trace))
        return futures

    def _send_usage(self, row: dict[str, Any], trace: str | None) -> "asyncio.Future[object] | None":
        headers = usage_headers(row, self._settings.source, trace)
        return self._sending.try_put(self._settings.topic("usage"), row["tenant"].encode(), usage_event(row), headers)
