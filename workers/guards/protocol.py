"""What a guard is, and what it answers: each adapter looks at one text at a time and knows nothing of jobs."""

from dataclasses import dataclass
from typing import Literal, Protocol

Action = Literal["allow", "flag", "redact", "block"]
"""What is done with what a guard finds: nothing, a note in the result, a change of the text, the end of the job."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a guard found in one text: how often each kind, and the text without it."""

    kinds: dict[str, int]
    redacted: str


class Guard(Protocol):
    """One check; cheap (about 10 us for 1 kB) and linear in the text's length, whatever the text."""

    @property
    def name(self) -> str:
        """The guard's name in results."""

    def check(self, text: str) -> Found | None:
        """Return what is in the text, None if nothing is; never raises, and finds nothing in what it has redacted."""
