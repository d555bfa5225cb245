"""`aibroker usage` as a table, CSV, Parquet, bars and a picture: exact dollars wherever the form can hold them."""

import csv
import sys
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet
import pytest
from bson.decimal128 import Decimal128

from broker.cli.application import run
from tests.integration.a_ledger import Ledger, ledger_row


@pytest.fixture(autouse=True)
def some_rows(ledger: Ledger) -> None:
    ledger.add(*(ledger_row(number) for number in range(3)))
    ledger.add(ledger_row(4, cost_usd=Decimal128("0.0000000000000000000001")))


def test_csv_has_every_digit(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["usage", "--by", "tenant", "--format", "csv"], ledger.environment) == 0
    rows = {row["tenant"]: row for row in csv.DictReader(capsys.readouterr().out.splitlines())}
    assert rows["globex"]["cost_usd"] == "0.0000002000000000000001"
    assert (rows["acme"]["calls"], rows["acme"]["input_tokens"]) == ("1", "10")


def test_parquet_has_exact_decimals(ledger: Ledger, tmp_path: Path) -> None:
    file = tmp_path / "usage.parquet"
    assert run(["usage", "--by", "tenant,day", "-o", str(file)], ledger.environment) == 0
    table = pyarrow.parquet.read_table(file)
    assert str(table.schema.field("cost_usd").type) == "decimal128(38, 22)"
    assert sum(table["cost_usd"].to_pylist()) == Decimal("0.0000003000000000000001")
    assert set(table["day"].to_pylist()) == {"2026-11-01"}


def test_the_terminal_shows_bars_and_a_file_a_picture(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["usage", "--by", "tenant", "--format", "plot"], ledger.environment) == 0
    shown = capsys.readouterr().out
    longest, shorter = (shown.splitlines()[line].count("█") for line in (1, 2))
    assert (longest, shorter) == (50, 25)
    for by in ("tenant", "day,tenant", "day"):
        file = tmp_path / f"{by}.png"
        assert run(["usage", "--by", by, "-o", str(file)], ledger.environment) == 0
        assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-o", "usage.xls"], "choose from .csv, .parquet, .png"),
        (["-o", "usage.csv", "--format", "plot"], "usage.csv is for csv, --format says plot"),
        (["--format", "parquet"], "name one with --output"),
    ],
)
def test_a_form_that_cannot_be_is_one_sentence(
    options: list[str], said: str, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["usage", *options], ledger.environment) == 2
    assert said in capsys.readouterr().err


def test_an_extra_that_is_not_installed_is_named(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert run(["usage", "-o", str(tmp_path / "u.parquet")], ledger.environment) == 2
    assert "pip install 'aibroker[parquet]'" in capsys.readouterr().err


def test_a_correction_is_no_call(ledger: Ledger) -> None:
    nothing = dict.fromkeys(("input_tokens", "cache_read_input_tokens", "output_tokens"), 0)
    corrects = {"_id": "u1/1/1.1~1", "corrects": "u1/1/1.1", "cost_usd": Decimal128("-0.00000005")}
    ledger.add(ledger_row(1, **nothing, **corrects))
    found = {row["tenant"]: row for row in ledger.usage("--by", "tenant")}
    assert (found["acme"]["calls"], found["acme"]["jobs"], found["acme"]["cost_usd"]) == (1, 1, "0.00000005")
