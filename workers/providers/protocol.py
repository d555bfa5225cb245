"""The neutral request and answer, what can go wrong with a call, and what a provider is."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from broker.errors import AibrokerError
from schemas.codes import Code
from workers.transports.protocol import Call, Reply

# Tuples, because a frozen dataclass takes five times as long to make, and these are made for every call.


class Request(NamedTuple):
    """What a job asks of one target.

    `operation` is `chat`, `embeddings`, `responses` or `moderations`; `body` is the client's, as OpenAI documents it,
    without `stream`; `model` is the target's name of the model; `request_id` is the ledger row's `_id`.
    """

    operation: str
    model: str
    body: dict[str, object]
    request_id: str

    def __repr__(self) -> str:
        return f"Request({self.operation}, {self.model}, {self.request_id})"


class Tokens(NamedTuple):
    """What a call used: `input_tokens` includes both cache counts, `output_tokens` includes reasoning."""

    input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_output_tokens: int = 0


class Answer(NamedTuple):
    """A provider's answer in OpenAI's shape.

    `output` is its JSON as it came, `document` the same, parsed. Where `storable` is false, BSON or strict JSON cannot
    hold it as it is, and the text `output.decode()` is what to keep. `usage` is None where the provider reports none.
    """

    output: bytes
    document: dict[str, object]
    storable: bool
    usage: Tokens | None
    response_model: str | None
    response_id: str | None
    request_id: str | None
    finish_reasons: tuple[str, ...]
    service_tier: str | None

    def __repr__(self) -> str:
        return f"Answer({self.response_model}, {self.response_id}, {self.finish_reasons}, {self.usage})"


class ErrorClass(StrEnum):
    """What an error means for money and for the next attempt."""

    NOT_SENT = "not_sent"
    """Free; bounded by the deadline only."""
    THROTTLED = "throttled"
    """Free; wait what the provider says; bounded by the deadline only."""
    CREDENTIAL = "credential"
    """Not the job's fault: the credential's breaker opens and the job waits."""
    FAILED = "failed"
    """An attempt; backoff."""
    SENT_UNKNOWN = "sent_unknown"
    """An attempt, and maybe spend."""
    REJECTED = "rejected"
    """Final: the same request would be refused again."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that brought no answer to keep.

    `message` is a sentence without secrets. `final` says that another attempt would end the same way, `spent` that the
    provider may charge for it though `usage` is not known (an estimated ledger row).
    """

    error_class: ErrorClass
    code: Code
    message: str
    retry_after_s: float | None = None
    status: int | None = None
    usage: Tokens | None = None
    request_id: str | None = None
    final: bool = False
    spent: bool = False


class CannotBuild(AibrokerError):  # noqa: N818 - says what happened, not that it is an error
    """The request cannot be put on this provider's wire; `code` is that of the job's result."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class Provider(Protocol):
    """Puts requests on one provider's wire and reads what comes back."""

    operations: frozenset[str]
    """What can be asked of it; `build` raises for anything else."""

    def build(self, request: Request, timeout_s: float) -> Call:
        """Return the call for a transport, with the key and the request id in its headers.

        Raises:
            CannotBuild: The operation is not served here, or the body cannot be written as JSON.
        """
        ...

    def read(self, operation: str, reply: Reply, now: float) -> Answer | Failure:
        """Read a reply to a call of that operation; `now` is Unix time in seconds. Never raises."""
        ...
