"""The kept sums of a real ledger: exact, the same when they are made again, and only of what is new."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from bson.decimal128 import Decimal128

from broker.usage.rollup import DIMENSIONS, SUMS
from tests.integration.a_ledger import AT, Ledger, ledger_row

DAY = datetime(2026, 11, 1, tzinfo=UTC)


def kept(ledger: Ledger, collection: str) -> list[dict[str, Any]]:
    return list(ledger.database[collection].find().sort("_id", 1))


def total(rows: list[dict[str, Any]], name: str) -> Any:  # noqa: ANN401 a count or an amount
    return sum(row[name].to_decimal() if isinstance(row[name], Decimal128) else row[name] for row in rows)


def test_hours_and_days_are_the_ledgers_sums_to_the_last_digit(ledger: Ledger) -> None:
    ledger.add(*(ledger_row(number) for number in range(130)))
    ledger.add(ledger_row(130, billed=False, outcome="failed", cost_usd=Decimal128("0.0000000000003"), estimated=True))
    (said,) = ledger.usage("rollup")
    assert (said["hours_summed"], said["rows_summed"]) == (3, 131)
    for collection in ("usage_hourly", "usage_daily"):
        rows = kept(ledger, collection)
        assert total(rows, "cost_usd") == Decimal("0.0000130")
        assert total(rows, "unbilled_usd") == total(rows, "failed_usd") == Decimal("0.0000000000003")
        assert (total(rows, "jobs"), total(rows, "calls"), total(rows, "estimated_calls")) == (130, 131, 1)
        assert total(rows, "input_tokens") == 1_300
        assert all({*DIMENSIONS, *SUMS} <= row.keys() for row in rows)
    assert {row["day"] for row in kept(ledger, "usage_daily")} == {DAY}
    assert len(kept(ledger, "usage_daily")) == 3


def test_the_same_again_changes_nothing_and_sums_nothing(ledger: Ledger) -> None:
    ledger.add(*(ledger_row(number) for number in range(90)))
    ledger.usage("rollup")
    before = kept(ledger, "usage_hourly"), kept(ledger, "usage_daily")
    (said,) = ledger.usage("rollup")
    assert said["hours_summed"] == 0
    ledger.usage("rollup", "--since", "2026-11-01")
    assert (kept(ledger, "usage_hourly"), kept(ledger, "usage_daily")) == before


def test_only_hours_of_rows_that_are_new_are_summed_again(ledger: Ledger) -> None:
    now = datetime.now(UTC)
    ledger.add(*(ledger_row(number) for number in range(120)))
    ledger.usage("rollup")
    ledger.add(ledger_row(500, at=AT + timedelta(minutes=5), recorded_at=now))
    (said,) = ledger.usage("rollup")
    assert (said["hours_seen"], said["hours_summed"], said["rows_summed"]) == (1, 1, 61)
    assert total(kept(ledger, "usage_daily"), "rows") == 121


def test_a_row_that_became_visible_long_after_it_was_recorded_is_summed(ledger: Ledger) -> None:
    now = datetime.now(UTC)
    ledger.add(ledger_row(0))
    ledger.usage("rollup")
    ledger.add(ledger_row(1, at=now - timedelta(hours=20), recorded_at=now - timedelta(hours=20)))
    ledger.usage("rollup")
    assert total(kept(ledger, "usage_daily"), "rows") == 2


def test_a_run_that_was_stopped_before_its_days_is_made_up_for(ledger: Ledger) -> None:
    ledger.add(*(ledger_row(number) for number in range(3)))
    ledger.usage("rollup")
    ledger.database["usage_daily"].delete_many({})
    ledger.database["rollups"].delete_many({})
    (said,) = ledger.usage("rollup")
    assert said["hours_summed"] == 0
    assert total(kept(ledger, "usage_daily"), "rows") == 3


def test_tags_tell_sums_apart_and_a_correction_is_no_call(ledger: Ledger) -> None:
    ledger.add(ledger_row(0, tags={"team": "red"}), ledger_row(2, tags={"team": "blue"}))
    nothing = dict.fromkeys(("input_tokens", "cache_read_input_tokens", "output_tokens", "queued_ms", "provider_ms"), 0)
    correction = {"_id": "u0/1/1.1~1", "corrects": "u0/1/1.1", "cost_usd": Decimal128("-0.00000003")}
    ledger.add(ledger_row(0, tags={"team": "red"}, **nothing, **correction))
    ledger.usage("rollup")
    red, blue = sorted(kept(ledger, "usage_daily"), key=lambda row: row["tags"]["team"], reverse=True)
    assert (red["calls"], red["jobs"], red["rows"]) == (1, 1, 2)
    assert red["cost_usd"].to_decimal() == Decimal("0.00000007")
    assert blue["cost_usd"].to_decimal() == Decimal("0.0000001")


def test_an_empty_ledger_has_no_sums(ledger: Ledger) -> None:
    (said,) = ledger.usage("rollup")
    assert (said["hours_seen"], kept(ledger, "usage_hourly")) == (0, [])
