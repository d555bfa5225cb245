"""A control message: what to do with a job, a batch or a tenant that was submitted before (topic `jobs.control`)."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from schemas.job import JobId, ReplyTopic, Tenant
from schemas.money import Usd

CONTROL_TYPE = "aibroker.control.v1"
"""`ce_type` of a control message."""
EVERYTHING = "*"
"""The key of a control message about everything."""


class Action(StrEnum):
    """What is asked for."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RERUN = "rerun"
    SEAL = "seal"
    REPLY = "reply"


_NEEDS: dict[Action, tuple[frozenset[str], str]] = {
    Action.CANCEL: (frozenset({"job_id", "batch_id"}), "a job_id or a batch_id, not both"),
    Action.RERUN: (frozenset({"job_id"}), "a job_id and no batch_id"),
    Action.REPLY: (frozenset({"job_id"}), "a job_id and no batch_id"),
    Action.SEAL: (frozenset({"batch_id"}), "a batch_id and no job_id"),
    Action.PAUSE: (frozenset({"batch_id", "tenant", "everything"}), "a batch_id, a tenant or everything"),
    Action.RESUME: (frozenset({"batch_id", "tenant", "everything"}), "a batch_id, a tenant or everything"),
}
"""What each action is about, one of them alone."""
MOST_JOBS = 1_000_000_000
"""No batch has more."""
_OF_A_SEAL = ("total", "max_cost_usd", "max_errors", "max_error_rate")


def _action(value: object) -> Action:
    try:
        return Action(str(value))
    except ValueError:
        raise ValueError(f"must be one of {', '.join(Action)}") from None


class Control(BaseModel):
    """One control message; the key of its record is `key`, so that those of one job, batch or tenant stay in order."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, title="Control")

    action: Annotated[Action, BeforeValidator(_action)]
    tenant: Tenant = "default"
    job_id: JobId | None = None
    batch_id: JobId | None = None
    everything: bool = Field(default=False, description="pause, resume: whatever there is, whoever pays.")
    reason: Annotated[str, Field(max_length=1_000)] | None = None
    reply_to: ReplyTopic | None = Field(
        default=None, description="reply: where the result shall go, too; seal: where the completion event goes."
    )
    reply_partition: Annotated[int, Field(ge=0)] | None = None
    total: Annotated[int, Field(ge=0, le=MOST_JOBS)] | None = Field(
        default=None, description="seal: how many jobs the batch has."
    )
    max_cost_usd: Usd | None = Field(
        default=None,
        description="seal: the batch stops once more was billed for it; what is running then comes on top.",
    )
    max_errors: Annotated[int, Field(ge=0, le=MOST_JOBS)] | None = Field(
        default=None,
        description="seal: the batch stops once more of its jobs have ended as failed, rejected, expired or dead.",
    )
    max_error_rate: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="seal: the same as a share of the jobs that have ended, once 20 have, or all."
    )

    @property
    def key(self) -> str:
        """The key of the message's record."""
        return self.job_id or self.batch_id or (EVERYTHING if self.everything else self.tenant)

    @property
    def scope(self) -> str:
        """What a pause, a resume or the cancel of a batch is about: `<tenant>/<batch id>`, a tenant, or everything."""
        if self.batch_id is not None:
            return f"{self.tenant}/{self.batch_id}"
        return EVERYTHING if self.everything else self.tenant

    @model_validator(mode="after")
    def _complete(self) -> "Control":
        self._check_subject()
        if self.action is Action.REPLY and self.reply_to is None:
            raise ValueError("reply needs a reply_to")
        if self.action is Action.SEAL and self.total is None:
            raise ValueError("seal needs a batch_id and a total")
        alien = [name for name in _OF_A_SEAL if getattr(self, name) is not None and self.action is not Action.SEAL]
        if alien:
            raise ValueError(f"{alien[0]} belongs to a seal")
        return self

    def _check_subject(self) -> None:
        """One subject and no more: a pause of everything that was meant for one batch is no small mistake."""
        may, sentence = _NEEDS[self.action]
        named = {name for name in ("job_id", "batch_id", "everything") if getattr(self, name) not in {None, False}}
        if "tenant" in self.model_fields_set and not named - {"everything"}:
            named.add("tenant")
        if len(named) != 1 or not named <= may:
            raise ValueError(f"{self.action} needs {sentence}")
