"""R3's comparison sees what is planted: a last digit, a count, a call without a row, a row without a call."""

from typing import Any

import pytest
from bson.decimal128 import Decimal128

from tests.benchmarks.r3 import differences, unwritten
from tests.faults.history import Kill


def call(**fields: object) -> dict[str, Any]:
    times = {"opened": 100.0, "closed": 100.4}
    counts = {"prompt_tokens": 10, "cached_tokens": 4, "output_tokens": 5, "reasoning_tokens": 1}
    return {"request_id": "u/1/1.1", "cost": "0.1", "usage": {}, **times, **counts, **fields}


def row(**fields: object) -> dict[str, Any]:
    return {
        "_id": "u/1/1.1",
        "cost_usd": Decimal128("0.1"),
        "estimated": False,
        "input_tokens": 10,
        "cache_read_input_tokens": 4,
        "output_tokens": 5,
        "reasoning_output_tokens": 1,
        **fields,
    }


@pytest.mark.parametrize(
    ("calls", "rows", "found"),
    [
        ([call()], [row()], 0),
        ([call(usage=None, cost="0")], [], 0),
        ([call(usage=None, cost="0")], [row(estimated=True)], 0),
        ([call(cost="0.10000000000000001")], [row()], 1),
        ([call(cached_tokens=3)], [row()], 1),
        ([call()], [], 1),
        ([call()], [row(estimated=True)], 1),
        ([], [row()], 1),
        ([call(usage=None, cost="0")], [row()], 1),
    ],
)
def test_a_planted_difference_is_seen(calls: list[dict[str, Any]], rows: list[dict[str, Any]], found: int) -> None:
    assert len(list(differences(calls, rows))) == found


@pytest.mark.parametrize(
    ("calls", "rows", "kill", "found"),
    [
        ([call()], [], Kill(100.2, "w", frozenset({"u/1/1"})), 1),
        ([call()], [row(estimated=True)], Kill(101.3, "w", frozenset({"u/1/1"})), 1),
        ([call()], [], Kill(101.5, "w", frozenset({"u/1/1"})), 0),  # answered too long before
        ([call()], [], Kill(98.5, "w", frozenset({"u/1/1"})), 0),  # opened after it
        ([call()], [], Kill(100.2, "w", frozenset({"u/1/2"})), 0),  # another worker's
        ([call()], [row()], Kill(100.2, "w", frozenset({"u/1/1"})), 0),  # written down before
        ([call(usage=None, cost="0")], [], Kill(100.2, "w", frozenset({"u/1/1"})), 0),
    ],
)
def test_only_a_call_in_the_hands_of_the_killed_may_be_on_the_invoice_alone(
    calls: list[dict[str, Any]], rows: list[dict[str, Any]], kill: Kill, found: int
) -> None:
    assert len(list(unwritten(calls, rows, [kill]))) == found
