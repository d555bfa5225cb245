"""A job: one request for inference, as its producer writes it to `jobs.interactive`, `jobs.normal` or `jobs.batch`.

The smallest is `{"body": {"model": "m", "messages": [{"role": "user", "content": "hi"}]}}`. The envelope is strict: an unknown field is refused
with the nearest known name, because a mistyped deadline or limit would cost money in silence. `body` is OpenAI's and stays what it was.
"""

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from schemas.money import Usd

MAX_RECORD_BYTES = 1_000_000
"""The largest job record, in bytes."""
MAX_METADATA_BYTES = 4_096
"""The largest `metadata`, in bytes of compact JSON."""
MAX_TAGS = 16
JOB_TYPE = "aibroker.job.v1"
"""`ce_type` of a job."""

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def instant(value: object) -> datetime:
    """Return the instant, in UTC, that an RFC 3339 string names; a time zone is required.

    Raises:
        ValueError: With a sentence, if it is none.
    """
    try:
        if isinstance(value, datetime) and value.tzinfo is not None:
            return value.astimezone(UTC)
        if isinstance(value, str) and _RFC3339.fullmatch(value):
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except OverflowError:
        raise ValueError("must be an instant of the years 1 to 9999 in UTC") from None
    raise ValueError('must be an RFC 3339 time with its zone, such as "2026-12-01T08:00:00Z"')


Instant = Annotated[datetime, BeforeValidator(instant), WithJsonSchema({"type": "string", "format": "date-time"})]
"""An RFC 3339 time with its zone."""
JobId = Annotated[str, Field(pattern=r"^[\x20-\x7e]{1,256}$")]
"""1 to 256 printable ASCII characters, unique per tenant: the idempotency key."""
Tenant = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
"""Who pays."""
ReplyTopic = Annotated[str, Field(pattern=r"^results(\.[a-zA-Z0-9._-]{1,100})?$")]
"""`results` or `results.<name>`."""
TagName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
TagValue = Annotated[str, Field(max_length=256)]


class Operation(StrEnum):
    """What the provider is asked to do."""

    CHAT = "chat"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MODERATIONS = "moderations"
    IMAGES = "images"


NOT_SUPPORTED_YET: dict[str, frozenset[str]] = {"operation": frozenset({Operation.IMAGES})}
"""Values of fields whose feature is not built yet: refused, never ignored."""


def _operation(value: object) -> Operation:
    try:
        return Operation(str(value))
    except ValueError:
        raise ValueError(f"must be one of {', '.join(Operation)}") from None


def _few(value: object) -> object:
    if isinstance(value, dict) and len(value) > MAX_TAGS:  # said before each of 100,000 is looked at
        raise ValueError(f"at most {MAX_TAGS} tags are allowed")
    return value


class Job(BaseModel):
    """One request for inference, as its producer wrote it."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, title="Job")

    body: dict[str, Any] = Field(
        description="The operation's request as OpenAI documents it; unknown fields are passed on."
    )
    id: JobId | None = Field(
        default=None,
        description="Unique per tenant, and the idempotency key; absent: ce_id, else made of the record's place.",
    )
    tenant: Tenant = "default"
    operation: Annotated[Operation, BeforeValidator(_operation)] = Operation.CHAT
    reply_to: ReplyTopic = "results"
    reply_partition: Annotated[int, Field(ge=0)] | None = None
    metadata: Any = Field(default=None, description=f"JSON up to {MAX_METADATA_BYTES} bytes, echoed in the result.")
    tags: Annotated[dict[TagName, TagValue], BeforeValidator(_few)] = Field(
        default_factory=dict,
        max_length=MAX_TAGS,
        description="To the ledger, for charge-back.",
        json_schema_extra={"additionalProperties": False},
    )
    deadline: Instant | None = Field(
        default=None, description="No call starts after it; the default depends on the priority."
    )
    not_before: Instant | None = Field(default=None, description="The job does not run earlier.")
    batch_id: JobId | None = None
    execution: Literal["at_least_once", "at_most_once"] = "at_least_once"
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 5
    max_cost_usd: Usd | None = None

    @property
    def model(self) -> str:
        """The model that the body names, "" where it names none."""
        model = self.body.get("model")
        return model if isinstance(model, str) else ""
