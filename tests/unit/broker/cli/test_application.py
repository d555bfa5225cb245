"""The command as a whole: its help, its exit codes, and what it says where something is wrong."""

import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from broker.cli import commands
from broker.cli.application import exit_code, run, sentence
from broker.errors import AibrokerError, ControlRefused, JobRefused, KafkaMissing, SettingsError, UsageError
from broker.local.errors import PortTaken

CHAT = b'{"body": {"model": "m", "messages": [{"role": "user", "content": "hi"}]}}\n'
COMMANDS = (
    *(
        "demo",
        "up",
        "submit",
        "status",
        "results",
        "usage",
        "limits",
        "doctor",
        "topics",
        "worker",
        "workers",
        "drain",
        "simulate",
    ),
    *("cancel", "rerun", "pause", "resume", "dead"),
)


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings file and no local stack lies in the folder where the command runs."""
    monkeypatch.chdir(tmp_path)


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"], {}) == 0
    shown = capsys.readouterr().out
    assert all(f" {command} " in shown for command in COMMANDS)
    assert set(commands.COMMANDS) == set(COMMANDS)


def test_the_help_waits_for_no_client_of_kafka_or_mongodb() -> None:
    program = "import sys; from broker.cli.application import run; run(['--help'], {}); print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    imported = set(ended.stdout.splitlines()[-1].split())
    assert "typer" in imported
    assert not {"aiokafka", "pymongo", "faststream", "httpx", "aiohttp"} & imported


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_the_list_says_the_same(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([command, "--help"], {}) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Usage: aibroker" in said
    assert f" {commands.COMMANDS[command].short}" in said


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"], {}) == 0
    assert re.fullmatch(r"aibroker \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_a_wrong_setting_is_one_sentence_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["usage"], {"AIBROKER_LEASE_S": "long"}) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "AIBROKER_LEASE_S" in said.err
    assert "Traceback" not in said.err


def test_a_traceback_is_shown_when_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--traceback", "usage"], {"AIBROKER_LEASE_S": "long"}) == 2
    assert "Traceback" in capsys.readouterr().err


def test_the_settings_file_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("kafka: host:9092\nlease_s: 1\n")
    assert run(["--settings", str(path), "usage"], {}) == 2
    assert "own.yaml:2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit"],
        ["submit", "nothing.jsonl"],
        ["submit", "--ttl", "soon", "-"],
        ["submit", "--priority", "urgent", "-"],
        ["status", "a", "--batch", "b"],
        ["results", "--job", "a", "--batch", "b"],
        ["results", "--status", "waiting"],
        ["usage", "--by", "colour"],
        ["usage", "--since", "yesterday"],
        ["up", "--behaviour", "nothing.yaml"],
        ["limits", "set"],
        ["limits", "set", "nothing.yaml"],
        ["limits", "show", "-1"],
        ["limits", "reset"],
        ["cancel"],
        ["cancel", "a", "--batch", "b"],
        ["pause"],
        ["pause", "--all", "--batch", "b"],
        ["resume", "--tenant", "acme", "--all"],
        ["rerun"],
        ["rerun", "a", "--batch", "b"],
        ["rerun", "--status", "waiting"],
        ["rerun", "--batch", "b", "--status", "failed,succeeded"],
        ["rerun", "--since", "yesterday"],
        ["dead", "show", "seventeen"],
        ["dead", "retry"],
        ["dead", "retry", "2/17", "--reason", "undecodable"],
        ["nonsense"],
    ],
)
def test_wrong_use_is_exit_code_2_without_a_traceback(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments, {}) == 2
    said = capsys.readouterr().err
    assert said
    assert "Traceback" not in said


def test_a_priority_that_is_none_is_told_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["submit", "--priority", "nonsense", "-"], {}) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "there is no priority 'nonsense'; choose from interactive, normal, batch" in said


def test_a_folder_on_which_no_stack_runs_is_a_missing_service(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["usage", "--data", "elsewhere"], {}) == 3
    assert "aibroker up --data elsewhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("s"), 2),
        (UsageError("s"), 2),
        (JobRefused("invalid_job", "s"), 2),
        (ControlRefused("already_ended", "s"), 2),
        (KafkaMissing("s"), 3),
        (PortTaken("s"), 3),
        (OSError(28, "No space left on device"), 3),
        (AibrokerError("s"), 1),
        (ZeroDivisionError(), 70),
    ],
)
def test_every_error_has_its_exit_code(error: Exception, code: int) -> None:
    assert exit_code(error) == code


def test_an_error_of_the_system_is_a_sentence_with_the_place() -> None:
    said = sentence(OSError(28, "No space left on device", "out.jsonl"))
    assert said.startswith("aibroker: out.jsonl: No space left on device")


def test_a_checked_file_lists_what_would_be_refused(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_bytes(CHAT + b"\n[]\n" + CHAT)
    assert run(["submit", str(path), "--check", "--json"], {}) == 1
    refused, summary = map(orjson.loads, capfdbinary.readouterr().out.splitlines())
    assert (refused["event"], refused["line"], refused["code"]) == ("refused", 3, "undecodable")
    assert (summary["event"], summary["jobs"], summary["refused"]) == ("checked", 2, 1)
    assert re.fullmatch(r"[0-9a-f]{16}", summary["batch_id"])


def test_a_line_whose_tag_its_tenant_may_not_use_is_refused_with_what_is_allowed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings, path = tmp_path / "aibroker.yaml", tmp_path / "jobs.jsonl"
    settings.write_text("tenants: {acme: {tags: {team: [red, blue]}}}")
    tagged = [{"tenant": "acme", "tags": {"team": team}} for team in ("red", "rde")]
    lines = [
        {**fields, "body": orjson.loads(CHAT)["body"]} for fields in (*tagged, {"tenant": "other", "tags": {"a": "b"}})
    ]
    path.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    assert run(["submit", str(path), "--check"], {"AIBROKER_SETTINGS": str(settings)}) == 1
    told = capfd.readouterr()
    assert (
        "line 2: tag_not_allowed: tags.team: 'rde' is no value of this tag; did you mean red? allowed are red, blue"
        in told.err
    )
    assert "2 jobs could be sent" in told.out


def test_a_checked_file_without_fault_is_exit_code_0(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_bytes(CHAT)
    assert run(["submit", str(path), "--check"], {}) == 0
    assert "1 jobs could be sent" in capfd.readouterr().out


def test_an_id_that_stands_on_two_lines_is_refused_the_second_time(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_bytes(CHAT.replace(b'{"body"', b'{"id": "a", "body"') * 2)
    assert run(["submit", str(path), "--check"], {}) == 1
    assert "line 2: id_conflict" in capfd.readouterr().err
