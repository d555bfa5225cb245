"""What a transport is given, what it gives back, and what every one of them promises."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

ANSWER_LIMIT_BYTES = 12_000_000
"""How much of an answer is read, after decompression; more is an `AnswerTooLarge`."""
CONNECT_TIMEOUT_S = 10.0
"""How long DNS, TCP and TLS may take together; running out of it is free, unlike running out of the call's time."""


# Tuples, because a frozen dataclass takes five times as long to make, and these are made for every call.


class Call(NamedTuple):
    """One POST, ready to be sent.

    `timeout_s` is the whole time, from now to the last byte of the answer. `http2` is for a transport that can speak it. Neither the key nor the
    content prints.
    """

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    timeout_s: float
    http2: bool = False

    def __repr__(self) -> str:
        return f"Call({self.url}, {len(self.body)} bytes, {self.timeout_s} s)"


class Reply(NamedTuple):
    """One whole answer, whatever its status, decompressed. `headers` are looked up by lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"Reply({self.status}, {len(self.body)} bytes)"


class Transport(Protocol):
    """Sends calls. Redirects are replies (following one would send the key elsewhere); nothing is sent twice."""

    async def send(self, call: Call) -> Reply:
        """Send the call once and read the whole answer.

        Raises:
            NotSent: Surely no byte of the request has reached the provider; the call is free.
            SentUnknown: The provider may have seen the request, and may have done and charged it.
            AnswerTooLarge: The answer is over the limit; the rest was not read.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection; a call under way ends as `SentUnknown`, a later one as `NotSent`."""
        ...
