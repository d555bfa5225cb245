"""A transport without a network: a function from a call to its reply, for tests of what stands above it."""

from collections.abc import Awaitable, Callable
from inspect import isawaitable

from workers.transports.errors import AnswerTooLarge, NotSent, TransportError
from workers.transports.protocol import ANSWER_LIMIT_BYTES, Call, Reply

Outcome = Reply | TransportError


class MemoryTransport:
    """Answers every call with what `answer` makes of it, and keeps the calls in `calls`; an error of ours is raised."""

    def __init__(
        self,
        answer: Callable[[Call], Outcome | Awaitable[Outcome]],
        *,
        answer_limit_bytes: int = ANSWER_LIMIT_BYTES,
    ) -> None:
        self.calls: list[Call] = []
        self._answer = answer
        self._limit = answer_limit_bytes
        self._closed = False

    async def send(self, call: Call) -> Reply:
        """Keep the call, then reply or raise; see `Transport.send`."""
        if self._closed:
            raise NotSent("The transport is closed; nothing was sent.")
        self.calls.append(call)
        answer = self._answer(call)
        outcome = await answer if isawaitable(answer) else answer
        if isinstance(outcome, TransportError):
            raise outcome
        if len(outcome.body) > self._limit:
            raise AnswerTooLarge(f"The provider's answer is over {self._limit:,} bytes.")
        return outcome

    async def aclose(self) -> None:
        """Refuse every later call."""
        self._closed = True
