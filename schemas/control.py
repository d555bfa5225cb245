"""A control message: what to do with a job, a batch or a tenant that was submitted before (topic `jobs.control`)."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from schemas.job import JobId, ReplyTopic, Tenant
from schemas.money import Usd

CONTROL_TYPE = "aibroker.control.v1"
"""`ce_type` of a control message."""


class Action(StrEnum):
    """What is asked for."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RERUN = "rerun"
    SEAL = "seal"
    REPLY = "reply"


NOT_SUPPORTED_YET = frozenset({Action.PAUSE, Action.RESUME, Action.RERUN})
"""Actions whose feature is not built yet: refused, never ignored."""


def _action(value: object) -> Action:
    try:
        return Action(str(value))
    except ValueError:
        raise ValueError(f"must be one of {', '.join(Action)}") from None


class Control(BaseModel):
    """One control message; its record's key is the job's or the batch's id, so that those of one job stay in order."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, title="Control")

    action: Annotated[Action, BeforeValidator(_action)]
    tenant: Tenant = "default"
    job_id: JobId | None = None
    batch_id: JobId | None = None
    reason: Annotated[str, Field(max_length=1_000)] | None = None
    reply_to: ReplyTopic | None = Field(
        default=None, description="reply: where the result shall go, too; seal: where the completion event goes."
    )
    reply_partition: Annotated[int, Field(ge=0)] | None = None
    total: Annotated[int, Field(ge=0)] | None = Field(default=None, description="seal: how many jobs the batch has.")
    max_cost_usd: Usd | None = None
    max_errors: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Control":
        if self.action in {Action.CANCEL, Action.REPLY} and self.job_id is None:
            raise ValueError(f"{self.action} needs a job_id")
        if self.action is Action.REPLY and self.reply_to is None:
            raise ValueError("reply needs a reply_to")
        if self.action is Action.SEAL and (self.batch_id is None or self.total is None):
            raise ValueError("seal needs a batch_id and a total")
        return self
