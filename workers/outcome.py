"""What a job in hand knows, and how it leaves the pipeline: finished, or put back to wait until T because R."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Final, NamedTuple

from schemas.codes import MEANING, Code
from schemas.job import Job
from schemas.result import Status
from workers.engine.ready import Ready
from workers.providers.protocol import Answer


class Shutdown(Enum):
    """Why a job is told to stop where this process ends: no text, because the reason of a cancel may be any."""

    MARK = "shutdown"


SHUTDOWN: Final = Shutdown.MARK


@dataclass(slots=True)
class Running:
    """A job from its admission to its outcome; `stopped` says why it was told to stop, if it was."""

    ready: Ready
    started_at: datetime
    job: Job
    operation: str  # as plain text: an enum's value costs a look-up each time
    attempts: int  # those that count: failed and unknown ones of this generation
    held_tokens: int = 0  # the estimate for which budget is reserved
    calls: int = 0  # made under this fence
    sent: bool = False  # a call of it is open, or nobody knows what became of one
    provider_ms: int = 0
    findings: list[dict[str, Any]] = field(default_factory=list)
    stopped: str | Shutdown | None = None
    stoppable: bool = False  # it waits for something that may be given up


class Answered(NamedTuple):
    """A provider's answer, what it cost, and whose it is; the row's `billed` is decided by the finish."""

    answer: Answer
    row: dict[str, Any]
    tokens: int
    usd: Decimal


class Ended(Exception):  # noqa: N818 what happened to the job, not an error
    """The job ends here without an answer; `findings` are the guards' of a job that was not admitted."""

    def __init__(
        self, status: Status, code: Code, message: str = "", *, findings: Sequence[dict[str, Any]] = ()
    ) -> None:
        super().__init__(message or MEANING[code])
        self.status = status
        self.code = code
        self.message = message or MEANING[code]
        self.findings = findings


def expired(last_failure: str | None) -> Ended:
    """The end of a job whose deadline passed; where something stood in its way, that is its code, because that is what to change."""
    if last_failure not in MEANING:
        return Ended(Status.EXPIRED, Code.EXPIRED)
    code = Code(last_failure)
    return Ended(Status.EXPIRED, code, f"The deadline passed; what stood in the way last: {MEANING[code]}")


class Postponed(Exception):  # noqa: N818 what happened to the job, not an error
    """The job has to wait until `until` because of `why`; `wait_key` names what may release it earlier, `priority` another one to wait in."""

    def __init__(self, until: datetime, why: str, wait_key: str | None = None, *, priority: str | None = None) -> None:
        super().__init__(why)
        self.until = until
        self.why = why
        self.wait_key = wait_key
        self.priority = priority
