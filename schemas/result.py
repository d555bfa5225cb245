"""A result: what became of a job, on its reply topic with the key `<tenant>/<job id>`."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.money import Usd
from schemas.usage import Usage

RESULT_TYPE = "aibroker.result.v1"
"""`ce_type` of a result."""
MAX_RESULT_BYTES = 1_000_000
"""A larger result is published without `output`, with `output_in: "jobs"`."""


class Status(StrEnum):
    """The terminal states of a job."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    DEAD = "dead"


class Target(BaseModel):
    """Who answered: a provider, a model, a region and a service tier."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    provider: str
    request_model: str
    response_model: str | None = None
    region: str | None = None
    service_tier: str | None = None


class GuardFinding(BaseModel):
    """What one guard did to the content."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    guard: str
    direction: str = Field(description="input or output")
    action: str = Field(description="flag, redact or block")
    found: dict[str, int] = Field(default_factory=dict, description="How often each kind was found; never the text.")


class Timing(BaseModel):
    """Where the time went, in milliseconds."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    queued_ms: int
    provider_ms: int
    total_ms: int


class Result(BaseModel):
    """What became of a job; consumers ignore fields that they do not know."""

    model_config = ConfigDict(extra="ignore", frozen=True, title="Result")

    job_id: str
    tenant: str
    generation: int = Field(description="0 where the record was refused because another job has its id.")
    operation: str
    status: Status
    code: str | None = Field(default=None, description="Why it did not succeed: a stable code.")
    message: str | None = Field(
        default=None, description="Why it did not succeed: a sentence that says what to change."
    )
    output: dict[str, Any] | None = Field(default=None, description="The provider's answer in OpenAI's shape.")
    output_text: str | None = Field(default=None, description="The answer as text, where a document could not hold it.")
    output_in: str | None = Field(default=None, description='"jobs" where the output is too large for a record.')
    usage: Usage = Field(default_factory=Usage)
    cost_usd: Usd
    target: Target | None = None
    attempts: int
    guards: list[GuardFinding] = Field(default_factory=list)
    timing: Timing
    batch_id: str | None = None
    metadata: Any = None
    finished_at: datetime
