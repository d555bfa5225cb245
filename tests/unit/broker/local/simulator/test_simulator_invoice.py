"""The invoice: its rows, its sums, and that it can be taken up again."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.local.simulator.calls_file import CallsFile, CallsFileError
from broker.local.simulator.invoice import Invoice
from broker.local.simulator.usage import CHAT, EMBEDDINGS, Counts


def served(invoice: Invoice, request_id: str | None = "job/1/1.1") -> int:
    row = invoice.open(CHAT, request_id, 1000.25)
    invoice.describe(row, "gpt-4o-mini", 812)
    invoice.charge(row, Counts(812, 100, 143, 43), 200_100_000, usage_sent=True)
    invoice.close(row, "answered", 1000.750001, 200)
    return row


def test_a_served_call_has_its_whole_row() -> None:
    invoice = Invoice(first_serial=255)
    assert invoice.record(served(invoice)) == {
        "request_id": "job/1/1.1",
        "id": "chatcmpl-00000000000000ff",
        "model": "gpt-4o-mini",
        "path": "/v1/chat/completions",
        "prompt_tokens": 812,
        "cached_tokens": 100,
        "output_tokens": 143,
        "reasoning_tokens": 43,
        "status": 200,
        "opened": 1000.25,
        "closed": 1000.750001,
        "usage": {
            "prompt_tokens": 812,
            "completion_tokens": 143,
            "total_tokens": 955,
            "prompt_tokens_details": {"cached_tokens": 100, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 43, "audio_tokens": 0},
        },
        "cost": "0.0002001",
        "outcome": "answered",
        "fault": None,
    }


def test_an_open_call_has_neither_status_nor_end_nor_usage() -> None:
    invoice = Invoice(1)
    record = invoice.record(invoice.open(EMBEDDINGS, None, 5.0))
    assert [record[name] for name in ("request_id", "status", "closed", "usage", "model")] == [None] * 5
    assert (record["outcome"], record["cost"]) == ("open", "0")


def test_only_the_first_end_of_a_call_counts() -> None:
    invoice = Invoice(1)
    row = invoice.open(CHAT, None, 5.0)
    invoice.close_open("cut", 6.0)
    invoice.close(row, "client_gone", 7.0)
    assert (invoice.record(row)["outcome"], invoice.open_now) == ("cut", 0)


def test_stats_count_calls_by_how_they_ended() -> None:
    invoice = Invoice(1)
    served(invoice)
    invoice.open(CHAT, None, 1.0)
    invoice.close(invoice.open(CHAT, None, 1.0), "client_gone", 2.0)
    assert invoice.stats() == {
        "calls": 3,
        "open": 1,
        "max_open": 2,
        "by_status": {"200": 1},
        "by_outcome": {"answered": 1, "client_gone": 1},
        "cost": "0.0002001",
    }


def test_lines_begin_at_the_row_that_was_asked_for() -> None:
    invoice = Invoice(1)
    for number in range(7):
        served(invoice, f"j{number}/1/1.1")
    lines = b"".join(invoice.lines(since=3, batch=2)).splitlines()
    assert [json.loads(line)["request_id"] for line in lines] == [f"j{number}/1/1.1" for number in range(3, 7)]
    assert b"".join(invoice.lines(since=8)) == b""


def never(error: CallsFileError) -> None:
    raise error


@pytest.fixture
def calls_file(tmp_path: Path) -> Iterator[Callable[[], CallsFile]]:
    opened: list[CallsFile] = []

    def open_again() -> CallsFile:
        opened.append(CallsFile(tmp_path / "calls" / "c.jsonl", never))
        return opened[-1]

    yield open_again
    for file in opened:
        file.close()


async def test_closed_calls_outlive_the_process(calls_file: Callable[[], CallsFile]) -> None:
    file = calls_file()
    before = Invoice(1, file.add)
    served(before)
    before.open(CHAT, None, 1.0)
    before.close(before.open(EMBEDDINGS, None, 1.0), "cut", 2.0)
    file.flush()
    after = Invoice(1000)
    calls_file().restore_into(after)
    assert b"".join(after.lines(0)) == before.line(0) + before.line(2)
    assert (after.stats()["calls"], after.stats()["cost"], after.open_now, after.max_open) == (2, "0.0002001", 0, 0)
    assert after.id_of(after.open(CHAT, None, 1.0)) not in {before.id_of(0), before.id_of(1)}


async def test_a_line_that_a_crash_cut_is_dropped_and_the_next_one_is_whole(
    calls_file: Callable[[], CallsFile], tmp_path: Path
) -> None:
    file = calls_file()
    served(Invoice(1, file.add))
    file.flush()
    path = tmp_path / "calls" / "c.jsonl"
    path.write_bytes(path.read_bytes() + b'{"request_id": "ha')
    again, invoice = calls_file(), Invoice(100)
    again.restore_into(invoice)
    again.add(invoice.line(0))
    again.flush()
    assert len(invoice) == 1
    assert [json.loads(line)["cost"] for line in path.read_bytes().splitlines()] == ["0.0002001"] * 2


def test_a_file_of_something_else_is_refused_with_its_line(calls_file: Callable[[], CallsFile], tmp_path: Path) -> None:
    file = calls_file()
    (tmp_path / "calls" / "c.jsonl").write_bytes(b'{"request_id": null}\n')
    with pytest.raises(CallsFileError, match=r"c\.jsonl, line 1 is no call"):
        file.restore_into(Invoice(1))
