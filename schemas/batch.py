"""A batch event: the jobs of a sealed batch have ended (topic: the seal's `reply_to`; key `<tenant>/<batch id>`)."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from schemas.money import Usd
from schemas.result import Status

BATCH_TYPE = "aibroker.batch.v1"
"""`ce_type` of a batch event."""


class BatchEvent(BaseModel):
    """What became of a sealed batch, told once all of its jobs have ended and their results are out.

    Each seal has one event with one content, told at least once; `ce_id` is `seal:<tenant>/<batch id>/<offset of the seal>`. What is run again
    afterwards changes nothing of it: seal the batch again to be told again.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, title="Batch")

    batch_id: str
    tenant: str
    total: int = Field(description="How many jobs the seal said there are.")
    jobs: int = Field(description="How many there were.")
    states: dict[Status, int] = Field(description="How many of them ended how.")
    cost_usd: Usd = Field(description="What was billed for the batch until then.")
    code: str | None = Field(default=None, description="batch_limit where the batch passed a limit of its seal.")
    message: str | None = Field(default=None, description="Which limit, and what to do about it.")
    finished_at: datetime
