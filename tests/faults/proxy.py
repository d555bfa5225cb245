"""A TCP proxy before one service, whose lines can be cut, stalled, delayed, half closed, or robbed of their answers; imports nothing of ours."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, get_args

Weather = Literal["fair", "cut", "stall", "delay", "half_close", "mute"]
"""What happens to the lines: nothing; they are cut and no new one is had; bytes wait; bytes come late; the service's end closes; answers are lost
after the request went through."""
BAD: tuple[Weather, ...] = get_args(Weather)[1:]

HOST = "127.0.0.1"
DELAY_S = 0.3
_CHUNK = 65_536
_REQUEST_ID = re.compile(rb"(?i)x-client-request-id: *([^\r\n]+)")


@dataclass(eq=False)
class _Line:
    """One connection through the proxy; `asked` is the id of the last request on it."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    asked: str = ""
    robbed: bool = False

    def abort(self) -> None:
        for end in (self.near, self.far):
            end.transport.abort()


@dataclass
class Proxy:
    """Passes on what comes to `port`, as the weather allows.

    `broken` are the calls whose line it broke: when, and the id of the request (`X-Client-Request-Id`).
    """

    upstream: int = 0
    port: int = 0
    broken: list[tuple[float, str]] = field(default_factory=list)
    _weather: Weather = "fair"
    _lines: set[_Line] = field(default_factory=set)
    _flowing: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Proxy"]:
        """Listen until the block ends; then every line is cut."""
        self.turn("fair")
        async with await asyncio.start_server(self._serve, HOST, self.port) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self
            server.close()
            self._cut(self._lines)

    def turn(self, weather: Weather) -> None:
        """Change the weather; lines that were robbed of bytes do not outlive it."""
        self._weather = weather
        self._cut({line for line in self._lines if line.robbed})
        if weather == "cut":
            self._cut(self._lines)
        if weather == "half_close":
            for line in self._lines:
                self._half_close(line)
        if weather == "stall":
            self._flowing.clear()
        else:
            self._flowing.set()

    def __len__(self) -> int:
        """How many lines there are."""
        return len(self._lines)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = None
        with suppress(OSError):
            if self._weather != "cut":
                far_reader, far_writer = await asyncio.open_connection(HOST, self.upstream)
                line = _Line(writer, far_writer)
        if line is None:
            writer.transport.abort()
            return
        self._lines.add(line)
        try:
            if self._weather == "half_close":
                self._half_close(line)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, far_writer, line, answers=False))
                group.create_task(self._pass(far_reader, writer, line, answers=True))
        finally:
            self._lines.discard(line)
            line.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: _Line, *, answers: bool
    ) -> None:
        """Pass one direction's bytes on until it ends; where one end is gone, the other is told."""
        try:
            while chunk := await reader.read(_CHUNK):
                if not answers:
                    self._note(line, chunk)
                await self._flowing.wait()
                if self._weather == "delay":
                    await asyncio.sleep(DELAY_S)  # the fault itself
                if answers and (line.robbed or self._weather == "mute"):
                    self._rob(line)
                    continue
                writer.write(chunk)
                await writer.drain()
            if not line.robbed:
                writer.write_eof()
        except OSError:
            line.abort()

    def _note(self, line: _Line, chunk: bytes) -> None:
        if found := _REQUEST_ID.search(chunk):
            line.asked = found[1].decode().strip()
            if line.robbed:
                self._tell([line])

    def _rob(self, line: _Line) -> None:
        if not line.robbed:
            line.robbed = True
            self._tell([line])

    def _half_close(self, line: _Line) -> None:
        self._rob(line)
        with suppress(OSError):
            line.near.write_eof()

    def _cut(self, lines: set[_Line]) -> None:
        self._tell(lines)
        for line in lines:
            line.abort()

    def _tell(self, lines: "set[_Line] | list[_Line]") -> None:
        self.broken += ((time.time(), line.asked) for line in lines if line.asked)


@dataclass(frozen=True)
class Lines:
    """The proxies before the three services."""

    kafka: Proxy
    mongo: Proxy
    provider: Proxy

    def __iter__(self) -> Iterator[Proxy]:
        return iter((self.kafka, self.mongo, self.provider))

    def of(self, service: str) -> Proxy:
        """The proxy before a service, by its name."""
        found: Proxy = getattr(self, service)
        return found


@asynccontextmanager
async def lines() -> AsyncIterator[Lines]:
    """Three proxies that listen; where they lead is said later."""
    async with Proxy().serving() as kafka, Proxy().serving() as mongo, Proxy().serving() as provider:
        yield Lines(kafka, mongo, provider)
