"""The servers that `aibroker up` starts: real ones, started, killed, started again."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from pymongo import AsyncMongoClient

from broker.local import jars, readiness
from broker.local.errors import (
    FolderInUse,
    JarsMissing,
    PortTaken,
    ServerDied,
    ServerTooOld,
    ServerUnreachable,
)
from broker.local.kafka import JARS
from broker.local.mongod import find
from broker.local.processes import Children, until
from broker.local.stack import Plan, Stack

HOLDER = Path(__file__).with_name("hold_a_stack.py")
READY_WORKER = """
import signal, subprocess, sys, os
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print('{"event": "worker.ready", "kafka": "%s"}' % os.environ["AIBROKER_KAFKA"], flush=True)
signal.pause()
"""


def plan(folder: Path, **changes: Any) -> Plan:  # noqa: ANN401 the fields of Plan are of many types
    return replace(Plan(data=folder, environment=dict(os.environ), simulator=False), **changes)


def addresses(folder: Path) -> dict[str, Any]:
    written: dict[str, Any] = json.loads((folder / "stack.json").read_text())
    return written


def processes_below(folder: Path) -> list[str]:
    """The command lines that name the folder: every server and guardian of a stack does, or has its log open there."""
    found = []
    for process in psutil.process_iter():
        try:
            files = [opened.path for opened in process.open_files()]
            if process.pid != os.getpid() and any(str(folder) in word for word in [*process.cmdline(), *files]):
                found.append(f"{process.pid} {' '.join(process.cmdline())[:100]}")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def hold(folder: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, str(HOLDER), str(folder), READY_WORKER])


@asynccontextmanager
async def held_by_another(folder: Path) -> AsyncIterator["subprocess.Popen[bytes]"]:
    """A process of its own that runs a stack on the folder, with a worker."""
    with hold(folder) as holder:
        try:
            assert await until(lambda: _workers(folder) == 1, within_s=60)
            yield holder
        finally:
            holder.kill()


def _workers(folder: Path) -> int:
    try:
        return len(addresses(folder)["pids"]["workers"])
    except FileNotFoundError:
        return 0


async def make_topic(kafka: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1)])
    await admin.close()


async def keep_a_record_and_a_document(kafka: str, mongo: str) -> None:
    await make_topic(kafka, "kept")
    async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all") as producer:
        await producer.send_and_wait("kept", b"record")
    async with AsyncMongoClient[dict[str, Any]](mongo, w="majority") as client:
        await client["kept"]["things"].insert_one({"_id": "document"})


async def test_a_killed_owner_leaves_no_process_and_its_data_serves_the_next_one(tmp_path: Path) -> None:
    async with held_by_another(tmp_path) as holder:
        at = addresses(tmp_path)
        await keep_a_record_and_a_document(at["kafka"], at["mongo"])
        assert len(processes_below(tmp_path)) >= 5  # Kafka, mongod, a worker, its child, the holder
        with pytest.raises(FolderInUse, match=f"pid {holder.pid}.*--data"):
            await Stack(plan(tmp_path)).__aenter__()
        holder.kill()
        killed_at = time.monotonic()
        assert await until(lambda: not processes_below(tmp_path), within_s=10), processes_below(tmp_path)
        assert time.monotonic() - killed_at < 10
    async with Stack(plan(tmp_path)) as again:
        assert again.kafka_url != at["kafka"]
        async with AIOKafkaConsumer(bootstrap_servers=again.kafka_url, auto_offset_reset="earliest") as consumer:
            consumer.assign([TopicPartition("kept", 0)])
            assert (await asyncio.wait_for(consumer.getone(), 10)).value == b"record"
        async with AsyncMongoClient[dict[str, Any]](again.mongo_url) as client:
            assert await client["kept"]["things"].find_one() == {"_id": "document"}
    assert not (tmp_path / "stack.json").exists()
    assert processes_below(tmp_path) == []


async def test_stack_json_names_the_addresses_and_the_processes(stack: Stack) -> None:
    written = addresses(stack.folder)
    assert set(written) == {"kafka", "mongo", "database", "simulator", "pids"}
    assert set(written["pids"]) == {"kafka", "mongod", "simulator", "workers"}
    assert written["kafka"] == stack.kafka_url
    assert written["mongo"] == stack.mongo_url
    for server, word in {"kafka": "kafka.Kafka", "mongod": "--dbpath", "simulator": "broker.local.simulator"}.items():
        assert word in psutil.Process(written["pids"][server]).cmdline()


async def test_a_record_of_2_megabytes_arrives(stack: Stack, prefix: str) -> None:
    await make_topic(stack.kafka_url, prefix)
    async with AIOKafkaProducer(bootstrap_servers=stack.kafka_url, max_request_size=3_000_000) as producer:
        sent = await producer.send_and_wait(prefix, b"x" * 2_000_000)
    assert sent.offset == 0


async def test_kafkas_own_console_producer_reaches_it(stack: Stack, prefix: str) -> None:
    assert stack.kafka is not None
    await make_topic(stack.kafka_url, prefix)
    to = ("--bootstrap-server", stack.kafka_url, "--topic", prefix, "--compression-codec", "zstd")
    producer = await asyncio.create_subprocess_exec(
        *stack.kafka.program("org.apache.kafka.tools.ConsoleProducer", *to), stdin=asyncio.subprocess.PIPE
    )
    await asyncio.wait_for(producer.communicate(b'{"body": {}}\n'), 30)
    assert producer.returncode == 0
    async with AIOKafkaConsumer(bootstrap_servers=stack.kafka_url, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(prefix, 0)])
        record = await asyncio.wait_for(consumer.getone(), 10)
    assert (record.value, record.key, record.headers) == (b'{"body": {}}', None, ())


async def test_a_suspended_server_answers_again_when_it_is_resumed(stack: Stack) -> None:
    assert stack.kafka is not None
    assert stack.kafka.child is not None
    stack.kafka.child.suspend()
    try:
        assert not await readiness.group_can_join(stack.kafka_url, timeout_s=1)
    finally:
        stack.kafka.child.resume()
    assert await readiness.group_can_join(stack.kafka_url, timeout_s=20)


async def test_given_servers_are_used_and_not_started(stack: Stack, tmp_path: Path) -> None:
    async with Stack(plan(tmp_path, kafka=stack.kafka_url, mongo=stack.mongo_url, database="other")) as other:
        written = addresses(tmp_path)
        assert (written["kafka"], written["mongo"], written["database"]) == (stack.kafka_url, stack.mongo_url, "other")
        assert written["pids"] == {"kafka": None, "mongod": None, "simulator": None, "workers": []}
        assert other.kafka is None


async def test_workers_are_started_stopped_and_killed_with_their_children(stack: Stack, tmp_path: Path) -> None:
    worker = (sys.executable, "-c", READY_WORKER)
    given = plan(tmp_path, kafka=stack.kafka_url, mongo=stack.mongo_url, worker_command=worker, worker_grace_s=5)
    async with Stack(given) as other:
        one, two, three = await other.start_workers(3, {"AIBROKER_KAFKA": stack.kafka_url})
        assert stack.kafka_url in one.output()
        assert addresses(tmp_path)["pids"]["workers"] == [one.pid, two.pid, three.pid]
        await other.stop_worker(one)
        await other.kill_worker(two)
        assert (one.exit_code, two.exit_code) == (-15, -9)
        assert addresses(tmp_path)["pids"]["workers"] == [three.pid]
        os.kill(three.pid, 9)
        assert await until(lambda: not other.workers[0].running, within_s=5)
    assert processes_below(tmp_path) == []


async def test_a_worker_that_ends_before_it_is_ready_is_told_with_its_log(stack: Stack, tmp_path: Path) -> None:
    given = plan(
        tmp_path,
        kafka=stack.kafka_url,
        mongo=stack.mongo_url,
        worker_command=(sys.executable, "-c", "raise SystemExit(3)"),
    )
    async with Stack(given) as other:
        with pytest.raises(
            ServerDied, match=r"worker-1 ended with code 3 before it was ready: its log, .*worker-1\.log"
        ):
            await other.start_workers(1, {})
        assert addresses(tmp_path)["pids"]["workers"] == []


@pytest.mark.parametrize("port", ["kafka_port", "mongo_port"])
async def test_a_wanted_port_that_is_taken_is_told_and_nothing_stays(tmp_path: Path, port: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {wanted}, wanted for .* is taken"):
            await Stack(plan(tmp_path, **{port: wanted})).__aenter__()
    assert processes_below(tmp_path) == []


async def test_one_server_that_cannot_be_had_stops_the_others(tmp_path: Path) -> None:
    with pytest.raises(ServerUnreachable, match=r"no Kafka answers at 127\.0\.0\.1:1 .*--kafka"):
        await Stack(plan(tmp_path, kafka="127.0.0.1:1")).__aenter__()
    assert processes_below(tmp_path) == []
    assert not (tmp_path / "stack.json").exists()


async def test_a_mongod_that_is_no_replica_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mongo").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Children(tmp_path / "logs") as children:
        alone = [
            str(find(os.environ)),
            "--dbpath",
            str(tmp_path / "mongo"),
            "--port",
            str(port),
            "--bind_ip",
            "127.0.0.1",
        ]
        mongod = children.start("alone", [*alone, "--nounixsocket"], dict(os.environ))
        await mongod.ready(lambda: readiness.port_open(port), 30)
        with pytest.raises(ServerTooOld, match=r"is no replica set.*--replSet"):
            await readiness.check_mongo(f"mongodb://127.0.0.1:{port}")
        await mongod.stop(10)


async def test_without_a_registry_kafka_says_how_to_get_its_jars(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:1"
    proxies = dict.fromkeys(
        ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), nowhere
    )
    environment = {**os.environ, **proxies, "no_proxy": "", "NO_PROXY": "", "XDG_CACHE_HOME": str(tmp_path)}
    said: list[str] = []
    with Children(tmp_path / "logs") as children, pytest.raises(JarsMissing, match="connect this machine"):
        await jars.provide(JARS, environment, children, said.append)
    assert said[0].startswith("fetching Kafka")
    assert list((tmp_path / "aibroker").iterdir()) == []
