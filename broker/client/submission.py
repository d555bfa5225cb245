"""Sends jobs in order with a bounded number under way, again where it is unknown whether one arrived: its id makes that harmless."""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Generic, TypeVar

from broker.client.jobs import JobLike, Refused
from broker.errors import AibrokerError, KafkaMissing
from broker.lanes import Record
from broker.sending import Sending

_CHUNK = 250
_KEPT = 100
_TRIES = 3


_Job = TypeVar("_Job")
_Answer = TypeVar("_Answer")

Jobs = Iterable[JobLike] | AsyncIterable[JobLike]
"""Jobs, from a plain or an asynchronous iterable."""
OnRefused = Callable[[Refused], None]


@dataclass(slots=True)
class Submitted:
    """What `send_many` did: jobs that Kafka has acknowledged, jobs that were refused, and the first of these."""

    count: int
    refused_count: int
    refused: list[Refused]


async def acknowledged(sending: Sending, records: Sequence[Record], timeout_s: float) -> None:
    """Send records until Kafka has acknowledged all.

    Raises:
        AibrokerError: One cannot be sent, or `KafkaMissing`: they were not acknowledged in time, tried again.
    """
    await _settled(sending, records, await _in_time(sending.put_many(records), timeout_s), timeout_s)


async def _settled(
    sending: Sending, records: Sequence[Record], future: asyncio.Future[dict[int, AibrokerError]], timeout_s: float
) -> None:
    for tried in range(1, _TRIES + 1):
        failures = await _in_time(future, timeout_s)
        if not failures:
            return
        final = next((error for error in failures.values() if not error.retryable or tried == _TRIES), None)
        if final is not None:
            raise final
        records = [records[position] for position in failures]
        future = await _in_time(sending.put_many(records), timeout_s)


async def _in_time(answer: asyncio.Future[_Answer] | Coroutine[None, None, _Answer], timeout_s: float) -> _Answer:
    try:
        async with asyncio.timeout(timeout_s):
            return await answer
    except TimeoutError:
        raise KafkaMissing(
            f"Kafka has not acknowledged within {timeout_s:g} s: whether the jobs arrived is unknown; submit them again with the same ids"
        ) from None


class Flow(Generic[_Job]):
    """Jobs on their way in order, a bounded number of them unacknowledged.

    Args:
        sending: The way to Kafka.
        timeout_s: How long an acknowledgement may take.
        window: How many jobs may be unacknowledged, about.
        record: Which record is sent for a job; its `record` by default.
    """

    def __init__(
        self,
        sending: Sending,
        timeout_s: float,
        window: int,
        record: Callable[[_Job], Record] = attrgetter("record"),
    ) -> None:
        self._sending, self._timeout_s, self._record = sending, timeout_s, record
        self._chunk = max(1, min(_CHUNK, window // 2))
        self._chunks_ahead = max(1, window // self._chunk - 1)
        self._filling: list[_Job] = []
        self._ahead: deque[tuple[list[_Job], asyncio.Future[dict[int, AibrokerError]]]] = deque()

    async def through(self, jobs: Jobs, prepare: Callable[[JobLike], _Job | None]) -> AsyncIterator[list[_Job]]:
        """Send all that `prepare` makes of `jobs`; give what is acknowledged, in order.

        The next job is taken only while there is room. An asynchronous source that has no job ready holds nothing back.
        """
        if isinstance(jobs, AsyncIterable):
            async for chunk in self._asynchronous(aiter(jobs), prepare):
                yield chunk
        else:
            for job in jobs:
                one = prepare(job)
                if one is not None:
                    self._filling.append(one)
                if len(self._filling) >= self._chunk:
                    for chunk in await self._passed_on():
                        yield chunk
        await self._hand_over()
        while self._ahead:
            yield await self._first()

    async def _asynchronous(
        self, source: AsyncIterator[JobLike], prepare: Callable[[JobLike], _Job | None]
    ) -> AsyncIterator[list[_Job]]:
        while True:
            coming = asyncio.ensure_future(_next(source))
            try:
                await asyncio.sleep(0)
                while not coming.done():
                    for chunk in await self._meanwhile(coming):
                        yield chunk
                job = coming.result()
            finally:
                coming.cancel()
            if job is None:
                return
            one = prepare(job)
            if one is not None:
                self._filling.append(one)
            for chunk in await self._passed_on() if len(self._filling) >= self._chunk else ():
                yield chunk

    async def _meanwhile(self, coming: asyncio.Future[Any]) -> list[list[_Job]]:
        """Send what there is, and wait until a job comes or one is acknowledged."""
        await self._hand_over()
        oldest: list[asyncio.Future[Any]] = [self._ahead[0][1]] if self._ahead else []
        await asyncio.wait([coming, *oldest], return_when=asyncio.FIRST_COMPLETED)
        return await self._acknowledged()

    async def _passed_on(self) -> list[list[_Job]]:
        await self._hand_over()
        return await self._acknowledged()

    async def _acknowledged(self) -> list[list[_Job]]:
        done: list[list[_Job]] = []
        while len(self._ahead) > self._chunks_ahead or (self._ahead and self._ahead[0][1].done()):
            done.append(await self._first())
        return done

    async def _hand_over(self) -> None:
        if self._filling:
            chunk, self._filling = self._filling, []
            future = await _in_time(self._sending.put_many([self._record(job) for job in chunk]), self._timeout_s)
            self._ahead.append((chunk, future))

    async def _first(self) -> list[_Job]:
        chunk, future = self._ahead.popleft()
        await _settled(self._sending, [self._record(job) for job in chunk], future, self._timeout_s)
        return chunk


async def _next(source: AsyncIterator[JobLike]) -> JobLike | None:
    return await anext(source, None)


def keep(refused: Refused, into: Submitted, told: OnRefused | None) -> None:
    """Count a refused job, keep it if it is among the first, and tell of it."""
    into.refused_count += 1
    if len(into.refused) < _KEPT:
        into.refused.append(refused)
    if told is not None:
        told(refused)
