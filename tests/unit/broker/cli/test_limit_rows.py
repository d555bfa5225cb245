"""What is left of a limit, as the books of the workers say."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from broker.cli.limit_rows import limit_rows
from broker.limits import Limit, Rulebook

DAY = datetime(2026, 12, 1, tzinfo=UTC)
NOW = DAY + timedelta(hours=8)


def amounts(requests: int, usd: str = "0") -> dict[str, Any]:
    return {"requests": requests, "tokens": 0, "usd": Decimal(usd)}


def book(owner: str = "tenant:acme", start: datetime = DAY, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 any field of a book
    window = {"start": start, "end": start + timedelta(days=1)}
    return {"subject": owner, "per": "day", **window, "closed": amounts(0), "grants": {}, "told": {}, **fields}


def limit(**fields: Any) -> Limit:  # noqa: ANN401 any field of a limit
    return Limit.model_validate({"scope": "tenant", "of": "*", "per": "day", "requests": 100, **fields})


def test_what_is_spent_held_and_left_add_up_to_the_limit() -> None:
    whole = book(
        closed=amounts(10),
        grants={"w1": amounts(30), "w2": amounts(5)},
        told={"w1": {**amounts(20), "passed_over": 0}, "gone": {**amounts(0), "passed_over": 0}},
    )
    [row] = limit_rows(Rulebook([limit()], {}), [whole], NOW)
    assert (row["limit_of"], row["unit"], row["limit"]) == ("tenant:acme", "requests", 100)
    assert (row["spent"], row["held"], row["left"]) == (30, 15, 55)
    assert (row["window_end"], row["passed_over"]) == (DAY + timedelta(days=1), None)


def test_what_a_shadow_let_pass_is_shown_also_of_workers_that_are_gone() -> None:
    told = {name: {**amounts(60), "passed_over": 7} for name in ("w1", "gone")}
    shadow = book("shadow-tenant:acme", grants={"w1": amounts(120)}, told=told)
    [row] = limit_rows(Rulebook([limit(mode="shadow")], {}), [shadow], NOW)
    assert (row["passed_over"], row["left"], row["mode"]) == (14, 0, "shadow")


def test_each_unit_has_a_row() -> None:
    rows = limit_rows(Rulebook([limit(usd="2.50")], {}), [book(closed=amounts(1, "0.25"))], NOW)
    assert [(row["unit"], row["left"]) for row in rows] == [("requests", 99), ("usd", Decimal("2.25"))]


def test_a_limit_that_nobody_has_met_yet_is_shown_as_it_was_declared() -> None:
    of_jobs = limit(scope="job", per="lifetime", at_limit="reject")
    named = limit(scope="model", of="m", tenant="*", mode="shadow")
    rows = limit_rows(Rulebook([limit(), named, of_jobs], {}), [book()], NOW)
    assert [row["limit_of"] for row in rows] == ["tenant:acme", "shadow-model@*:m", "job:*"]


def test_books_of_other_windows_and_of_limits_that_are_no_more_are_left_out() -> None:
    books = [book(start=DAY - timedelta(days=1)), book("model:m")]
    [row] = limit_rows(Rulebook([limit()], {}), books, NOW)
    assert (row["limit_of"], row["spent"]) == ("tenant:*", 0)
