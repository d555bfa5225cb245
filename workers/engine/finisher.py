"""Ends jobs: the frozen outcome is written by a CAS on (owner, fence), then ledger and publishing run side by side, then the outbox is cleared.

It never waits for Kafka: what cannot be sent now stays in the outbox, and the republisher takes it up.
"""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from broker.events import Events
from broker.outgoing import encode
from schemas.codes import MEANING, Code
from schemas.result import Status
from workers.engine.batcher import Batcher
from workers.engine.failpoints import Failpoints
from workers.engine.persistence import FIRST_RETRY_S, until_known
from workers.engine.publisher import Publisher
from workers.engine.ready import ReadyQueue
from workers.engine.registry import Registry
from workers.stores.protocol import Claim, Fate, Finish, Store, Unpublished, Waiting

DELAY_SHARE = 0.1
"""How much later an outcome may be written so that others join it, as a share of the time since the job came: a write costs about 1 ms of CPU here
whatever it holds, so 16 documents in one cost five times as much each as 256 do."""
LONGEST_DELAY_S = 0.25


@dataclass(slots=True)
class _Ending:
    """A claim and how it ends."""

    claim: Claim
    finish: Finish
    fenced: Callable[[], None]


@dataclass(slots=True)
class _Putting:
    """A claim that goes back to wait; where a cancel came meanwhile, how it is finished instead."""

    waiting: Waiting
    cancelled: Callable[[], None]


class Finisher:
    """Writes outcomes in batches; those of the first priority apart, so that they do not wait until the others are written and told.

    Args:
        store: Where jobs live.
        publisher: What brings finished jobs out.
        registry: Ids are given up here once their outcome is known.
        ready: Is told when there is room.
        failpoints: For tests.
    """

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        registry: Registry,
        *,
        ready: ReadyQueue,
        failpoints: Failpoints,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._registry = registry
        self._failpoints = failpoints
        self._ready = ready
        self._endings: Batcher[_Ending] = Batcher(self._finish)
        self._first_endings: Batcher[_Ending] = Batcher(self._finish)
        self._puttings: Batcher[_Putting] = Batcher(self._put_back)
        self._events = Events("worker.finisher")

    def __len__(self) -> int:
        """How many outcomes are not written yet; whoever starts jobs heeds it, because these are claimed still."""
        return len(self._first_endings) + len(self._endings) + len(self._puttings)

    def finish(self, claim: Claim, finish: Finish, fenced: Callable[[], None] = lambda: None) -> None:
        """End a job; from here on its outcome is frozen. `fenced` is called where another worker has it by now."""
        patience_s = min(finish.result["timing"]["total_ms"] / 1000 * DELAY_SHARE, LONGEST_DELAY_S)
        endings = self._first_endings if claim.priority == self._ready.first else self._endings
        endings.add(_Ending(claim, finish, fenced), patience_s)

    def wait(self, waiting: Waiting, cancelled: Callable[[], None]) -> None:
        """Put a job back to wait; `cancelled` is called instead where a cancel came meanwhile."""
        self._puttings.add(_Putting(waiting, cancelled), LONGEST_DELAY_S)

    async def run(self) -> None:
        """Write for ever; cancel it after `flush`."""
        async with asyncio.TaskGroup() as group:
            for batcher in (self._first_endings, self._endings, self._puttings):
                group.create_task(batcher.run())

    async def flush(self) -> None:
        """Wait until all outcomes are known."""
        await self._puttings.flush()
        await self._first_endings.flush()
        await self._endings.flush()

    async def _finish(self, batch: list[_Ending]) -> None:
        token = uuid.uuid4().hex
        left = batch
        while left:
            finishes = [ending.finish for ending in left]
            fates = await until_known(lambda f=finishes: self._store.finish(f, token), self._events, "finish")  # type: ignore[misc]
            self._failpoints.hit("after_finish")
            self._settled(token, [ending for ending, fate in zip(left, fates, strict=True) if fate is Fate.DONE])
            self._fenced([ending for ending, fate in zip(left, fates, strict=True) if fate is Fate.FENCED])
            left = [
                _smaller(ending) if fate is Fate.REFUSED else ending
                for ending, fate in zip(left, fates, strict=True)
                if fate in _AGAIN
            ]
            if left:
                await asyncio.sleep(FIRST_RETRY_S)

    def _settled(self, token: str, endings: Sequence[_Ending]) -> None:
        self._ready.changed.set()
        self._registry.discard(ending.claim.id for ending in endings)
        if endings:
            self._publisher.publish([_unpublished(ending, token) for ending in endings])

    def _fenced(self, endings: Sequence[_Ending]) -> None:
        """Another worker has these jobs: nothing is published, but what was spent is on the ledger, not billed."""
        self._registry.discard(ending.claim.id for ending in endings)
        for ending in endings:
            self._events.warning("job.fenced", job=ending.claim.id, fence=ending.claim.fence)
            ending.fenced()
        self._publisher.record([{**ending.finish.row, "billed": False} for ending in endings if ending.finish.row])

    async def _put_back(self, batch: list[_Putting]) -> None:
        left = batch
        while left:
            waits = [putting.waiting for putting in left]
            fates = await until_known(lambda w=waits: self._store.wait(w), self._events, "wait")  # type: ignore[misc]
            known = [putting for putting, fate in zip(left, fates, strict=True) if fate in {Fate.DONE, Fate.FENCED}]
            self._registry.discard(putting.waiting.id for putting in known)
            for putting, fate in zip(left, fates, strict=True):
                if fate is Fate.MARKED:
                    putting.cancelled()
            left = [putting for putting, fate in zip(left, fates, strict=True) if fate in _AGAIN]
            if left:
                await asyncio.sleep(FIRST_RETRY_S)


