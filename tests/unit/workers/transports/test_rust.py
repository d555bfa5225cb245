"""What the Rust transport asks of the kernel for a line on which a call is silent for long."""

import asyncio
import os
import socket
from pathlib import Path

from workers.transports.protocol import Call
from workers.transports.rust import IDLE_S, PROBE_S, PROBES, RustTransport

OPTIONS = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)


def lines_to(port: int) -> list[socket.socket]:
    """The sockets of this process that are connected to a port."""
    found = []
    for entry in list(Path("/proc/self/fd").iterdir()):
        if entry.is_socket():
            line = socket.socket(fileno=os.dup(int(entry.name)))
            if _peer_port(line) == port:
                found.append(line)
            else:
                line.close()
    return found


def _peer_port(line: socket.socket) -> int | None:
    try:
        return int(line.getpeername()[1]) if line.family == socket.AF_INET else None
    except OSError:  # it listens
        return None


async def test_a_silent_line_is_given_up_after_several_answers_that_did_not_come() -> None:
    asked, looked = asyncio.Event(), asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await looked.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport = RustTransport()
    calling = asyncio.create_task(transport.send(Call(f"http://127.0.0.1:{port}/", (), b"{}", 30)))
    await asyncio.wait_for(asked.wait(), 10)
    told = set()
    for line in lines_to(port):
        with line:
            told.add(tuple(line.getsockopt(socket.IPPROTO_TCP, option) for option in OPTIONS))
    assert told == {(IDLE_S, PROBE_S, PROBES, 1000 * (IDLE_S + PROBES * PROBE_S))}
    looked.set()
    assert (await calling).status == 200
    await transport.aclose()
    server.close()
