"""`aibroker usage reprice` on a real ledger: corrections beside the rows, never a changed row, and nothing when it is done again."""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from bson.decimal128 import Decimal128

from broker.outgoing import encode
from schemas.usage import UsageEvent
from tests.integration.a_ledger import AT, Ledger, ledger_row

PERIOD = ("--since", "2026-11-01", "--until", "2026-11-02")
SETTINGS = """
prices:
  - {model: gpt-4o-mini, provider: openai, input: "1", output: "2", cache_read: "0.5"}
"""
SHOULD = Decimal("0.000018")  # 6 fresh, 4 cached, 5 out


@pytest.fixture(autouse=True)
def prices(ledger: Ledger, tmp_path: Path) -> None:
    del ledger  # it has made this folder the command's own
    (tmp_path / "aibroker.yaml").write_text(SETTINGS)


def rows(ledger: Ledger) -> list[dict[str, Any]]:
    return list(ledger.database["usage"].find().sort("_id", 1))


def test_without_write_nothing_is_written(ledger: Ledger) -> None:
    ledger.add(ledger_row(0), ledger_row(1))
    before = rows(ledger)
    (found,) = ledger.usage("reprice", *PERIOD)
    assert (found["rows"], found["new_price"]) == (2, "settings/gpt-4o-mini")
    assert Decimal(found["difference_usd"]) == 2 * (SHOULD - Decimal("0.0000001"))
    assert rows(ledger) == before


def test_corrections_stand_beside_the_rows_and_the_same_again_writes_none(ledger: Ledger) -> None:
    ledger.add(ledger_row(0), ledger_row(1, cost_usd=Decimal128("1")), ledger_row(2, cost_usd=Decimal128(SHOULD)))
    before = rows(ledger)
    ledger.usage("reprice", *PERIOD, "--write")
    after = rows(ledger)
    assert [row for row in after if "corrects" not in row] == before
    corrections = {row["corrects"]: row for row in after if "corrects" in row}
    assert set(corrections) == {"u0/1/1.1", "u1/1/1.1"}
    assert corrections["u1/1/1.1"]["cost_usd"].to_decimal() == SHOULD - 1
    assert corrections["u1/1/1.1"]["_id"] == "u1/1/1.1~1"
    assert ledger.usage("reprice", *PERIOD, "--write") == []
    assert rows(ledger) == after
    assert sum(Decimal(row["cost_usd"]) for row in ledger.usage("--by", "tenant")) == 3 * SHOULD
    assert sum(row["calls"] for row in ledger.usage("--by", "tenant")) == 3


def test_a_second_price_corrects_the_first_correction(ledger: Ledger, tmp_path: Path) -> None:
    ledger.add(ledger_row(0))
    ledger.usage("reprice", *PERIOD, "--write")
    (tmp_path / "aibroker.yaml").write_text(SETTINGS.replace('"1"', '"2"'))
    ledger.usage("reprice", *PERIOD, "--write")
    assert [row["_id"] for row in rows(ledger)] == ["u0/1/1.1", "u0/1/1.1~1", "u0/1/1.1~2"]
    assert sum(row["cost_usd"].to_decimal() for row in rows(ledger)) == SHOULD + Decimal("0.000006")


def test_a_correction_is_an_event_that_outsiders_can_read_and_workers_are_to_tell(ledger: Ledger) -> None:
    ledger.add(ledger_row(0, cost_usd=Decimal128("1")))
    ledger.usage("reprice", *PERIOD, "--write")
    (_, correction) = rows(ledger)
    assert correction.pop("untold") is True
    event = UsageEvent.model_validate_json(encode({"id": correction.pop("_id"), **correction}))
    assert (event.corrects, event.cost_usd, event.input_tokens) == ("u0/1/1.1", SHOULD - 1, 0)


def test_a_correction_counts_against_no_limit(ledger: Ledger) -> None:
    ledger.add(ledger_row(0, quota_keys=["tenant:acme/day/2026-11-01T00:00Z"], held_tokens=300))
    ledger.usage("reprice", *PERIOD, "--write")
    (_, correction) = rows(ledger)
    assert (correction["quota_keys"], correction["held_tokens"]) == ([], 0)


def test_rows_of_other_times_and_of_unknown_models_are_left_as_they_are(ledger: Ledger) -> None:
    ledger.add(ledger_row(0, request_model="nobody-knows"), ledger_row(60 * 24))
    (found,) = ledger.usage("reprice", *PERIOD, "--write")
    assert (found["model"], found["new_price"]) == ("nobody-knows", "unknown: left as it is")
    assert not [row for row in rows(ledger) if "corrects" in row]


def test_a_row_is_priced_at_its_own_instant_also_where_a_price_begins_inside_an_hour(
    ledger: Ledger, tmp_path: Path
) -> None:
    (tmp_path / "aibroker.yaml").write_text(
        "prices:\n"
        '  - {model: gpt-4o-mini, input: "1", output: "1", valid_until: "2026-11-01T08:30:20Z"}\n'
        '  - {model: gpt-4o-mini, input: "2", output: "2", valid_from: "2026-11-01T08:30:20Z"}\n'
    )
    old, new = Decimal128("0.000015"), Decimal128("0.00003")
    late = {"at": AT + timedelta(minutes=30, seconds=19)}
    ledger.add(ledger_row(45, cost_usd=new), ledger_row(30, cost_usd=old, **late), ledger_row(31, cost_usd=new))
    assert ledger.usage("reprice", *PERIOD) == []


def test_a_price_of_the_table_that_depends_on_the_hour_is_that_of_the_rows_minute(ledger: Ledger) -> None:
    day, night = AT.replace(hour=16, minute=29), AT.replace(hour=16, minute=31)
    chat = {"provider": "deepseek", "request_model": "deepseek-chat"}
    ledger.add(ledger_row(0, at=night, **chat), ledger_row(1, at=day, **chat))
    found = ledger.usage("reprice", *PERIOD)
    assert len({row["new_price"] for row in found}) == len(found) == 2
