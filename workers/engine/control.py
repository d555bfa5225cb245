"""What is asked of jobs after they were sent: marks in their documents; the owner of a running job finds its mark by one query a second.

Control is at least once: a record is acknowledged when its write is known, and each write carries the record's offset, so that a repeated or
late one does nothing. What asks for something that cannot be done is kept in `jobs.dead` with the reason, where whoever sent it can find it.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from types import MappingProxyType

import orjson
from pydantic import ValidationError

from broker.codec import NotAJob
from broker.events import Events
from schemas.codes import MEANING, Code
from schemas.control import CONTROL_TYPE, Action, Control
from workers.engine.dispatcher import Dispatcher
from workers.engine.halts import Halting
from workers.engine.homing import Homing
from workers.engine.inlet import Inlet
from workers.engine.persistence import until_known
from workers.engine.record import Record
from workers.stores.control import HaltKind, Seal
from workers.stores.protocol import Address, StoreUnknownError

LOOK_S = 1.0
_HALTS = MappingProxyType({Action.CANCEL: HaltKind.CANCELLED, Action.PAUSE: HaltKind.PAUSED, Action.RESUME: None})


class Controller:
    """Handles control records, and stops running jobs that were cancelled.

    Args:
        inlet: What a record needs on its way in.
        homing: Has messages about the same in one partition.
        dispatcher: What runs here.
        halting: Is told of halts.
        sealed: Is told that a batch was sealed.
    """

    def __init__(
        self,
        inlet: Inlet,
        homing: Homing,
        *,
        dispatcher: Dispatcher,
        halting: Halting,
        sealed: Callable[[], None],
    ) -> None:
        self._store, self._dead_letters = inlet.store, inlet.dead_letters
        self._publisher, self._topics = inlet.publisher, inlet.topics
        self._homing = homing
        self._dispatcher = dispatcher
        self._halting = halting
        self._sealed = sealed
        self._events = Events("worker.control")
        self.ticked_at = time.monotonic()

    async def run(self) -> None:
        """Stop running jobs that carry a cancel, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.ticked_at = time.monotonic()
            if not self._dispatcher.has_work():
                continue
            try:
                for job, reason in await self._store.cancelled():
                    self._dispatcher.stop_job(job, reason or MEANING[Code.CANCELLED])
            except StoreUnknownError as error:
                self._events.warning("control.unknown", reason=str(error))

    async def handle(self, record: Record) -> None:
        """Do what one record asks; back when that is durable. What cannot be read, or be done, goes to `jobs.dead`."""
        read = read_control(record.value, record.headers)
        if isinstance(read, NotAJob):
            await self._dead_letters.keep(record, read)
            return
        if await self._homing.moved(record, read.key):
            return
        if read.reply_to is not None and not await self._topics.knows(read.reply_to, read.reply_partition):
            await self._dead_letters.keep(
                record, NotAJob(Code.REPLY_UNKNOWN, f"reply_to: {MEANING[Code.REPLY_UNKNOWN]}")
            )
            return
        self._events.info(
            "control.handled", action=read.action, tenant=read.tenant, job=read.job_id, batch=read.batch_id
        )
        refused = await until_known(lambda: self._do(read, record.place.offset), self._events, read.action.value)
        if refused is not None:
            await self._dead_letters.keep(record, NotAJob(refused, MEANING[refused]))

    async def _do(self, control: Control, seq: int) -> Code | None:
        """Do it; the code says why it cannot be done."""
        job = f"{control.tenant}/{control.job_id}"
        match control.action:
            case Action.CANCEL if control.job_id is not None:
                return await self._store.cancel(job, seq, control.reason or "")
            case Action.RERUN:
                self._halting.stir()  # where its result is not out yet it begins as soon as that is
                return await self._store.rerun(job, seq)
            case Action.SEAL:
                refused = await self._store.seal(_seal(control, seq))
                self._sealed()
                return refused
            case Action.REPLY:
                if await self._store.add_reply(job, _address(control) or Address("results"), uuid.uuid4().hex):
                    await self._publisher.again([job])
            case _:
                await self._halt(control, seq)
        return None

    async def _halt(self, control: Control, seq: int) -> None:
        reason = control.reason or ""
        if control.action is Action.CANCEL:
            told = f"the batch {control.batch_id} was cancelled"
            reason = f"{told}: {reason}" if reason else told
        await self._store.halt(control.scope, _HALTS[control.action], seq, reason=reason)
        self._halting.hurry(control.scope)


def read_control(value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> Control | NotAJob:
    """Say what a control record asks for."""
    kind = (dict(headers).get("ce_type") or b"").decode("utf-8", "replace")  # a header may have no value
    if kind and kind != CONTROL_TYPE:
        return NotAJob(Code.UNKNOWN_VERSION, f"ce_type is {kind[:80]!r}; {CONTROL_TYPE} is known")
    try:
        control = Control.model_validate(orjson.loads(value or b""))
    except orjson.JSONDecodeError as error:
        return NotAJob(Code.UNDECODABLE, f"the control message is not JSON: {error}")
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in problem["loc"]) or "the message"
        said = problem["msg"].removeprefix("Value error, ")
        return NotAJob(Code.INVALID_CONTROL, f"{field}: {said}; {MEANING[Code.INVALID_CONTROL]}")
    return control


def _address(control: Control) -> Address | None:
    return Address(control.reply_to, control.reply_partition) if control.reply_to is not None else None


def _seal(control: Control, seq: int) -> Seal:
    return Seal(
        id=f"{control.tenant}/{control.batch_id}",
        tenant=control.tenant,
        batch_id=control.batch_id or "",
        total=control.total or 0,
        reply=_address(control),
        seq=seq,
        max_cost_usd=control.max_cost_usd,
        max_errors=control.max_errors,
        max_error_rate=control.max_error_rate,
    )
