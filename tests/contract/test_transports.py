"""What every transport promises, against a server that really cuts, stalls, drips and lies."""

import asyncio
import contextlib
import gzip
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from workers.transports.errors import AnswerTooLarge, NotSent, SentUnknown
from workers.transports.httpx import HttpxTransport
from workers.transports.protocol import Call, Reply, Transport
from workers.transports.rust import RustTransport

LIMIT = 1_000_000
CONNECT_S = 1.0


def over_httpcore(connect_s: float) -> Transport:
    """The httpx adapter over httpx's own pool: the transport that most others wrap."""
    own = httpx.AsyncHTTPTransport(trust_env=False, limits=httpx.Limits(max_connections=None))
    return HttpxTransport(own, answer_limit_bytes=LIMIT, connect_timeout_s=connect_s)


ADAPTERS: dict[str, Callable[[float], Transport]] = {
    "rust": lambda connect_s: RustTransport(answer_limit_bytes=LIMIT, connect_timeout_s=connect_s),
    "httpx": lambda connect_s: HttpxTransport(answer_limit_bytes=LIMIT, connect_timeout_s=connect_s),
    "httpx-httpcore": over_httpcore,
}


@pytest.fixture(params=ADAPTERS)
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    made = ADAPTERS[request.param](CONNECT_S)
    yield made
    await made.aclose()


