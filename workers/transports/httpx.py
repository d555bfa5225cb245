"""The transport for what speaks httpx: mocks, proxies, instrumentation, and whatever is rare.

An httpx transport says `ConnectError` or `ConnectTimeout` for very different things (one of them for a server that hung
up after it had read the request), so the class alone proves nothing. What lies below it does, for the two libraries
that are known here; for another one, give a `nothing_sent` of its own. httpx's own pool is slow, and takes bytes that
follow an answer with a length too short for the next call's answer: fine for a trusted server, not for providers.
"""

import asyncio
import contextlib
from collections.abc import Callable

import httpcore
import httpx
from pyreqwest.compatibility.httpx import HttpxTransport as PyreqwestTransport
from pyreqwest.exceptions import PyreqwestError

from workers.transports.errors import AnswerTooLarge, NotSent, SentUnknown
from workers.transports.protocol import ANSWER_LIMIT_BYTES, CONNECT_TIMEOUT_S, Call, Reply
from workers.transports.rust import as_ours, client, is_loopback

NEVER_CONNECTED = (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout, httpcore.ProxyError)


def surely_nothing_sent(error: Exception) -> bool:
    """Whether the library below proves that the request never left; no for every library that is not known here."""
    cause = error.__cause__
    if isinstance(cause, PyreqwestError):
        return isinstance(as_ours(cause), NotSent)
    return isinstance(cause, NEVER_CONNECTED)


def build(call: Call, timeout: dict[str, float]) -> httpx.Request:
    """The call in httpx's type, `timeout` in seconds by phase; `ValueError` where it cannot be one."""
    if not all(value.isprintable() for _, value in call.headers):
        raise ValueError("a header holds a control character")
    request = httpx.Request("POST", call.url, headers=call.headers, content=call.body, extensions={"timeout": timeout})
    if request.url.scheme not in {"http", "https"} or not request.url.host or (request.url.port or 0) > 65_535:
        raise ValueError("the URL is not one of an HTTP server")
    return request


class HttpxTransport:
    """Calls over any `httpx.AsyncBaseTransport`, which it then owns; without one, over pyreqwest's.

    The given transport is called directly, without an `httpx.AsyncClient`, which would cost more than the call.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        nothing_sent: Callable[[Exception], bool] = surely_nothing_sent,
        answer_limit_bytes: int = ANSWER_LIMIT_BYTES,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self._outside = transport or PyreqwestTransport(client(connect_timeout_s))
        self._here = transport or PyreqwestTransport(client(connect_timeout_s, proxies=False))
        self._nothing_sent = nothing_sent
        self._limit = answer_limit_bytes
        self._connect_timeout_s = connect_timeout_s
        self._closed = False

    async def send(self, call: Call) -> Reply:
        """Send once; see `Transport.send`."""
        if self._closed:
            raise NotSent("The transport is closed; nothing was sent.")
        try:
            request = build(call, self._phases(call.timeout_s))
        except (ValueError, httpx.InvalidURL):
            # The library's own sentence may repeat the header's value, which may be the key.
            raise NotSent("The call has a URL or a header that is not valid; nothing was sent.") from None
        transport = self._here if is_loopback(call.url) else self._outside
        try:
            async with asyncio.timeout(call.timeout_s):
                response = await transport.handle_async_request(request)
                async with contextlib.aclosing(response):
                    return await self._read(response)
        except AnswerTooLarge:
            raise
        except Exception as error:  # a foreign transport raises what it likes, and none of it may leave
            if self._nothing_sent(error):
                raise NotSent(f"The provider could not be reached ({error}); nothing was sent.") from error
            name = type(error).__name__
            raise SentUnknown(f"The call brought no whole answer ({name}); the provider may have done it.") from error

    def _phases(self, timeout_s: float) -> dict[str, float]:
        if isinstance(self._outside, PyreqwestTransport):
            return {"read": timeout_s}  # it takes the sum for the whole time, and its connector has its own limit
        connect_s = min(self._connect_timeout_s, timeout_s)
        return {"connect": connect_s, "read": timeout_s, "write": timeout_s, "pool": timeout_s}

    async def _read(self, response: httpx.Response) -> Reply:
        parts: list[bytes] = []
        size = 0
        async for part in response.aiter_bytes():
            size += len(part)
            if size > self._limit:
                raise AnswerTooLarge(f"The provider's answer is over {self._limit:,} bytes.")
            parts.append(part)
        return Reply(response.status_code, response.headers, b"".join(parts))

    async def aclose(self) -> None:
        """Close the transports."""
        self._closed = True
        await self._outside.aclose()
        if self._here is not self._outside:
            await self._here.aclose()
