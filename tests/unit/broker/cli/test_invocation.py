"""Where a command finds its services."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from broker.cli.invocation import DEFAULT_DATA, Invocation, running_stack
from broker.errors import ServiceMissing


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def stack(folder: Path, pid: int, database: str = "aibroker") -> None:
    folder.mkdir(exist_ok=True)
    pids: dict[str, object] = {"kafka": None, "mongod": pid, "simulator": None, "workers": []}
    addresses = {
        "kafka": "h:1",
        "mongo": "mongodb://h:2",
        "database": database,
        "simulator": "http://h:3",
        "pids": pids,
    }
    (folder / "stack.json").write_text(json.dumps(addresses))


def test_a_stack_that_is_named_leads_to_its_servers_and_its_simulator(tmp_path: Path) -> None:
    stack(tmp_path, os.getpid(), "other")
    settings = Invocation({}).settings(tmp_path)
    assert (settings.kafka, settings.mongo.get_secret_value(), settings.prefix) == ("h:1", "mongodb://h:2", "other")
    assert settings.providers["simulator"].base_url == "http://h:3/v1"


def test_a_provider_of_the_settings_keeps_the_simulator_out(tmp_path: Path) -> None:
    stack(tmp_path, os.getpid())
    settings = Invocation({"AIBROKER_PROVIDERS_OPENAI_BASE_URL": "https://h"}).settings(tmp_path)
    assert list(settings.providers) == ["openai"]


def test_what_a_killed_stack_left_behind_is_no_running_stack(tmp_path: Path) -> None:
    stack(tmp_path, ended_process())
    assert running_stack(tmp_path) is None
    with pytest.raises(ServiceMissing, match="aibroker up"):
        Invocation({}).settings(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pids": {}}'])
def test_a_file_that_says_something_else_is_no_running_stack(text: str, tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text(text)
    assert running_stack(tmp_path) is None


def test_the_stack_in_the_usual_folder_is_found_unless_something_else_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stack(tmp_path / DEFAULT_DATA, os.getpid())
    assert Invocation({}).settings().kafka == "h:1"
    assert Invocation({"AIBROKER_KAFKA": "mine:9092"}).settings().kafka == "mine:9092"
    (tmp_path / DEFAULT_DATA / "stack.json").unlink()
    assert Invocation({}).settings().kafka != "h:1"
