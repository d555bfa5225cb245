"""A frozen part of the settings that refuses what it does not know."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """What all parts of the settings are."""

    model_config = ConfigDict(extra="forbid", frozen=True)
