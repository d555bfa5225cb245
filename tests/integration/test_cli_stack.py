"""What `aibroker up` starts: a deployment that serves a file from submit to results and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from broker.local.stack import Stack

PROGRAM = Path(sys.executable).parent / "aibroker"
BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}


class Up:
    """`aibroker up` on a folder, with the servers that all tests share."""

    def __init__(self, data: Path, environment: dict[str, str], process: "subprocess.Popen[bytes]") -> None:
        self.data = data
        self.environment = environment
        self.process = process

    @property
    def stack(self) -> dict[str, Any]:
        """What outsiders find in `stack.json`."""
        found: dict[str, Any] = json.loads((self.data / "stack.json").read_bytes())
        return found

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        """Run another command against it, as a user in another terminal does."""
        command = [str(PROGRAM), *arguments, "--data", str(self.data)]
        return subprocess.run(command, env=self.environment, capture_output=True, timeout=90, check=False)


@pytest.fixture
def up(stack: Stack, prefix: str, tmp_path: Path) -> Iterator[Up]:
    """A running one, with a worker and a simulator of its own."""
    data = tmp_path / "data"
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "AIBROKER_PREFIX": prefix}
    command = [
        str(PROGRAM),
        "up",
        "--data",
        str(data),
        "--workers",
        "1",
        "--kafka",
        stack.kafka_url,
        "--mongo",
        stack.mongo_url,
    ]
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
    try:
        give_up = time.monotonic() + 90
        while b"aibroker is up" not in (tmp_path / "said").read_bytes():
            assert process.poll() is None, (tmp_path / "said").read_text()
            assert time.monotonic() < give_up, (tmp_path / "said").read_text()
            time.sleep(0.1)
        yield Up(data, environment, process)
    finally:
        process.kill()
        process.wait(10)


def test_a_file_goes_from_submit_to_results_and_up_stops_cleanly(up: Up, tmp_path: Path) -> None:
    path, out = tmp_path / "jobs.jsonl", tmp_path / "out.jsonl"
    lines = [
        {"custom_id": f"request-{number}", "method": "POST", "url": "/v1/chat/completions", "body": BODY}
        for number in range(300)
    ]
    path.write_bytes(b"\n".join(map(orjson.dumps, lines)))

    ended = up.run("submit", str(path), "--follow", "--tenant", "acme", "--json")
    assert ended.returncode == 0, ended.stderr
    submitted, followed = map(json.loads, ended.stdout.splitlines())
    assert submitted["jobs"] == 300
    assert followed["states"] == {"succeeded": 300}
    give_up = time.monotonic() + 30
    sealed = None
    while sealed != 300:  # the seal is read apart from the jobs
        assert time.monotonic() < give_up
        status = up.run("status", "--batch", submitted["batch_id"], "--tenant", "acme", "--json")
        sealed = json.loads(status.stdout)["sealed_total"]

    ended = up.run("results", "--batch", submitted["batch_id"], "--tenant", "acme", "-o", str(out))
    assert ended.returncode == 0, ended.stderr
    results = [json.loads(line) for line in out.read_bytes().splitlines()]
    assert {result["custom_id"] for result in results} == {line["custom_id"] for line in lines}
    assert all(result["response"]["status_code"] == 200 for result in results)

    path.write_bytes(orjson.dumps({"body": {**BODY, "model": "no-such-model"}}))
    ended = up.run("submit", str(path), "--follow")
    assert ended.returncode == 1
    assert b"unknown_model" in ended.stdout

    assert up.run("doctor").returncode == 0
    ended = up.run("usage", "--by", "tenant", "--json")
    assert json.loads(ended.stdout)["jobs"] == 300

    pids = [up.stack["pids"]["simulator"], *up.stack["pids"]["workers"]]
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(60) == 0
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not (up.data / "stack.json").exists()


def test_a_worker_that_dies_is_replaced(up: Up) -> None:
    (first,) = up.stack["pids"]["workers"]
    os.kill(first, signal.SIGKILL)
    give_up = time.monotonic() + 60
    while up.stack["pids"]["workers"] in ([first], []):
        assert time.monotonic() < give_up
        time.sleep(0.1)


def test_a_worker_that_was_drained_is_not_replaced(up: Up) -> None:
    (pid,) = up.stack["pids"]["workers"]
    ended = up.run("drain", "--all", "--json")
    assert [json.loads(line)["state"] for line in ended.stdout.splitlines()] == ["draining"]
    give_up = time.monotonic() + 60
    while up.stack["pids"]["workers"]:
        assert up.stack["pids"]["workers"] == [pid]
        assert time.monotonic() < give_up
        time.sleep(0.1)
    assert b"no worker lives" in up.run("workers").stdout
    assert up.process.poll() is None
