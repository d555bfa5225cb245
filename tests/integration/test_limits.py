"""Limits by command on a real MongoDB: every version is kept, writers do not undo each other, and workers heed the last one without a restart."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from broker.cli.application import run
from broker.local.stack import Stack
from tests.integration.a_ledger import Ledger
from tests.integration.deployment import chat, deployed

pytestmark = pytest.mark.timeout(180)
SMALL = "limits:\n  - {scope: tenant, of: acme, per: lifetime, requests: 5}\n"
LARGER = """
version: 1
limits:
  - {scope: tenant, of: acme, per: lifetime, requests: 8}
  - {scope: tenant, of: acme, per: lifetime, requests: 6, mode: shadow}
"""


class Typed:
    """Types commands, and reads what they write."""

    def __init__(self, environment: dict[str, str], terminal: pytest.CaptureFixture[str]) -> None:
        self._environment, self._terminal = environment, terminal

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command that has to end with `code`; what it says."""
        self._terminal.readouterr()
        ended = run(["limits", *arguments], self._environment)
        said = self._terminal.readouterr()
        assert ended == code, said.err
        return said.err if code else said.out

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """The lines of JSON that a command writes."""
        return [json.loads(line) for line in self(*arguments, "--json").splitlines()]


def test_versions_are_set_shown_and_kept_and_the_settings_can_hold_again(ledger: Ledger, tmp_path: Path) -> None:
    own, file = tmp_path / "own.yaml", tmp_path / "limits.yaml"
    own.write_text("quotas: [{tenant: '*', usd: '2.50'}]\n")
    typed = Typed({**ledger.environment, "AIBROKER_SETTINGS": str(own)}, ledger.capsys)
    [row] = typed.rows()
    assert (row["limit_of"], row["limit"], row["left"], row["version"]) == ("tenant:*", "2.5", "2.5", 0)
    assert "never set by command" in typed("history")

    file.write_text(typed("show").replace("2.50", "7.50").replace("2.5", "7.5"))
    assert file.read_text().startswith("version: 0\n")
    [told] = typed.rows("set", str(file), "--reason", "a new month")
    assert (told["event"], told["version"], told["limits"]) == ("limits_set", 1, 1)
    [row] = typed.rows()
    assert (row["limit"], row["version"]) == ("7.5", 1)

    file.write_text("version: 1\nlimits: []\n")
    typed("set", str(file))
    assert "version 2 has no limits" in typed()
    typed("reset", "--based-on", "2")
    assert [row["limit"] for row in typed.rows()] == ["2.5"]
    history = typed.rows("history")
    assert [(said["version"], said["limits"], said["reason"]) for said in history] == [
        (1, 1, "a new month"),
        (2, 0, None),
        (3, "of the settings", None),
    ]
    assert all("@" in said["by"] for said in history)
    assert "7.5" in typed("show", "1")
    assert "no version 9" in typed("show", "9", code=2)


def test_of_two_who_change_the_same_version_one_is_told_and_nothing_is_lost(ledger: Ledger, tmp_path: Path) -> None:
    typed, file = Typed(ledger.environment, ledger.capsys), tmp_path / "limits.yaml"
    file.write_text(SMALL)
    assert "say which version it changes" in typed("set", str(file), code=2)
    typed("set", str(file), "--based-on", "0")
    said = typed("set", str(file), "--based-on", "0", code=2)
    assert "version 1, which" in said
    assert "nothing was set" in said
    assert "changes version 6" in typed("set", str(file), "--based-on", "6", code=2)
    assert len(typed.rows("history")) == 1


def test_a_wrong_file_changes_nothing(ledger: Ledger, tmp_path: Path) -> None:
    typed, file = Typed(ledger.environment, ledger.capsys), tmp_path / "limits.yaml"
    file.write_text("version: 0\n" + SMALL + "  - {scope: tenant, per: fortnight, requests: 1}\n")
    said = typed("set", str(file), code=2)
    assert f"{file}:4: limits.1.per: " in said
    assert "'month'" in said
    assert ledger.database["limits"].count_documents({}) == 0


async def test_workers_heed_new_limits_without_a_restart_and_show_what_a_shadow_would_have_refused(
    stack: Stack, prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "limits.yaml"
    async with deployed(stack, prefix) as deployment:
        typed = Typed(dict(deployment.environment), capsys)

        async def say(text: str, *arguments: str) -> None:
            file.write_text(text)
            await asyncio.to_thread(typed, "set", str(file), *arguments)

        await say(SMALL, "--based-on", "0")
        workers = await deployment.workers(2)
        await deployment.send([chat(f"a{number}", tenant="acme") for number in range(20)])
        await deployment.until_count(5, {"billed": True}, collection="usage")
        await deployment.until_count(15, {"state": "waiting", "why_waiting": "quota"})
        await say(LARGER)
        await deployment.until_count(8, {"billed": True}, collection="usage")
        await deployment.until_count(12, {"state": "waiting", "why_waiting": "quota"})

        await say("version: 2\nlimits:\n  - {scope: tenant, of: acme, per: lifetime, requests: 2, mode: shadow}\n")
        await deployment.until_count(20, {"billed": True}, collection="usage")

        async def settled() -> list[dict[str, Any]]:
            return await asyncio.to_thread(typed.rows)

        async def all_is_told() -> bool:
            [row] = await settled()
            return bool(row["spent"] == "15" and row["held"] == "0")

        await deployment.until(all_is_told)
        [row] = await settled()
        assert (row["limit_of"], row["mode"], row["left"], row["version"]) == ("shadow-tenant:acme", "shadow", "0", 3)
        await deployment.send([chat(f"b{number}", tenant="acme") for number in range(4)])

        async def shown() -> bool:
            [row] = await settled()
            return bool(row["passed_over"] >= 4)

        await deployment.until(shown)
        await deployment.stop(*workers)
