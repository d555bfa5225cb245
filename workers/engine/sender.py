"""The way out: results, usage events and dead letters leave by one producer through one sending task.

The producer may die of an error that it cannot get over (an out-of-order sequence); it is built anew then, and what was under way counts as
unknown: the outbox sends it again.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from broker.codec import Headers


class Sending(Protocol):
    """What `broker.kafka` offers for sending: a bounded queue and one task."""

    async def put(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int | None = None
    ) -> "asyncio.Future[object]":
        """Queue a record, waiting for room; the future is done when Kafka has acknowledged it."""

    def try_put(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int | None = None
    ) -> "asyncio.Future[object] | None":
        """Queue a record, None where the queue is full."""


async def acknowledged(futures: Sequence["asyncio.Future[object] | None"]) -> list[bool]:
    """Which of the records Kafka has acknowledged; waits for all."""
    answers = await asyncio.gather(*(future for future in futures if future is not None), return_exceptions=True)
    known = iter(answers)
    return [future is not None and not isinstance(next(known), BaseException) for future in futures]