@dataclass
class Connection:
    """One connection that the server accepted."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server: "Server"

    async def request(self) -> bytes:
        """Read one whole request: head and body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        whole = head + await self.reader.readexactly(length)
        self.server.requests.append(whole)
        self.server.arrived.set()
        return whole

    async def write(self, data: bytes) -> None:
        """Write and wait until the kernel took it."""
        self.writer.write(data)
        await self.writer.drain()

    async def until_client_hangs_up(self) -> None:
        """Keep silent; the client's end of the line is the end."""
        await self.reader.read()
        self.server.hung_up.set()

    def reset(self) -> None:
        """Close so that the client sees a reset, not an end."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


Behaviour = Callable[[Connection], Awaitable[None]]


@dataclass
class Server:
    """What the misbehaving server has seen."""

    url: str = ""
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    written: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)


@contextlib.asynccontextmanager
async def serving(behaviour: Behaviour) -> AsyncIterator[Server]:
    server = Server()
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        server.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await behaviour(Connection(reader, writer, server))
        writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=1000)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1/chat/completions"
    try:
        yield server
    finally:
        listener.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers)


def a_call(url: str, *, timeout_s: float = 30.0, body: bytes = b'{"model":"m"}') -> Call:
    headers = (("content-type", "application/json"), ("authorization", "Bearer sk-test"), ("x-client-request-id", "1"))
    return Call(url, headers, body, timeout_s)


def whole(body: bytes = b"{}", *, status: str = "200 OK", extra: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{extra}\r\n".encode() + body


def answering(answer: bytes) -> Behaviour:
    async def behave(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.write(answer)

    return behave


# What arrives


async def test_the_request_arrives_as_it_was_built(transport: Transport) -> None:
    async with serving(answering(whole())) as server:
        await transport.send(a_call(server.url, body=b'{"model":"gpt"}'))
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"post /v1/chat/completions http/1.1"
    assert {b"content-type: application/json", b"authorization: bearer sk-test", b"x-client-request-id: 1"} <= {*lines}
    assert body == b'{"model":"gpt"}'


@pytest.mark.parametrize("status", ["200 OK", "307 Temporary Redirect", "404 Not Found", "429 Slow", "503 Busy"])
async def test_every_status_is_a_reply_and_no_redirect_is_followed(transport: Transport, status: str) -> None:
    async with serving(
        answering(whole(b'{"a":1}', status=status, extra="Location: /x\r\nRetry-After: 2\r\n"))
    ) as server:
        reply = await transport.send(a_call(server.url))
    assert (reply.status, reply.body) == (int(status[:3]), b'{"a":1}')
    assert reply.headers.get("retry-after") == "2"
    assert reply.headers.get("x-missing") is None
    assert len(server.requests) == 1


async def test_a_chunked_answer_is_one_body(transport: Transport) -> None:
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n3\r\n   \r\n0\r\n\r\n"
    async with serving(answering(answer)) as server:
        assert (await transport.send(a_call(server.url))).body == b"{}   "


async def test_a_compressed_answer_is_decompressed(transport: Transport) -> None:
    async with serving(answering(whole(gzip.compress(b'{"a":1}'), extra="content-encoding: gzip\r\n"))) as server:
        assert (await transport.send(a_call(server.url))).body == b'{"a":1}'


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_hundreds_of_calls_are_open_at_once(adapter: str) -> None:
    transport, calls, everybody_is_here = ADAPTERS[adapter](30.0), 300, asyncio.Event()

    async def behave(connection: Connection) -> None:
        await connection.request()
        if len(connection.server.requests) == calls:
            everybody_is_here.set()
        await everybody_is_here.wait()
        await connection.write(whole())

    async with serving(behave) as server, asyncio.TaskGroup() as tasks:
        sent = [tasks.create_task(transport.send(a_call(server.url, timeout_s=60))) for _ in range(calls)]
        await asyncio.wait(sent)
    assert {task.result().status for task in sent} == {200}
    await transport.aclose()


# What surely was not sent


async def test_a_refused_connection_sent_nothing(transport: Transport) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, never listening: nobody else can answer there
        with pytest.raises(NotSent, match="nothing was sent"):
            await transport.send(a_call(f"http://127.0.0.1:{taken.getsockname()[1]}/"))


async def test_a_name_that_does_not_exist_sent_nothing(transport: Transport) -> None:
    with pytest.raises(NotSent):
        await transport.send(a_call("http://nothing-is-here.invalid/v1"))


async def test_a_server_that_speaks_no_tls_was_sent_nothing(transport: Transport) -> None:
    async def behave(connection: Connection) -> None:
        await connection.reader.read(1)
        await connection.write(b"HTTP/1.1 400 This is no TLS\r\ncontent-length: 0\r\n\r\n")

    async with serving(behave) as server:
        with pytest.raises(NotSent):
            await transport.send(a_call(server.url.replace("http:", "https:")))


async def test_a_server_that_hangs_up_in_the_tls_handshake_was_sent_nothing(transport: Transport) -> None:
    async def behave(connection: Connection) -> None:
        await connection.reader.read(100)

    async with serving(behave) as server:
        with pytest.raises(NotSent):
            await transport.send(a_call(server.url.replace("http:", "https:")))


async def test_a_tls_handshake_that_stalls_was_sent_nothing(transport: Transport) -> None:
    async with serving(Connection.until_client_hangs_up) as server:
        with pytest.raises(NotSent):
            await transport.send(a_call(server.url.replace("http:", "https:")))


@pytest.fixture
def silent_address() -> Iterator[str]:
    """A port whose queue of connections is full, so that the kernel drops what else wants to connect."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


async def test_an_address_that_never_answers_was_sent_nothing(transport: Transport, silent_address: str) -> None:
    with pytest.raises(NotSent):
        await transport.send(a_call(silent_address))


@pytest.mark.parametrize("value", ["Bearer sk-secret\nx: y", "Bearer sk-secret\r", "Bearer sk-secret\x00"])
async def test_an_invalid_header_is_refused_and_not_repeated(transport: Transport, value: str) -> None:
    async with serving(answering(whole())) as server:
        with pytest.raises(NotSent) as raised:
            await transport.send(Call(server.url, (("authorization", value),), b"{}", 5.0))
    assert "sk-secret" not in str(raised.value)
    assert raised.value.__suppress_context__
    assert server.requests == []


@pytest.mark.parametrize("url", ["", "no url", "ftp://127.0.0.1/", "http://127.0.0.1:99999/", "/v1/chat/completions"])
async def test_an_invalid_url_was_sent_nothing(transport: Transport, url: str) -> None:
    with pytest.raises(NotSent):
        await transport.send(a_call(url))


