"""What makes a worker unfit, each with its reason, and how it is answered over HTTP."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import httpx
import pytest

from broker import settings as settings_of
from broker.errors import SettingsError
from broker.events import Events
from tests.builders import nothing_to_adopt, some_settings
from workers.engine.failpoints import Failpoints
from workers.engine.health import Health, Phase
from workers.engine.health_server import serving
from workers.engine.intake import Intake
from workers.engine.leases import Leases
from workers.engine.loop_lag import BEAT_S, LoopLag
from workers.engine.reader import Consumer, Poll, Reader
from workers.stores.memory import MemoryDatabase, MemoryStore

SESSION_S = 9.0
LEASE_S = 30.0
ANY_PORT = settings_of.Health(port=0)


class _Worker:
    """What a healthy worker's parts have noted; a test changes one thing."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self.phase = Phase.WORKING
        self.stuck: str | None = None
        self.store = MemoryStore(MemoryDatabase(), "us")
        self.leases = Leases(self.store, LEASE_S, nothing_to_adopt, clock=lambda: self.now)
        asyncio.run(self.leases.start({}))
        failpoints = Failpoints("", Events("test"))
        intake = cast("Intake", None)
        self.readers = [
            Reader(name, intake, cluster="c", poll=Poll(1, 1), failpoints=failpoints)
            for name in ("interactive", "normal")
        ]
        self.lag = LoopLag(lambda: self.now)
        self.health = Health(
            some_settings(session_timeout_s=SESSION_S),
            "us",
            leases=self.leases,
            readers=self.readers,
            lag=self.lag,
            stuck=lambda: self.stuck,
            phase=lambda: self.phase,
        )

    def unfit(self) -> dict[str, str]:
        """The checks that say no, with their reasons; none if it is ready."""
        report = self.health.ready()
        reasons = {name: check["reason"] for name, check in report.document["checks"].items() if not check["ok"]}
        assert report.ok is report.document["ok"] is (not reasons)
        return reasons

    def renew(self) -> None:
        """Renew the lease now, if the database answers."""
        asyncio.run(self.leases._renew())


@pytest.fixture
def worker() -> _Worker:
    return _Worker()


def test_a_worker_with_which_all_is_well_is_live_and_ready(worker: _Worker) -> None:
    assert worker.health.live().ok
    assert worker.unfit() == {}
    document = worker.health.ready().document
    assert (document["incarnation"], document["phase"]) == ("us", "working")
    assert document["checks"].keys() == {"phase", "lease", "mongo", "kafka", "loop_lag"}
    assert all(check["reason"] for check in document["checks"].values())


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.DRAINING, Phase.STOPPING])
def test_a_worker_that_begins_or_ends_is_live_and_not_ready(worker: _Worker, phase: Phase) -> None:
    worker.phase = phase
    assert worker.health.live().ok
    assert worker.unfit() == {"phase": f"this worker is {phase}"}


def test_a_database_that_does_not_answer_is_told_before_the_lease_is_in_doubt(worker: _Worker) -> None:
    worker.store.lose_next("renew", executed=False)
    worker.renew()
    assert worker.unfit().keys() == {"mongo"}
    worker.renew()
    assert worker.unfit() == {}


def test_a_lease_without_a_good_renewal_for_two_thirds_of_it_is_told(worker: _Worker) -> None:
    worker.lag = worker.health._lag = LoopLag()  # only the lease is old
    worker.now += LEASE_S * 2 / 3 + 1
    assert worker.unfit().keys() == {"lease"}
    worker.renew()
    assert worker.unfit() == {}


@pytest.mark.parametrize("noted", ["ticked_at", "heard_at"])
def test_a_reader_that_does_not_poll_or_is_not_answered_for_a_session_is_named(worker: _Worker, noted: str) -> None:
    setattr(worker.readers[1], noted, time.monotonic() - SESSION_S + 3)
    assert worker.unfit() == {}
    setattr(worker.readers[1], noted, time.monotonic() - SESSION_S - 1)
    assert "normal" in worker.unfit()["kafka"]


def test_a_loop_that_keeps_tasks_waiting_for_longer_than_a_heartbeat_is_told(worker: _Worker) -> None:
    worker.now += SESSION_S / 3 - BEAT_S
    assert worker.unfit() == {}
    worker.now += 3 * BEAT_S
    assert worker.unfit().keys() == {"loop_lag"}


def test_a_worker_in_which_something_stands_still_is_not_live(worker: _Worker) -> None:
    worker.stuck = "taker has not ticked for 61 s"
    report = worker.health.live()
    assert not report.ok
    assert report.document["checks"]["loops"] == {"ok": False, "reason": worker.stuck}


