"""Servers given by their address: what is wrong with them is said in a sentence."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.local import ports, readiness
from broker.local.errors import MongodMissing, PortTaken, ServerTooOld, ServerUnreachable
from broker.local.mongod import find


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that is bound, so that nobody else listens there, and refuses."""
    with socket.socket() as bound:
        bound.bind((ports.HOST, 0))
        yield bound.getsockname()[1]


async def test_a_kafka_that_is_too_old_is_refused_with_the_oldest_that_is_not() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while size := struct.unpack(">i", await reader.readexactly(4))[0]:
                correlation = (await reader.readexactly(size))[4:8]
                apis = struct.pack(">hhhhhh", 18, 0, 2, 9, 0, 5)  # ApiVersions 0 to 2, OffsetFetch 0 to 5
                versions = correlation + struct.pack(">hi", 0, 2) + apis + struct.pack(">i", 0)
                writer.write(struct.pack(">i", len(versions)) + versions)
        writer.close()
        await writer.wait_closed()
        answered.set()

    answered = asyncio.Event()
    async with await asyncio.start_server(answer, ports.HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ServerTooOld, match=rf"127\.0\.0\.1:{port} is older than 2\.5: use a newer one"):
            await readiness.check_kafka(f"{ports.HOST}:{port}")
        await asyncio.wait_for(answered.wait(), 5)


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:", "127.0.0.1:99999999"])
async def test_an_address_that_is_none_is_told_like_one_where_nobody_answers(address: str) -> None:
    with pytest.raises(ServerUnreachable, match=r"check the address given with --kafka \(HOST:PORT\)"):
        await readiness.check_kafka(address)


async def test_a_kafka_that_does_not_answer_is_told_with_its_address(silent_port: int) -> None:
    with pytest.raises(ServerUnreachable, match=f"no Kafka answers at 127.0.0.1:{silent_port}"):
        await readiness.check_kafka(f"{ports.HOST}:{silent_port}")


async def test_a_mongodb_that_does_not_answer_is_told_without_its_password(silent_port: int) -> None:
    url = f"mongodb://user:secret@{ports.HOST}:{silent_port}/"
    with pytest.raises(ServerUnreachable, match=f"no MongoDB takes writes at 127.0.0.1:{silent_port}") as raised:
        await readiness.check_mongo(url)
    assert "secret" not in str(raised.value)


async def test_a_url_that_is_none_is_told_with_what_one_looks_like() -> None:
    with pytest.raises(ServerUnreachable, match="mongodb://HOST:PORT"):
        await readiness.check_mongo("mongodb://:nowhere")


def test_a_port_that_is_taken_is_told_with_the_remedy() -> None:
    with socket.create_server((ports.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port}, wanted for Kafka, is taken by another process: stop that"):
            ports.choose(port, "Kafka")


def test_any_free_port_will_do_for_zero() -> None:
    assert 1024 <= ports.choose(0, "Kafka") < 65536


def test_the_mongod_on_the_path_comes_first(tmp_path: Path) -> None:
    program = tmp_path / "mongod"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert find({"PATH": str(tmp_path)}) == program


def test_without_any_mongod_the_remedies_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MongodMissing, match=r"install MongoDB 6 or newer .* or use one of yours with --mongo"):
        find({"PATH": ""})
