"""Calls over HTTP/2, against a server that speaks just enough of it (RFC 9113) to count connections and to break them."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from workers.transports.errors import SentUnknown, TransportError
from workers.transports.protocol import Call
from workers.transports.rust import RustTransport

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, ACK, END_HEADERS = 1, 1, 4
STATUS_200 = b"\x88"
"""`:status: 200` in HPACK's table of what is usual (RFC 7541)."""
MAX_STREAMS = 3
AGREES_TO_HTTP2 = b"\x02h2"
"""As it stands in the hello of a client that offers it (ALPN, RFC 7301)."""


@dataclass
class Server:
    """What the server has seen, and what it does with a whole request."""

    answers: Callable[[int], bool]
    """Whether it answers once so many requests are there; otherwise it cuts the line."""
    at_once: int = 1
    """So many requests are gathered before any is answered."""
    hello_bytes: int = 0
    """How much of TLS's first message it reads; 0 where there is no TLS."""
    url: str = ""
    connections: int = 0
    first_bytes: list[bytes] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)
    most_open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        opened: list[int] = []
        self.first_bytes.append(
            await (reader.read(self.hello_bytes) if self.hello_bytes else reader.readexactly(len(PREFACE)))
        )
        if self.first_bytes[-1] != PREFACE:
            return
        writer.write(frame(SETTINGS, 0, 0, struct.pack(">HI", 3, MAX_STREAMS)))
        async for kind, flags, stream in frames(reader):
            if kind == SETTINGS and not flags & ACK:
                writer.write(frame(SETTINGS, ACK, 0))
            if kind in {DATA, HEADERS} and flags & END_STREAM:
                self.streams.append(stream)
                opened.append(stream)
                self.most_open = max(self.most_open, len(opened))
                if not self.answers(len(self.streams)):
                    return
                if len(opened) == self.at_once:
                    writer.write(b"".join(map(answer, opened)))
                    opened.clear()


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def answer(stream: int) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, STATUS_200) + frame(DATA, END_STREAM, stream, b"{}")


async def frames(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, int, int]]:
    """Kind, flags and stream of each frame, for ever."""
    while True:
        length, kind, flags, stream = struct.unpack(">IBBI", b"\0" + await reader.readexactly(9))
        await reader.readexactly(length)
        yield kind, flags, stream


@contextlib.asynccontextmanager
async def serving(server: Server, scheme: str = "http") -> AsyncIterator[Server]:
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await server.serve(reader, writer)
        writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    server.url = f"{scheme}://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listener.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers)


@pytest.fixture
async def transport() -> AsyncIterator[RustTransport]:
    made = RustTransport()
    yield made
    await made.aclose()


def a_call(server: Server, *, http2: bool = True) -> Call:
    return Call(server.url, (("authorization", "Bearer sk-test"),), b"{}", 15.0, http2)


async def test_many_calls_share_a_connection_as_many_at_once_as_the_server_allows(transport: RustTransport) -> None:
    async with serving(Server(lambda _: True)) as server:
        await transport.send(a_call(server))  # from then on it is known what the server allows
        server.at_once = MAX_STREAMS
        replies = await asyncio.gather(*(transport.send(a_call(server)) for _ in range(4 * MAX_STREAMS)))
    assert {(reply.status, reply.body) for reply in replies} == {(200, b"{}")}
    assert (server.connections, len(server.streams), server.most_open) == (1, 1 + 4 * MAX_STREAMS, MAX_STREAMS)


async def test_a_line_that_is_cut_leaves_every_call_on_it_unknown_and_sends_none_again(
    transport: RustTransport,
) -> None:
    async with serving(Server(lambda seen: seen < MAX_STREAMS, at_once=MAX_STREAMS)) as server:
        outcomes = await asyncio.gather(
            *(transport.send(a_call(server)) for _ in range(MAX_STREAMS)), return_exceptions=True
        )
    assert [type(outcome) for outcome in outcomes] == [SentUnknown] * MAX_STREAMS
    assert len(server.streams) == MAX_STREAMS


async def test_a_call_that_does_not_ask_for_it_is_made_over_http1(transport: RustTransport) -> None:
    async with serving(Server(lambda _: True)) as server:
        with pytest.raises(SentUnknown):
            await transport.send(a_call(server, http2=False))
    [first_bytes] = server.first_bytes
    assert first_bytes.startswith(b"POST /v1 HTTP/1.1\r\n")


@pytest.mark.parametrize("http2", [True, False])
async def test_with_tls_http2_is_offered_only_where_it_was_asked_for(transport: RustTransport, *, http2: bool) -> None:
    async with serving(Server(lambda _: True, hello_bytes=4_096), "https") as server:
        with pytest.raises(TransportError):
            await transport.send(a_call(server, http2=http2))
    [hello] = server.first_bytes
    assert (AGREES_TO_HTTP2 in hello) is http2