_AGAIN = frozenset({Fate.AGAIN, Fate.REFUSED})


def _unpublished(ending: _Ending, token: str) -> Unpublished:
    claim, finish = ending.claim, ending.finish
    return Unpublished(
        id=claim.id,
        uid=claim.uid,
        generation=claim.generation,
        fence=claim.fence,
        tenant=claim.tenant,
        job_id=claim.job_id,
        trace=claim.trace,
        result=finish.result,
        row=finish.row,
        replies=claim.replies,
        replies_n=claim.replies_n,
        token=token,
    )


def _smaller(ending: _Ending) -> _Ending:
    """The same outcome in a form that the database takes: the answer as text, or without it.

    A refused write was surely not executed, so this freezes the outcome anew.
    """
    result: dict[str, Any] = dict(ending.finish.result)
    output = result.pop("output", None)
    if output is not None:
        result["output_text"] = orjson.dumps(output).decode()
    elif result.pop("output_text", None) is not None:
        result.update(
            status=Status.FAILED.value, code=Code.ANSWER_TOO_LARGE.value, message=MEANING[Code.ANSWER_TOO_LARGE]
        )
    elif result.get("metadata") is not None:
        result["metadata"] = None
    else:
        return _bare(ending)
    state = str(result["status"])
    Events("worker.finisher").warning(
        "job.answer_not_storable", job=ending.claim.id, bytes=len(encode(ending.finish.result))
    )
    finish = replace(ending.finish, state=state, result=result, keep_payload=state != Status.SUCCEEDED)
    return replace(ending, finish=finish)


def _bare(ending: _Ending) -> _Ending:
    """The last resort: an outcome of which every word is ours. Its row is kept in the log, because no collection takes it."""
    Events("worker.finisher").error("job.outcome_not_storable", job=ending.claim.id, row=ending.finish.row)
    result = {**ending.finish.result, "status": Status.FAILED.value, "code": Code.INTERNAL.value, "guards": []}
    result.update(message=MEANING[Code.INTERNAL], target=None, operation=str(result["operation"])[:64])
    finish = replace(ending.finish, state=Status.FAILED.value, result=result, row=None, keep_payload=True)
    return replace(ending, finish=finish)
