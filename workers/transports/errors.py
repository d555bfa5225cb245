"""What a transport raises; a library's own exceptions never leave their adapter."""

from broker.errors import AibrokerError


class TransportError(AibrokerError):
    """A call that brought no answer.

    TransportError
    ├── NotSent         not_sent          retry       no byte of the request has reached the provider
    ├── SentUnknown     sent_unknown      retry       it may have; nobody knows what became of it
    └── AnswerTooLarge  answer_too_large  no retry    it has, and its answer is not worth keeping
    """


class NotSent(TransportError):  # noqa: N818 - says what is known about the call, not that it is an error
    """The provider could not be reached; nothing was sent."""

    code = "not_sent"
    retryable = True


class SentUnknown(TransportError):  # noqa: N818 - says what is known about the call, not that it is an error
    """The line was cut, or the time was up, after sending may have begun."""

    code = "sent_unknown"
    retryable = True


class AnswerTooLarge(TransportError):  # noqa: N818 - says what is known about the call, not that it is an error
    """The provider's answer is larger than what is kept."""

    code = "answer_too_large"
