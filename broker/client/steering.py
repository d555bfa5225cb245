"""What a client asks of jobs and batches that were submitted before, by whichever process."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from decimal import Decimal

from schemas.control import Action


class Steering(ABC):
    """The calls that send a control message."""

    @abstractmethod
    async def _control(self, message: Mapping[str, object]) -> None:
        """Send a control message; back when Kafka has it."""

    async def cancel(self, job_id: str, reason: str | None = None, *, tenant: str | None = None) -> None:
        """Ask for a job to be cancelled; return when Kafka has the message. Its result says whether that was in time."""
        await self._control({"action": Action.CANCEL, "tenant": tenant, "job_id": job_id, "reason": reason})

    async def cancel_batch(self, batch_id: str, reason: str | None = None, *, tenant: str | None = None) -> None:
        """Ask for all jobs of a batch to be cancelled, those that arrive later, too; return when Kafka has the message."""
        await self._control({"action": Action.CANCEL, "tenant": tenant, "batch_id": batch_id, "reason": reason})

    async def rerun(self, job_id: str, *, tenant: str | None = None) -> None:
        """Ask for a job that has ended without success to run again; return when Kafka has the message.

        Its next result has the next generation and goes where the last one went; `await_result` gives the newest that there is when it is asked.
        """
        await self._control({"action": Action.RERUN, "tenant": tenant, "job_id": job_id})

    async def seal(
        self,
        batch_id: str,
        total: int,
        *,
        max_cost_usd: Decimal | str | None = None,
        max_errors: int | None = None,
        max_error_rate: float | None = None,
        reply_to: str | None = None,
        tenant: str | None = None,
    ) -> None:
        """Say that a batch is complete, and within which limits it may go on. Return when Kafka has the message.

        Args:
            batch_id: The batch.
            total: How many jobs it has.
            max_cost_usd: It stops once more was billed for it, in dollars; calls that run then go on.
            max_errors: It stops once more of its jobs have ended as failed, rejected, expired or dead.
            max_error_rate: The same as a share of the jobs that have ended, 0 to 1, once 20 have.
            reply_to: Where its completion event goes; without it there is none.
            tenant: Whose batch it is; the client's tenant by default.

        Raises:
            UsageError: A value is none that a seal can have.
        """
        limits = {"max_cost_usd": max_cost_usd, "max_errors": max_errors, "max_error_rate": max_error_rate}
        told = {"total": total, "reply_to": reply_to, **limits}
        await self._control({"action": Action.SEAL, "tenant": tenant, "batch_id": batch_id, **told})
