"""Dead letters: how they are shown, and the records that they were."""

from typing import Any

import pytest

from broker.cli.letters import Letter, place
from broker.errors import UsageError
from broker.settings import Settings

SETTINGS = Settings(prefix="p")
OWN = (("ce_id", b"7"), ("x", b"\xff"))


def letter(value: bytes | None = b"no job", **told: str) -> Letter:
    """A letter of `p.jobs.batch`, partition 3, offset 9."""
    ours = {
        "reason": "undecodable",
        "message": "m",
        "topic": "p.jobs.batch",
        "partition": "3",
        "offset": "9",
        "at": "2026-12-01T08:00:00Z",
    }
    headers = tuple((f"aibroker-{name}", content.encode()) for name, content in {**ours, **told}.items())
    return Letter(2, 17, b"key", value, (*OWN, *headers))


def test_what_is_put_back_is_byte_for_byte_what_it_was_in_the_place_from_which_it_came() -> None:
    record = letter(b"\x00\xff").record(SETTINGS, {"jobs.batch": 8})
    assert (record.topic, record.partition, record.key, record.value) == ("p.jobs.batch", 3, b"key", b"\x00\xff")
    assert tuple(record.headers) == OWN


@pytest.mark.parametrize(
    "told",
    [
        {"topic": "q.jobs.batch"},
        {"topic": "p.results"},
        {"topic": "p.jobs.gone"},
        {"partition": "8"},
        {"partition": "x"},
        {"topic": ""},
    ],
)
def test_what_came_from_elsewhere_is_not_put_back(told: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"2/17: it came from .*no place of this deployment"):
        letter(**told).record(SETTINGS, {"jobs.batch": 8, "results": 8})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        ("é".encode(), "é"),
        (b"\xff\x00", "ff00"),
        (b"x" * 10_001, "x" * 10_000 + "... and 1 bytes more"),
        ("é".encode() * 5_001 + b"x", "é" * 5_000 + "... and 3 bytes more"),
        (b"x" + "é".encode() * 5_000, "x" + "é" * 4_999 + "... and 1 bytes more"),
    ],
)
def test_content_is_shown_as_text_where_it_is_text(value: bytes | None, shown: str | None) -> None:
    whole: dict[str, Any] = letter(value).whole()
    assert whole["value"] == shown
    assert whole["headers"] == [("ce_id", "7"), ("x", "ff")]
    assert (whole["place"], whole["was"], whole["reason"]) == ("2/17", "3/9", "undecodable")


def test_a_place_is_typed_as_it_is_shown() -> None:
    assert place("2/17") == (2, 17)
    for wrong in ("2", "2/", "/17", "2/x", "-2/17", "2/17/1"):
        with pytest.raises(UsageError):
            place(wrong)
