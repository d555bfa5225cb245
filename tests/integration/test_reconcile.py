"""`aibroker usage reconcile` against a real ledger: agreement, every kind of difference with its rows, exit codes."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from bson.decimal128 import Decimal128

from broker.cli.application import run
from tests.integration.a_ledger import AT, Ledger, ledger_row


def call(number: int, **fields: object) -> dict[str, Any]:
    at = (AT + timedelta(minutes=number)).isoformat()
    return {"request_id": f"u{number}/1/1.1", "at": at, "cost_usd": "0.0000001", "input_tokens": 10, **fields}


Reconcile = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def reconcile(ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Reconcile:
    """Compares lines with the ledger: the exit code, and the differences."""

    def compare(lines: list[dict[str, Any]] | str, *options: str) -> tuple[int, list[dict[str, Any]]]:
        file = tmp_path / "invoice"
        file.write_text(lines if isinstance(lines, str) else "".join(f"{json.dumps(line)}\n" for line in lines))
        code = run(["usage", "reconcile", "--invoice", str(file), "--json", *options], ledger.environment)
        said = capsys.readouterr()
        assert code in {0, 1}, said.err
        return code, [json.loads(line) for line in said.out.splitlines()]

    return compare


def test_an_invoice_that_says_the_same_agrees(ledger: Ledger, reconcile: Reconcile) -> None:
    ledger.add(*(ledger_row(number) for number in range(3)))
    assert reconcile([call(number) for number in range(3)]) == (0, [])


def test_every_difference_is_named_with_its_rows(ledger: Ledger, reconcile: Reconcile) -> None:
    ledger.add(ledger_row(0), ledger_row(1), ledger_row(2, estimated=True), ledger_row(4), ledger_row(5))
    code, found = reconcile([call(0), call(1, cost_usd="0.0000002"), call(2), call(3), call(5)])
    assert code == 1
    named = {(each["kind"], *each["invoice_lines"], *each["ledger_rows"]) for each in found}
    assert named == {
        ("differs", "2", "u1/1/1.1"),
        ("estimated", "3", "u2/1/1.1"),
        ("not_in_ledger", "4"),
        ("not_on_invoice", "u4/1/1.1"),
    }
    (differs,) = (each for each in found if each["kind"] == "differs")
    assert (differs["difference_usd"], differs["what"]["cost_usd"]["ledger"]) == ("0.0000001", "0.0000001")


def test_rows_outside_the_invoices_period_are_not_missed_on_it_unless_it_is_said_to_hold_them(
    ledger: Ledger, reconcile: Reconcile
) -> None:
    ledger.add(*(ledger_row(number) for number in range(4)))
    assert reconcile([call(1), call(2)])[0] == 0
    code, found = reconcile([call(1), call(2)], "--since", "2026-11-01", "--until", "2026-11-02")
    assert (code, {tuple(each["ledger_rows"]) for each in found}) == (1, {("u0/1/1.1",), ("u3/1/1.1",)})


def test_another_credentials_rows_are_on_another_invoice(ledger: Ledger, reconcile: Reconcile) -> None:
    ledger.add(ledger_row(0), ledger_row(1, credential="other"), ledger_row(2))
    assert reconcile([call(0), call(2)], "--credential", "main") == (0, [])


def test_a_correction_counts_with_the_row_that_it_corrects(ledger: Ledger, reconcile: Reconcile) -> None:
    nothing = dict.fromkeys(("input_tokens", "cache_read_input_tokens", "output_tokens"), 0)
    correction = ledger_row(0, _id="u0/1/1.1~1", corrects="u0/1/1.1", cost_usd=Decimal128("-0.00000003"), **nothing)
    ledger.add(ledger_row(0), correction)
    assert reconcile([call(0, cost_usd="0.00000007")]) == (0, [])


def test_sums_of_a_day_are_compared_and_the_rows_behind_a_difference_are_named(
    ledger: Ledger, reconcile: Reconcile
) -> None:
    ledger.add(*(ledger_row(number) for number in range(3)))
    table = "start_time,end_time,num_model_requests,model,input_tokens,output_tokens,input_cached_tokens\n"
    start = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp())
    same = f"{start},{start + 86_400},3,gpt-4o-mini-2024-07-18,30,15,12\n"
    assert reconcile(table + same) == (0, [])
    code, (found,) = reconcile(table + same.replace(",30,", ",31,"))
    assert (code, found["what"]) == (1, {"input_tokens": {"invoice": 31, "ledger": 30}})
    assert found["invoice_lines"] == ["2"]
    assert sorted(found["ledger_rows"]) == [f"u{number}/1/1.1" for number in range(3)]


def test_a_model_that_the_invoice_leaves_out_is_named(ledger: Ledger, reconcile: Reconcile) -> None:
    ledger.add(ledger_row(0), ledger_row(1, response_model="other"))
    span = {"start": "2026-11-01", "end": "2026-11-02", "model": "gpt-4o-mini-2024-07-18", "cost_usd": "0.0000001"}
    code, (found,) = reconcile([span])
    assert (code, found["kind"], found["ledger_rows"]) == (1, "not_on_invoice", ["u1/1/1.1"])
    assert "other" in found["about"]
    assert Decimal(found["what"]["cost_usd"]["ledger"]) == Decimal("0.0000001")


def test_the_table_shows_both_sides_and_a_wrong_file_is_exit_code_2(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.add(ledger_row(0))
    file = tmp_path / "invoice.csv"
    file.write_text("request_id,at,cost_usd\nu0/1/1.1,2026-11-01T08:00:00Z,0.5\n")
    assert run(["usage", "reconcile", "--invoice", str(file)], ledger.environment) == 1
    said = capsys.readouterr()
    assert "0.4999999" in said.out
    assert "1 differences in 1 lines" in said.err
    file.write_text("request_id,cost\nu0/1/1.1,1\n")
    assert run(["usage", "reconcile", "--invoice", str(file)], ledger.environment) == 2
    assert f"{file}:2: cost: there is no such column" in capsys.readouterr().err
