"""An alert: what is spent in a limit's window has reached a threshold of it, or will pass the limit at the pace so far (topic `alerts`)."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.money import Usd

ALERT_TYPE = "aibroker.alert.v1"
"""`ce_type` of an alert."""


class Spent(BaseModel):
    """Billed requests, their tokens and dollars."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    requests: int
    tokens: int
    usd: Usd


class Most(BaseModel):
    """The most that may be used; null: not limited."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    requests: int | None = None
    tokens: int | None = None
    usd: Usd | None = None


class AlertEvent(BaseModel):
    """What is spent in one window of one limit has reached a threshold.

    Told once for each limit, window and threshold: at least one record, always with the same content and `ce_id`, which is
    `alert:<limit_of>/<per>/<window_start>/<threshold>`. Held budget does not count, only what is billed.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, title="Alert")

    limit_of: str = Field(description="Whose limit: tenant:acme, organisation:us, tag:team=red, model:m, batch:acme/b.")
    tenant: str | None = Field(description="The tenant whose jobs alone count; null: those of several.")
    per: Literal["minute", "hour", "day", "month", "lifetime"]
    window_start: datetime | None = Field(description="Null where the limit is for a lifetime.")
    window_end: datetime | None = Field(description="When the next window begins; null where there is none.")
    mode: Literal["hard", "soft", "shadow"] = Field(description="soft and shadow: nothing is refused.")
    threshold: int | Literal["forecast"] = Field(
        description="Percent of the limit; forecast: the window so far, extrapolated to its end, passes the limit."
    )
    unit: Literal["requests", "tokens", "usd"] = Field(description="Of which most is spent, in proportion.")
    spent: Spent = Field(description="In this window when it was noticed, by the whole deployment.")
    limit: Most
    limits_version: int = Field(description="Of the deployment's limits; 0: those of the settings.")
    message: str = Field(description="The same for a person.")
    noticed_at: datetime
