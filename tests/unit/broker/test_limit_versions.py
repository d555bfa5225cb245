"""A file of limits is read whole or not at all, and a version is what was set."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.errors import SettingsError
from broker.limit_versions import LimitVersion, read_limits, restored, stored
from broker.settings import Settings

NOW = datetime(2026, 12, 1, 8, tzinfo=UTC)
GOOD = """
version: 3
quotas: [{tenant: acme, requests: 5}]
limits:
  - {scope: model, of: m, per: month, usd: "10.50", alerts: [90]}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "limits.yaml"
    path.write_text(text)
    return path


def test_a_file_says_limits_and_quotas_as_the_settings_do(tmp_path: Path) -> None:
    said = read_limits(written(tmp_path, GOOD))
    assert said.version == 3
    assert [(limit.scope, limit.per) for limit in said.whole] == [("tenant", "day"), ("model", "month")]


def test_limits_that_were_set_stand_in_place_of_all_of_the_settings_until_those_are_to_hold_again(
    tmp_path: Path,
) -> None:
    own = {"scope": "tenant", "of": "acme", "per": "hour", "requests": 1}
    settings = Settings.model_validate({"limits": [own], "quotas": [{"tenant": "*", "requests": 2}]})
    assert [(limit.per, limit.requests) for limit in settings.rulebook().limits] == [("day", 2), ("hour", 1)]
    said = LimitVersion(version=4, limits=read_limits(written(tmp_path, GOOD)).whole, at=NOW, by="ann")
    assert [limit.scope for limit in settings.rulebook(said).limits] == ["tenant", "model"]
    assert settings.rulebook(said).version == 4
    again = settings.rulebook(LimitVersion(version=5, limits=None, at=NOW, by="ann"))
    assert (again.version, len(again.limits)) == (5, 2)


def test_a_version_is_restored_as_it_was_stored(tmp_path: Path) -> None:
    said = LimitVersion(
        version=4, limits=read_limits(written(tmp_path, GOOD)).whole, at=NOW, by="ann", reason="a new month"
    )
    assert restored({"_id": 4, **stored(said)}) == said


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("limits:\n  - {scope: galaxy, per: day, requests: 1}\n", 2, "'organisation', 'tenant', 'tag', 'model'"),
        ("limits:\n  - scope: tenant\n    per: day\n    usd: '-1'\n", 4, "must be between 0 and 10^12 dollars"),
        (
            "limits:\n  - scope: tenant\n    per: day\n    requests: 1\n    time_zone: Europe/Berln\n",
            5,
            "Europe/Berlin",
        ),
        (
            "limits:\n  - {scope: tenant, per: day, requests: 1}\n  - {scope: tenant, per: day, requests: 2}\n",
            3,
            "same as",
        ),
        ("limits: []\nkafka: host:1\n", 2, "there is no such setting"),
        ("version: -1\nlimits: []\n", 1, "greater than or equal to 0"),
        ("limits:\n  - {scope: tenant, per: day, requests: 1, alerts: [0]}\n", 2, "0 is no threshold"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_what_is_allowed(
    tmp_path: Path, text: str, line: int, sentence: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        read_limits(written(tmp_path, text))
    said = str(refused.value)
    assert said.startswith(f"{tmp_path / 'limits.yaml'}:{line}: ")
    assert sentence in said
    assert said.endswith("deploy/settings.yaml says what is allowed")


@pytest.mark.parametrize("text", ["", "version: 3\n"])
def test_a_file_that_says_nothing_removes_nothing(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="limits: \\[\\]"):
        read_limits(written(tmp_path, text))
    assert read_limits(written(tmp_path, "limits: []\n")).whole == ()
