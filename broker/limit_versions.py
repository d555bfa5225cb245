"""Limits that were set by command: the file that says them, and their versions in the collection `limits`, each whole and never changed.

Version 0 is what the settings say. A later one stands in place of all their `limits` and `quotas`, unless it says that these are to hold again.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from broker.errors import SettingsError
from broker.limits import Limit, Quota, check_overlaps
from broker.section import Section
from broker.settings_file import read, sentences


class LimitsFile(Section):
    """What a file of limits may say: the same as the settings, and on which version it is based."""

    version: Annotated[int, Field(ge=0)] | None = None
    quotas: tuple[Quota, ...] = ()
    limits: tuple[Limit, ...] = ()

    @model_validator(mode="after")
    def _limits_differ(self) -> "LimitsFile":
        check_overlaps(of_quotas(self.quotas), self.limits)
        return self

    @property
    def whole(self) -> tuple[Limit, ...]:
        """All as limits."""
        return (*(limit for _, limit in of_quotas(self.quotas)), *self.limits)


def of_quotas(quotas: Sequence[Quota]) -> list[tuple[str, Limit]]:
    """The limits that quotas are, each with its place."""
    return [(f"quotas.{number}", limit) for number, quota in enumerate(quotas) for limit in quota.limits()]


def read_limits(path: Path) -> LimitsFile:
    """Read a file of limits.

    Raises:
        SettingsError: With file, line, field and what is allowed.
    """
    data, lines = read(path)
    if not {"limits", "quotas"} & data.keys():
        raise SettingsError(f"{path}: it names neither limits nor quotas; `limits: []` says that there shall be none")
    try:
        return LimitsFile.model_validate(data)
    except ValidationError as error:
        raise SettingsError("\n".join(sentences(error, path, lines, {}))) from None


class LimitVersion(BaseModel):
    """One version; `limits` are null where those of the settings hold again."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: int
    limits: tuple[Limit, ...] | None
    at: datetime
    by: str
    reason: str | None = None


def stored(said: LimitVersion) -> dict[str, Any]:
    """The document of a version, without its `_id`."""
    limits = None if said.limits is None else [limit.model_dump(mode="json") for limit in said.limits]
    return {"limits": limits, "at": said.at, "by": said.by, "reason": said.reason}


def restored(document: Mapping[str, Any]) -> LimitVersion:
    """A version from its document.

    Raises:
        ValueError: A newer release wrote it.
    """
    return LimitVersion.model_validate({**document, "version": document["_id"]})
