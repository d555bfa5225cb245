"""The proxy breaks lines in each way, and knows which calls it broke."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from broker.local.processes import until
from tests.faults.proxy import HOST, Proxy

REQUEST = b"POST / HTTP/1.1\r\nX-Client-Request-Id: u1/1/1.1\r\n\r\n"
WAIT_S = 5.0


@asynccontextmanager
async def before_a_server(heard: list[bytes]) -> AsyncIterator[Proxy]:
    """A proxy before a server that notes what it hears, and answers each piece with `ok`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(1_000):
                heard.append(chunk)
                writer.write(b"ok")
        except OSError:
            pass
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(answer, HOST, 0) as server:
        async with Proxy(server.sockets[0].getsockname()[1]).serving() as proxy:
            yield proxy
        server.close()


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(REQUEST)
    return await asyncio.wait_for(reader.read(10), WAIT_S)


async def is_closed(reader: asyncio.StreamReader) -> bool:
    try:
        return not await asyncio.wait_for(reader.read(10), WAIT_S)
    except ConnectionError:
        return True


async def test_in_fair_weather_bytes_go_through_in_both_directions() -> None:
    heard: list[bytes] = []
    async with before_a_server(heard) as proxy, connected(proxy) as (reader, writer):
        assert await ask(reader, writer) == b"ok"
        assert heard == [REQUEST]
        assert proxy.broken == []


async def test_a_cut_ends_the_lines_and_refuses_new_ones_until_it_is_over() -> None:
    async with before_a_server([]) as proxy, connected(proxy) as (reader, writer):
        await ask(reader, writer)
        proxy.turn("cut")
        assert await is_closed(reader)
        async with connected(proxy) as (refused, _):
            assert await is_closed(refused)
        proxy.turn("fair")
        async with connected(proxy) as (new, new_writer):
            assert await ask(new, new_writer) == b"ok"
        assert [request for _, request in proxy.broken] == ["u1/1/1.1"]


async def test_stalled_bytes_arrive_when_the_stall_is_over() -> None:
    heard: list[bytes] = []
    async with before_a_server(heard) as proxy, connected(proxy) as (reader, writer):
        proxy.turn("stall")
        writer.write(REQUEST)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(10), 0.1)
        assert heard == []
        proxy.turn("fair")
        assert await asyncio.wait_for(reader.read(10), WAIT_S) == b"ok"
        assert proxy.broken == []


async def test_a_muted_server_hears_the_request_and_its_answer_is_lost_with_the_line() -> None:
    heard: list[bytes] = []
    async with before_a_server(heard) as proxy, connected(proxy) as (reader, writer):
        proxy.turn("mute")
        writer.write(REQUEST)
        assert await until(lambda: bool(heard and proxy.broken), WAIT_S)
        proxy.turn("fair")
        assert await is_closed(reader)
        assert {request for _, request in proxy.broken} == {"u1/1/1.1"}


async def test_a_half_closed_line_ends_for_the_client_and_still_takes_its_bytes() -> None:
    heard: list[bytes] = []
    async with before_a_server(heard) as proxy, connected(proxy) as (reader, writer):
        await ask(reader, writer)
        heard.clear()
        proxy.turn("half_close")
        assert await is_closed(reader)
        writer.write(REQUEST)
        assert await until(lambda: bool(heard), WAIT_S)
        assert {request for _, request in proxy.broken} == {"u1/1/1.1"}
