"""The default transport: pyreqwest, HTTP in Rust, about a tenth of the CPU of a client in Python.

What was sent is decided by proof, not by the class of the exception: pyreqwest raises `ConnectError` also for a line that
is cut after sending, and a `ConnectTimeoutError` when the provider is merely slow. Its connector marks its own failures
as `client error (Connect)`; that one is proof, and everything else is `SentUnknown`. A kept connection that the server
closed just before is one of the latter, unless no byte was written: then hyper itself takes another one.

A call whose task is cancelled ends here at once, but the library gives no way to hang up before the head of the answer
has come: its connection lives on until the provider answers or the call's time is up.
"""

from datetime import timedelta
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import BuilderError, DetailedPyreqwestError, PyreqwestError
from pyreqwest.http import Url

from workers.transports.errors import AnswerTooLarge, NotSent, SentUnknown, TransportError
from workers.transports.protocol import ANSWER_LIMIT_BYTES, CONNECT_TIMEOUT_S, Call, Reply

IDLE_S = 30.0
"""Below the 60 s and more after which load balancers close: the fewer of our calls meet a closing connection."""
CONNECTOR_FAILED = "client error (Connect)"


def client(connect_timeout_s: float = CONNECT_TIMEOUT_S, *, proxies: bool = True) -> Client:
    """A client with our policy: HTTP/1.1, any number of connections, no redirects; `proxies` as the environment says."""
    builder = (
        ClientBuilder()
        .follow_redirects(enable=False)
        .connect_timeout(timedelta(seconds=connect_timeout_s))
        .pool_idle_timeout(timedelta(seconds=IDLE_S))
        .tcp_keepalive(timedelta(seconds=IDLE_S))
        .user_agent("aibroker")
    )
    return (builder if proxies else builder.no_proxy()).build()


@lru_cache(maxsize=256)
def address(url: str) -> tuple[Url, bool]:
    """The URL, parsed, and whether it is on this machine; `ValueError` where it is none. Targets have few, so it is kept."""
    return Url(url), is_loopback(url)


def is_loopback(url: str) -> bool:
    """Whether the URL is on this machine, where a proxy of the environment is never meant."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def causes(error: PyreqwestError) -> list[str]:
    """What the layers below said, outermost first, without the one that repeats the URL."""
    details = error.details["causes"] if isinstance(error, DetailedPyreqwestError) else None
    return [cause["message"] for cause in details or () if " for url (" not in cause["message"]]


def as_ours(error: PyreqwestError) -> TransportError:
    """The error of ours that says what is known about the request."""
    said = causes(error)
    reason = said[-1] if said else error.message
    if isinstance(error, BuilderError) or CONNECTOR_FAILED in said:
        return NotSent(f"The provider could not be reached ({reason}); nothing was sent.")
    return SentUnknown(f"The call brought no whole answer ({reason}); the provider may have done it.")


class RustTransport:
    """Calls over pyreqwest's pool. A proxy of the environment is honoured (NO_PROXY too), except for this machine."""

    def __init__(
        self, *, answer_limit_bytes: int = ANSWER_LIMIT_BYTES, connect_timeout_s: float = CONNECT_TIMEOUT_S
    ) -> None:
        self._outside = client(connect_timeout_s)
        self._here = client(connect_timeout_s, proxies=False)
        self._limit = answer_limit_bytes
        self._closed = False

    async def send(self, call: Call) -> Reply:
        """Send once; see `Transport.send`."""
        if self._closed:
            raise NotSent("The transport is closed; nothing was sent.")
        more_than_kept = self._limit + 1
        try:
            url, here = address(call.url)
            request = (
                (self._here if here else self._outside)
                .post(url)
                .headers(call.headers)
                .body_bytes(call.body)
                .timeout(timedelta(seconds=call.timeout_s))
                .streamed_read_buffer_limit(more_than_kept)
                .build_streamed()
            )
        except (ValueError, OverflowError):
            # The library's own sentence repeats the header's value, which may be the key.
            raise NotSent("The call has a URL, a header or a timeout that is not valid; nothing was sent.") from None
        try:
            # The body is read on the Rust side, up to the buffer's limit, before this returns: one hop for a call.
            async with request as response:
                body = await response.body_reader.read(more_than_kept)
                reply = Reply(response.status, response.headers, b"" if body is None else body.to_bytes())
        except PyreqwestError as error:
            raise as_ours(error) from error
        if len(reply.body) > self._limit:
            raise AnswerTooLarge(f"The provider's answer is over {self._limit:,} bytes.")
        return reply

    async def aclose(self) -> None:
        """Close both pools."""
        self._closed = True
        await self._outside.close()
        await self._here.close()
