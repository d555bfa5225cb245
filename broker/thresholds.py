"""The thresholds of a limit at which an alert is told, and what is wrong with them; pure."""

from typing import Annotated, Literal

from pydantic import BeforeValidator

FORECAST: Literal["forecast"] = "forecast"
MOST_PERCENT = 1_000
Threshold = int | Literal["forecast"]
"""So many percent of the limit are spent; forecast: at the pace of the window so far, all of it will be."""


def _known(named: object) -> object:
    if isinstance(named, list | tuple):
        for threshold in named:
            whole = isinstance(threshold, int) and not isinstance(threshold, bool) and 1 <= threshold <= MOST_PERCENT
            if not (whole or threshold == FORECAST):
                allowed = f"allowed are whole percents from 1 to {MOST_PERCENT}, and {FORECAST}"
                raise ValueError(f"{threshold!s:.40} is no threshold; {allowed}")
            if named.count(threshold) > 1:
                raise ValueError(f"{threshold} is there twice, and is told once")
    return named


Thresholds = Annotated[tuple[Threshold, ...], BeforeValidator(_known)]
"""All of a limit's; none: no alert is told."""
USUAL: tuple[Threshold, ...] = (50, 80, 100, FORECAST)
