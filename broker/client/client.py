"""The client: one connection for sending, one consumer for replies, and the calls that users make."""

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from types import TracebackType
from typing import Any, NamedTuple, Self

from broker import kafka
from broker.client import following
from broker.client.handle import Handle
from broker.client.jobs import Form, JobLike, Prepared, Refused, prepare
from broker.client.replies import REPLY_TOPIC, Replies, Slot
from broker.client.steering import Steering
from broker.client.submission import Flow, Jobs, OnRefused, Submitted, acknowledged, keep
from broker.codec import digest
from broker.control import control_record
from broker.errors import ClientClosed, JobRefused, TopicMissing, UsageError
from broker.lanes import Record
from broker.sending import Sending
from broker.settings import Settings
from broker.topics import missing_topic
from schemas.codes import MEANING, Code
from schemas.control import Action
from schemas.result import Result

_AHEAD = 2_000  # more would keep the garbage collector busier than the network
_SKEW = timedelta(seconds=60)  # a worker's clock may be behind ours


class _Tracked(NamedTuple):
    """A job on its way, where its result is to be put, and whether it comes here by itself."""

    record: Record
    slot: Slot
    here: bool


class Client(Steering):
    """Submits jobs and awaits their results; an async context manager, for one event loop.

        async with Client(kafka="broker:9092") as client:
            handle = await client.submit({"body": {"model": "m", "messages": [{"role": "user", "content": "hi"}]}})
            result = await handle.result(timeout=60)

    Args:
        settings: Where Kafka is, the prefix and the priorities, from `broker.settings.load`; defaults where not given.
        kafka: Kafka's addresses, in place of the settings'.
        prefix: The deployment's prefix, in place of the settings'.
        tenant: Who pays for jobs that do not say.
        send_timeout_s: How long Kafka may take to acknowledge, in seconds.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        kafka: str | None = None,
        prefix: str | None = None,
        tenant: str = "default",
        send_timeout_s: float = 120.0,
    ) -> None:
        given = {"kafka": kafka, "prefix": prefix}
        base = (settings or Settings()).model_dump()
        self._settings = Settings.model_validate(base | {k: v for k, v in given.items() if v is not None})
        self._tenant = tenant
        self._send_timeout_s = send_timeout_s
        self._new_id = _ids()
        self._counts: dict[str, int] = {}
        self._started_at = datetime.now(UTC)
        self._sending = Sending(self._settings)
        self._replies = Replies(self._settings, self._ask_again)
        self._open = False

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            KafkaMissing: Kafka does not answer.
            TopicMissing: A topic that the client needs is not there.
        """
        self._counts = await kafka.partition_counts(self._settings)
        needed = [REPLY_TOPIC, "jobs.control", *(f"jobs.{name}" for name in self._priorities)]
        if sentence := missing_topic(self._settings, self._counts, needed):
            raise TopicMissing(sentence)
        try:
            await self._sending.start()
            await self._replies.start(self._counts[REPLY_TOPIC])
        except BaseException:
            await self.aclose()
            raise
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Send what is on its way, for at most 10 s, and stop; calls that wait get `ClientClosed`. Jobs go on."""
        self._open = False
        await asyncio.gather(self._sending.aclose(), self._replies.aclose())

    async def submit(self, job: JobLike, *, priority: str = "normal", traceparent: str | None = None) -> Handle:
        """Submit a job; return when Kafka has acknowledged it.

        Where the job names no `reply_to`, its result comes to this client. Where it does, the result goes there, and is sent here, too, once
        `handle.result()` is called. A job that was submitted before with the same id is the same job.

        Raises:
            JobRefused: The job is wrong; `code` and message are those that its result would have. Nothing was sent.
            KafkaMissing: Kafka did not acknowledge in time; whether the job arrived is unknown, so submit it again with the same id.
        """
        prepared = prepare(job, self._form(priority, self._here(), traceparent), 0, datetime.now(UTC))
        if isinstance(prepared, Refused):
            raise prepared.error()
        tracked = self._track(prepared)
        await acknowledged(self._sending, [tracked.record], self._send_timeout_s)
        return Handle(self, tracked.slot, asked=tracked.here)

    async def submit_many(
        self, jobs: Jobs, *, priority: str = "normal", window: int = 2_000, refused: OnRefused | None = None
    ) -> AsyncIterator[Handle]:
        """Submit jobs; give their handles in order, as Kafka acknowledges them.

        Args:
            jobs: Any number of jobs; the next is taken only while there is room.
            priority: The priority of all.
            window: How many may be unacknowledged.
            refused: Called with each job that is wrong; without it the first such job raises `JobRefused`, and jobs before it were sent.
        """
        form, position = self._form(priority, self._here()), -1

        def tracked(job: JobLike) -> _Tracked | None:
            nonlocal position
            position += 1
            prepared = prepare(job, form, position, datetime.now(UTC))
            if isinstance(prepared, Prepared):
                return self._track(prepared)
            if refused is None:
                raise prepared.error()
            refused(prepared)
            return None

        async for chunk in Flow[_Tracked](self._sending, self._send_timeout_s, window).through(jobs, tracked):
            for one in chunk:
                yield Handle(self, one.slot, asked=one.here)

    async def send_many(
        self,
        jobs: Jobs,
        *,
        priority: str = "normal",
        common: Mapping[str, Any] | None = None,
        refused: OnRefused | None = None,
    ) -> Submitted:
        """Submit jobs without handles, in constant memory; return when Kafka has acknowledged all.

        Their results go to `results`, or where the jobs say. To see them, give the jobs a `batch_id` and `follow` it.

        Args:
            jobs: Any number of jobs; a line of JSON is the fastest kind.
            priority: The priority of all.
            common: Fields that a job gets if it does not have them, such as `batch_id` or `deadline`.
            refused: Called with each job that is wrong; the others are sent anyway.
        """
        form, position = self._form(priority, common or {}), -1
        submitted = Submitted(0, 0, [])

        def prepared(job: JobLike) -> Record | None:
            nonlocal position
            position += 1
            one = prepare(job, form, position, datetime.now(UTC))
            if isinstance(one, Prepared):
                return one.record
            keep(one, submitted, refused)
            return None

        async for chunk in Flow[Record](self._sending, self._send_timeout_s, _AHEAD, lambda record: record).through(
            jobs, prepared
        ):
            submitted.count += len(chunk)
        return submitted

    async def await_result(self, job_id: str, timeout: float | None = None, *, tenant: str | None = None) -> Result:  # noqa: ASYNC109 the caller's own limit, as in asyncio.wait
        """Return the result of a job that this or any other process submitted, also if it has ended long ago.

        Args:
            job_id: The job's id.
            timeout: Seconds to wait; None waits for as long as it takes, for ever if there is no such job.
            tenant: Whose job it is; the client's tenant by default.

        Raises:
            ResultTimeout: No result came in time; the job goes on and may be asked again.
            ResultLost: The client's consumer failed; make a new client and ask again.
            ClientClosed: The client was closed.
        """
        key = f"{tenant or self._tenant}/{job_id}"
        self._check_open()
        return await Handle(self, self._replies.slot(key), asked=False).result(timeout)

    def follow(
        self, batch_id: str, *, total: int | None = None, since: datetime | None = None, tenant: str | None = None
    ) -> AsyncIterator[Result]:
        """Give the results of a batch's jobs as they are published, each once.

        It sees what is published on `results` and `results.replies` after `since`, whoever submitted the jobs; not jobs with another `reply_to`.

        Args:
            batch_id: The batch.
            total: End after so many jobs; without it the iterator never ends: leave it when you have seen enough.
            since: From when on; by default from when this client was made, so that no result of what it submitted is missed.
            tenant: Whose batch it is; the client's tenant by default.
        """
        self._check_open()
        batch = following.Batch(tenant or self._tenant, batch_id, since or self._started_at - _SKEW)
        return following.results(self._settings, self._counts, batch, total)

    async def ask(self, key: str) -> None:
        """Have the result of the job `<tenant>/<job id>` sent to this client, too."""
        await acknowledged(self._sending, [self._ask(key)], self._send_timeout_s)

    async def _ask_again(self, keys: Sequence[str]) -> None:
        await acknowledged(self._sending, [self._ask(key) for key in keys], self._send_timeout_s)

    def _ask(self, key: str) -> Record:
        tenant, _, job_id = key.partition("/")
        return self._record({"action": Action.REPLY, "tenant": tenant, "job_id": job_id, **self._here()})

    async def _control(self, message: Mapping[str, object]) -> None:
        self._check_open()
        await acknowledged(self._sending, [self._record(message)], self._send_timeout_s)

    def _record(self, message: Mapping[str, object]) -> Record:
        whose = {"tenant": self._tenant, **{name: value for name, value in message.items() if value is not None}}
        return control_record(self._settings, whose, event_id=str(uuid.uuid4()), now=datetime.now(UTC))

    @property
    def _priorities(self) -> list[str]:
        return [priority.name for priority in self._settings.priorities]

    def _here(self) -> dict[str, Any]:
        """The reply address of this client."""
        self._check_open()
        return {"reply_to": REPLY_TOPIC, "reply_partition": self._replies.partition}

    def _form(self, priority: str, common: Mapping[str, Any], trace: str | None = None) -> Form:
        self._check_open()
        if priority not in self._priorities:
            raise UsageError(f"there is no priority {priority!r}; there are {', '.join(self._priorities)}")
        filled = {"tenant": self._tenant, **common}
        return Form(self._settings.topic(f"jobs.{priority}"), self._settings.source, filled, self._new_id, trace)

    def _track(self, prepared: Prepared) -> _Tracked:
        """Have the result of a job that is about to be sent kept; refuse another job under an id that is still awaited here."""
        mark = None if prepared.made_id else digest(prepared.raw)
        known = self._replies.known(prepared.key)
        if known is not None and not known.done and known.digest not in {None, mark}:
            raise JobRefused(Code.ID_CONFLICT, MEANING[Code.ID_CONFLICT])
        here = {name: prepared.raw.get(name) for name in ("reply_to", "reply_partition")} == self._here()
        return _Tracked(prepared.record, self._replies.slot(prepared.key, mark), here)

    def _check_open(self) -> None:
        if not self._open:
            raise ClientClosed("the client is not open: use it in `async with Client(...) as client:`")


def _ids() -> Callable[[], str]:
    """Make UUIDs, random but for their last group, which counts; `uuid.uuid4()` takes eight times as long."""
    digits = secrets.token_hex(10)
    fixed = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-"
    numbers = count(secrets.randbelow(2**40))
    return lambda: f"{fixed}{next(numbers):012x}"