async def test_a_closed_transport_sends_nothing(transport: Transport) -> None:
    async with serving(answering(whole())) as server:
        await transport.aclose()
        with pytest.raises(NotSent):
            await transport.send(a_call(server.url))
    assert server.requests == []


# What may have been sent


async def cut_at_the_first_byte(connection: Connection) -> None:
    await connection.reader.read(1)


async def reset_at_the_first_byte(connection: Connection) -> None:
    await connection.reader.read(1)
    connection.reset()


async def cut_after_reading(connection: Connection) -> None:
    await connection.request()


async def reset_after_reading(connection: Connection) -> None:
    await connection.request()
    connection.reset()


async def cut_in_the_head(connection: Connection) -> None:
    await connection.request()
    await connection.write(b"HTTP/1.1 200 OK\r\ncontent-le")


async def cut_in_the_body(connection: Connection) -> None:
    await connection.request()
    await connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\n{")


async def cut_between_chunks(connection: Connection) -> None:
    await connection.request()
    await connection.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n")


async def garbage(connection: Connection) -> None:
    await connection.request()
    await connection.write(b"\x00\xff\xfe no HTTP at all\r\n\r\n")


async def broken_gzip(connection: Connection) -> None:
    await connection.request()
    await connection.write(whole(b"this is no gzip", extra="content-encoding: gzip\r\n"))


CUTS = [
    cut_at_the_first_byte, reset_at_the_first_byte, cut_after_reading, reset_after_reading, cut_in_the_head,
    cut_in_the_body, cut_between_chunks, garbage, broken_gzip,
]  # fmt: skip


@pytest.mark.parametrize("behaviour", CUTS, ids=lambda behaviour: behaviour.__name__)
async def test_a_line_that_is_cut_leaves_the_outcome_unknown(transport: Transport, behaviour: Behaviour) -> None:
    async with serving(behaviour) as server:
        with pytest.raises(SentUnknown):
            await transport.send(a_call(server.url))
        assert server.connections == 1


async def test_a_line_that_is_reset_as_soon_as_it_stands_is_tried_once(transport: Transport) -> None:
    async def reset(connection: Connection) -> None:
        connection.reset()

    async with serving(reset) as server:
        with pytest.raises(
            (NotSent, SentUnknown)
        ):  # it depends on whether the reset comes before the first byte leaves
            await transport.send(a_call(server.url))
        assert server.connections == 1


async def stall_before_the_answer(connection: Connection) -> None:
    await connection.request()
    await connection.until_client_hangs_up()


async def stall_in_the_body(connection: Connection) -> None:
    await cut_in_the_body(connection)
    await connection.until_client_hangs_up()


async def drip(connection: Connection) -> None:
    await connection.request()
    await connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    try:
        while not connection.reader.at_eof():
            await connection.write(b" ")
            await asyncio.sleep(0.01)
    finally:
        connection.server.hung_up.set()


STALLS = [stall_before_the_answer, stall_in_the_body, drip]


@pytest.mark.parametrize("behaviour", STALLS, ids=lambda behaviour: behaviour.__name__)
async def test_the_time_of_a_call_is_the_whole_time(transport: Transport, behaviour: Behaviour) -> None:
    async with serving(behaviour) as server:
        started = time.monotonic()
        with pytest.raises(SentUnknown):
            await transport.send(a_call(server.url, timeout_s=0.4))
        assert 0.3 < time.monotonic() - started < 10
        await asyncio.wait_for(server.hung_up.wait(), 15)


async def test_a_kept_connection_that_is_cut_after_reading_is_not_tried_again(transport: Transport) -> None:
    async def behave(connection: Connection) -> None:
        await connection.request()
        await connection.write(whole())
        await connection.request()

    async with serving(behave) as server:
        await transport.send(a_call(server.url))
        with pytest.raises(SentUnknown):
            await transport.send(a_call(server.url))
    assert (server.connections, len(server.requests)) == (1, 2)


async def test_a_kept_connection_that_was_closed_while_idle_costs_no_second_call(transport: Transport) -> None:
    closed = asyncio.Event()

    async def behave(connection: Connection) -> None:
        await connection.request()
        await connection.write(whole())
        connection.writer.close()
        closed.set()

    async with serving(behave) as server:
        for number in range(1, 20):
            closed.clear()
            with contextlib.suppress(SentUnknown):
                assert (await transport.send(a_call(server.url))).status == 200
                await closed.wait()
            assert len(server.requests) <= number


async def test_a_call_that_is_cancelled_ends_at_once_and_hurts_no_other(transport: Transport) -> None:
    async def stall_the_first(connection: Connection) -> None:
        if b"the first" in await connection.request():
            await connection.until_client_hangs_up()
        await connection.write(whole())

    async with serving(stall_the_first) as server:
        call = asyncio.create_task(transport.send(a_call(server.url, body=b"the first")))
        await asyncio.wait_for(server.arrived.wait(), 15)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(call, 10)
        assert (await transport.send(a_call(server.url))).status == 200


async def test_closing_ends_the_calls_under_way_as_unknown(transport: Transport) -> None:
    async with serving(stall_before_the_answer) as server:
        call = asyncio.create_task(transport.send(a_call(server.url)))
        await asyncio.wait_for(server.arrived.wait(), 15)
        await transport.aclose()
        with pytest.raises(SentUnknown):
            await asyncio.wait_for(call, 10)


# Lengths that lie, and answers without end


@pytest.mark.parametrize("adapter", ["rust", "httpx"])  # httpx's own pool does hand it on; its adapter says so
async def test_what_follows_a_short_length_is_never_the_next_call_s_answer(adapter: str) -> None:
    transport = ADAPTERS[adapter](CONNECT_S)
    poisoned = whole(b"{}") + whole(b'{"poison":true}')
    async with serving(answering(poisoned)) as server:
        for _ in range(10):
            with contextlib.suppress(SentUnknown):
                assert (await transport.send(a_call(server.url))).body == b"{}"
    await transport.aclose()


async def test_an_answer_at_the_limit_is_kept(transport: Transport) -> None:
    async with serving(answering(whole(b" " * LIMIT))) as server:
        assert len((await transport.send(a_call(server.url))).body) == LIMIT


async def test_an_answer_of_20_mb_is_not_kept(transport: Transport) -> None:
    async with serving(answering(whole(b" " * 20_000_000))) as server:
        with pytest.raises(AnswerTooLarge, match="1,000,000 bytes"):
            await transport.send(a_call(server.url))


async def test_a_bomb_that_is_small_until_it_is_decompressed_is_not_kept(transport: Transport) -> None:
    async with serving(
        answering(whole(gzip.compress(b" " * 20_000_000), extra="content-encoding: gzip\r\n"))
    ) as server:
        with pytest.raises(AnswerTooLarge):
            await transport.send(a_call(server.url))


async def test_an_answer_without_end_is_stopped_at_the_limit(transport: Transport) -> None:
    async def behave(connection: Connection) -> None:
        await connection.request()
        await connection.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await connection.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
            connection.server.written += 0x10000

    async with serving(behave) as server:
        with pytest.raises(AnswerTooLarge):
            await transport.send(a_call(server.url, timeout_s=20))
        assert server.written < 30_000_000


# Secrets and proxies


def test_a_call_and_a_reply_print_neither_key_nor_content() -> None:
    shown = repr(a_call("http://provider/v1", body=b"the prompt")) + repr(Reply(200, {}, b"the completion"))
    assert "http://provider/v1" in shown
    assert not any(word in shown for word in ("sk-test", "the prompt", "the completion"))


@pytest.mark.parametrize("adapter", ["rust", "httpx"])
async def test_a_proxy_of_the_environment_is_used_except_for_this_machine(
    adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(answering(whole(b"proxy"))) as proxy, serving(answering(whole(b"direct"))) as server:
        for name in ("NO_PROXY", "no_proxy", "http_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1/chat/completions"))
        transport = ADAPTERS[adapter](CONNECT_S)
        assert (await transport.send(a_call("http://provider.invalid/v1"))).body == b"proxy"
        assert (await transport.send(a_call(server.url))).body == b"direct"
        await transport.aclose()
