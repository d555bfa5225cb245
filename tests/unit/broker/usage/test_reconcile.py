"""Every difference between an invoice and the ledger is named, with the rows of both sides, and nothing else is."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from broker.usage.columns import Line
from broker.usage.ledger import Row, row_of
from broker.usage.reconcile import Calls, Span, Sums, ledger_sums, span_difference, spans, unnamed

AT = datetime(2026, 11, 1, 8, tzinfo=UTC)
DAY = timedelta(days=1)


def line(key: str = "u/1/1.1", **fields: Any) -> Line:  # noqa: ANN401 any field of a line
    counts = {"input_tokens": 10, "output_tokens": 5}
    return Line(**{"place": "1", "request_id": key, "at": AT, "counts": counts, "cost": Decimal("0.1"), **fields})


def row(key: str = "u/1/1.1", correction: str = "0", **fields: Any) -> Row:  # noqa: ANN401 any field of a row
    document = {
        "_id": key,
        "at": AT,
        "request_model": "m",
        "input_tokens": 10,
        "output_tokens": 5,
        "cost_usd": Decimal("0.1"),
        "estimated": False,
    }
    return row_of({**document, **fields}, Decimal(correction))


def test_a_call_that_both_know_alike_is_no_difference() -> None:
    calls = Calls([line()])
    assert calls.add(row(), expected=True) is None
    assert list(calls.rest()) == []


def test_a_last_digit_is_a_difference_and_both_sides_rows_are_named() -> None:
    difference = Calls([line(cost=Decimal("0.1000000000001"))]).add(row(), expected=True)
    assert difference is not None
    assert (difference.kind, difference.invoice, difference.rows) == ("differs", ("1",), ("u/1/1.1",))
    assert difference.usd == Decimal("1E-13")


def test_counts_and_models_that_differ_are_told_apart() -> None:
    difference = Calls([line(counts={"input_tokens": 11}, model="n")]).add(row(), expected=True)
    assert difference is not None
    assert difference.what == {"input_tokens": (11, 10), "model": ("n", "m")}


def test_what_corrects_a_row_counts_with_it() -> None:
    assert Calls([line(cost=Decimal("0.07"))]).add(row(correction="-0.03"), expected=True) is None


def test_a_row_that_the_invoice_should_have_is_missing_on_it_and_one_outside_its_period_is_not() -> None:
    calls = Calls([line()])
    missing = calls.add(row("other"), expected=True)
    assert missing is not None
    assert (missing.kind, missing.rows, missing.usd) == ("not_on_invoice", ("other",), None)
    assert calls.add(row("later"), expected=False) is None


def test_an_estimated_row_is_missed_on_no_invoice_and_told_where_the_invoice_knows_it() -> None:
    calls = Calls([line()])
    assert calls.add(row("other", estimated=True), expected=True) is None
    known = calls.add(row(estimated=True), expected=True)
    assert known is not None
    assert known.kind == "estimated"


def test_a_line_without_a_row_is_told_unless_it_was_free() -> None:
    calls = Calls([line("a"), line("b", free=True, cost=None, counts=None)])
    (difference,) = calls.rest()
    assert (difference.kind, difference.usd, difference.rows) == ("not_in_ledger", Decimal("0.1"), ())


def test_a_call_that_is_charged_twice_is_told_with_both_lines() -> None:
    calls = Calls([line(), line(place="7")])
    calls.add(row(), expected=True)
    (difference,) = calls.rest()
    assert (difference.kind, difference.invoice, difference.usd) == ("twice", ["1", "7"], Decimal("0.1"))


def test_a_line_may_name_the_providers_own_id() -> None:
    calls = Calls([line(request_id=None, response_id="chatcmpl-1")])
    assert calls.add(row(response_id="chatcmpl-1"), expected=True) is None
    assert list(calls.rest()) == []


def sum_line(place: str, **fields: Any) -> Line:  # noqa: ANN401 any field of a line
    known = {"start": AT, "end": AT + DAY, "model": "m", "calls": 1, "counts": {"input_tokens": 10}}
    return Line(**{"place": place, "cost": Decimal("0.1"), **known, **fields})


def group(model: str = "m", credential: str = "main", **sums: Any) -> dict[str, Any]:  # noqa: ANN401 any sum
    counts = dict.fromkeys(("cache_read_input_tokens", "cache_creation_input_tokens", "reasoning_output_tokens"), 0)
    found = {"calls": 2, "input_tokens": 20, "output_tokens": 5, "cost_usd": Decimal("0.2"), **counts}
    return {"_id": {"model": model, "credential": credential}, **found, **sums}


def test_lines_of_one_time_and_model_are_added_up_and_keep_their_places() -> None:
    assert spans([sum_line("1"), sum_line("2")]) == {
        Span(AT, AT + DAY, "m", None): Sums(2, {"input_tokens": 20}, Decimal("0.2"), ("1", "2"))
    }


def test_only_what_the_invoice_says_is_compared() -> None:
    ours = ledger_sums(Span(AT, AT + DAY, "m", None), [group(), group("n"), group(credential="other")])
    assert (ours.calls, ours.cost) == (4, Decimal("0.4"))
    assert span_difference(Sums(4, {"input_tokens": 40}, None), ours) == {}
    assert span_difference(Sums(None, {"input_tokens": 41}, Decimal("0.5")), ours) == {
        "input_tokens": (41, 40),
        "cost_usd": (Decimal("0.5"), Decimal("0.4")),
    }


def test_a_span_without_a_model_is_of_all_models() -> None:
    assert ledger_sums(Span(AT, AT + DAY, None, None), [group(), group("n")]).calls == 4


def test_groups_that_no_span_means_are_told() -> None:
    known = [Span(AT, AT + DAY, "m", None)]
    assert [
        found["_id"]["model"] for found in unnamed(known, [group(), group("n"), group("o", calls=0, cost_usd=0)])
    ] == ["n"]
