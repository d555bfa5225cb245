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
from typing import Literal
from urllib.parse import urlsplit

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import BuilderError, DetailedPyreqwestError, PyreqwestError
from pyreqwest.http import Url

from workers.transports.errors import AnswerTooLarge, NotSent, SentUnknown, TransportError
from workers.transports.protocol import ANSWER_LIMIT_BYTES, CONNECT_TIMEOUT_S, Call, Reply

Version = Literal["1.1", "2", "2 assumed"]
"""Of HTTP; 2 is agreed upon with TLS, and falls back to 1.1; where it is assumed, nobody was asked."""

IDLE_S = 30.0
"""Below the 60 s and more after which load balancers close: the fewer of our calls meet a closing connection."""
PROBE_S, PROBES = 10.0, 6
"""A call of a minute is silent for a minute, so its line is asked whether it lives, and given up after six answers that did not come. By the
library's own default one is enough; of 10,000 lines that are asked at one moment the kernel drops some, and 3,056 calls were lost and made again."""
PONG_S = 20.0
"""How long a connection over HTTP/2 may owe the answer to a ping: thousands of calls would wait on one that is gone."""
CONNECTOR_FAILED = "client error (Connect)"


def client(connect_timeout_s: float = CONNECT_TIMEOUT_S, *, proxies: bool = True, version: Version = "1.1") -> Client:
    """A client with our policy: no redirects; any number of connections, over HTTP/2 one a server; `proxies` as the environment says."""
    builder = (
        ClientBuilder()
        .follow_redirects(enable=False)
        .connect_timeout(timedelta(seconds=connect_timeout_s))
        .pool_idle_timeout(timedelta(seconds=IDLE_S))
        .tcp_keepalive(timedelta(seconds=IDLE_S))
        .tcp_keepalive_interval(timedelta(seconds=PROBE_S))
        .tcp_keepalive_retries(PROBES)
        .tcp_user_timeout(timedelta(seconds=IDLE_S + PROBES * PROBE_S))
        .user_agent("aibroker")
    )
    if version != "1.1":
        builder = builder.http2(enable=True) if version == "2" else builder.http2_prior_knowledge()
        builder = builder.http2_keep_alive_interval(timedelta(seconds=IDLE_S)).http2_keep_alive_timeout(
            timedelta(seconds=PONG_S)
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
    """Calls over pyreqwest's pools. A proxy of the environment is honoured (NO_PROXY too), except for this machine."""

    def __init__(
        self, *, answer_limit_bytes: int = ANSWER_LIMIT_BYTES, connect_timeout_s: float = CONNECT_TIMEOUT_S
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._outside = client(connect_timeout_s)
        self._here = client(connect_timeout_s, proxies=False)
        self._over_http2: dict[tuple[bool, bool], Client] = {}
        self._limit = answer_limit_bytes
        self._closed = False

    async def send(self, call: Call) -> Reply:
        """Send once; see `Transport.send`."""
        if self._closed:
            raise NotSent("The transport is closed; nothing was sent.")
        more_than_kept = self._limit + 1
        try:
            url, here = address(call.url)
            pool = self._here if here else self._outside
            request = (
                (self._shared(url, here) if call.http2 else pool)
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
        """Close every pool."""
        self._closed = True
        for pool in (self._outside, self._here, *self._over_http2.values()):
            await pool.close()

    def _shared(self, url: Url, here: bool) -> Client:
        """The pool for calls that share connections; made at the first, as hardly any deployment has one."""
        assumed = url.scheme == "http"
        pool = self._over_http2.get((here, assumed))
        if pool is None:
            version: Version = "2 assumed" if assumed else "2"
            pool = client(self._connect_timeout_s, proxies=not here, version=version)
            self._over_http2[here, assumed] = pool
        return pool