class _Fetching:
    """A consumer whose partitions were answered for so many seconds ago; None: never."""

    def __init__(self, *silent_s: float | None, paused: int = 0) -> None:
        self.silent_s = silent_s
        self.paused_n = paused

    def assignment(self) -> set[int]:
        return set(range(len(self.silent_s)))

    def paused(self) -> set[int]:
        return set(range(self.paused_n))

    def last_poll_timestamp(self, partition: int) -> int | None:
        silent_s = self.silent_s[partition]
        return None if silent_s is None else int((time.time() - silent_s) * 1000)


@pytest.mark.parametrize(
    ("consumer", "silent_s"),
    [
        (_Fetching(2.0, 30.0, None), 2),
        (_Fetching(None, None), 50),
        (_Fetching(30.0), 30),
        (_Fetching(), 0),
        (_Fetching(30.0, 40.0, paused=2), 0),
        (_Fetching(1.0, 40.0, paused=1), 40),
        (_Fetching(-3.0), 0),
    ],
)
def test_kafka_was_heard_when_it_last_answered_for_a_partition_that_is_fetched(
    worker: _Worker, consumer: _Fetching, silent_s: float
) -> None:
    reader = worker.readers[0]
    reader.heard_at = time.monotonic() - 50
    reader._listen(cast("Consumer", consumer))
    assert time.monotonic() - reader.heard_at == pytest.approx(silent_s, abs=0.5)


# -- over HTTP ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ask(worker: _Worker) -> Iterator[Callable[..., httpx.Response]]:
    """Asks a server that runs for this test."""
    with serving(ANY_PORT, worker.health) as address, httpx.Client(base_url=str(address), timeout=10) as client:
        yield lambda path, method="GET": client.request(method, path)


@pytest.mark.parametrize("path", ["/live", "/ready"])
def test_what_is_well_is_answered_by_200_and_json(ask: Callable[..., httpx.Response], path: str) -> None:
    answer = ask(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json()["ok"] is True
    assert ask(path, "HEAD").status_code == 200


def test_what_is_not_well_is_answered_by_503_and_its_reasons(
    worker: _Worker, ask: Callable[..., httpx.Response]
) -> None:
    worker.phase, worker.stuck = Phase.DRAINING, "taker has not ticked for 61 s"
    ready, live = ask("/ready"), ask("/live")
    assert (ready.status_code, live.status_code) == (503, 503)
    assert ready.json()["checks"]["phase"] == {"ok": False, "reason": "this worker is draining"}
    assert live.json()["checks"]["loops"]["reason"] == worker.stuck


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/", "GET", 404), ("/ready/", "GET", 404), ("/live", "POST", 405)]
)
def test_nothing_else_is_answered(ask: Callable[..., httpx.Response], path: str, method: str, status: int) -> None:
    assert ask(path, method).status_code == status


def test_without_a_port_nothing_listens_and_no_thread_runs(worker: _Worker) -> None:
    threads = threading.active_count()
    with serving(settings_of.Health(), worker.health) as address:
        assert (address, threading.active_count()) == (None, threads)


def test_a_port_that_is_taken_is_told_in_a_sentence(worker: _Worker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(SettingsError, match=f"port {port} .*choose another"),
            serving(settings_of.Health(port=port), worker.health),
        ):
            raise AssertionError


def test_the_port_is_free_again_afterwards(worker: _Worker) -> None:
    with serving(ANY_PORT, worker.health) as address:
        port = int(str(address).rpartition(":")[2])
        httpx.get(f"{address}/live")
    with serving(settings_of.Health(port=port), worker.health) as again:
        assert again == address


_SATURATED = """
import asyncio, sys, time
from tests.unit.workers.engine.test_health import ANY_PORT, _Worker
from workers.engine.health_server import serving

with serving(ANY_PORT, _Worker().health) as address:
    print(address, flush=True)
    until = time.monotonic() + float(sys.argv[1])
    while time.monotonic() < until:
        sum(range(1_000_000))
"""


def test_a_worker_whose_thread_has_no_moment_to_spare_answers_all_the_same() -> None:
    command = [sys.executable, "-c", _SATURATED, "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[4]) as running:
        try:
            assert running.stdout is not None
            address = running.stdout.readline().decode().strip()
            for _ in range(5):
                answer = httpx.get(f"{address}/ready", timeout=10)
                assert json.loads(answer.content)["checks"]["phase"]["ok"]
        finally:
            running.kill()
