"""What was used and what it cost: one ledger row (collection `usage`) and usage event (topic `usage`) per attempt that may have cost money."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from schemas.money import SignedUsd

USAGE_TYPE = "aibroker.usage.v1"
"""`ce_type` of a usage event."""


class Usage(BaseModel):
    """The five token counts; the first includes both cache counts, `output_tokens` includes reasoning."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    input_tokens: int = Field(default=0, ge=0)
    cache_read_input_tokens: int = Field(default=0, ge=0)
    cache_creation_input_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)
    reasoning_output_tokens: int = Field(default=0, ge=0)


COUNTS = tuple(Usage.model_fields)
"""The names of the five token counts, in the order of a ledger row."""


class UsageEvent(Usage):
    """One row of the ledger.

    `id` is `_id` in the collection: `<uid>/<generation>/<fence>.<n>`. `billed` is true on exactly one row per (job, generation), the one whose finish
    won, and on those that correct it: a tenant's bill is the sum where `billed`, a provider's invoice is all rows that are not `estimated`.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, title="Usage")

    id: str
    at: datetime = Field(description="When the attempt ended.")
    recorded_at: datetime = Field(description="When the row was made.")
    tenant: str
    job_id: str
    generation: int
    batch_id: str | None = None
    priority: str
    operation: str
    provider: str = Field(description="OpenTelemetry's gen_ai.provider.name: openai, anthropic, azure.ai.openai, ...")
    credential: str = Field(description="The name of the key: invoices are per key.")
    request_model: str
    response_model: str | None = None
    response_id: str | None = None
    request_id: str | None = Field(default=None, description="The provider's own, for disputes.")
    region: str | None = None
    service_tier: str | None = None
    outcome: str = Field(description="succeeded, or the error class of the attempt.")
    finish_reasons: list[str] = Field(default_factory=list)
    cost_usd: SignedUsd = Field(description="Negative only where a row corrects another one.")
    price_id: str
    billed: bool
    estimated: bool
    incarnation: str
    held_tokens: int = Field(default=0, description="The estimate of input and output for which budget was reserved.")
    queued_ms: int
    provider_ms: int
    tags: dict[str, str] = Field(default_factory=dict)
    corrects: str | None = Field(
        default=None,
        description="The row whose cost this one corrects: it is no call and no job, and its cost is what has to be added.",
    )
