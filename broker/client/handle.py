"""A job that was submitted: its id, its result, and a way to cancel it."""

from typing import Protocol

from broker.client.replies import Slot
from broker.errors import ControlRefused
from schemas.codes import MEANING, Code
from schemas.result import Result


class Asker(Protocol):
    """What a handle needs of its client."""

    async def ask(self, key: str) -> None:
        """Have the job's result sent to this client, too."""

    async def cancel(self, job_id: str, reason: str | None = None, *, tenant: str | None = None) -> None:
        """Cancel a job."""


class Handle:
    """A job that Kafka has acknowledged. While you hold it, its result is kept for you.

    Attributes:
        id: The job's id: with it any other process can await the job.
        tenant: Who pays.
    """

    __slots__ = ("_asked", "_client", "_slot", "id", "tenant")

    def __init__(self, client: Asker, slot: Slot, *, asked: bool) -> None:
        self.tenant, _, self.id = slot.key.partition("/")
        self._client = client
        self._slot = slot
        self._asked = asked

    def __repr__(self) -> str:
        return f"Handle({self.tenant}/{self.id})"

    @property
    def done(self) -> bool:
        """Whether the result is here already."""
        return self._slot.done

    async def result(self, timeout: float | None = None) -> Result:  # noqa: ASYNC109 the caller's own limit, as in asyncio.wait
        """Return the job's result, whatever its status is.

        Args:
            timeout: Seconds to wait for it; None waits for as long as it takes.

        Raises:
            ResultTimeout: No result came in time; the job goes on and may be asked again.
            ResultLost: The client's consumer failed; a new client can await the job by its id.
            ClientClosed: The client was closed.
        """
        if not self._asked and not self._slot.done:
            await self._client.ask(self._slot.key)
            self._asked = True
        return await self._slot.wait(timeout)

    async def cancel(self, reason: str | None = None) -> None:
        """Ask for the job to be cancelled; its result says whether that was in time. Returns when Kafka has the message.

        Raises:
            ControlRefused: `already_ended`: its result is here.
        """
        if self._slot.done:
            raise ControlRefused(Code.ALREADY_ENDED, MEANING[Code.ALREADY_ENDED])
        await self._client.cancel(self.id, reason, tenant=self.tenant)
