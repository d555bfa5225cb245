"""How much one poll takes, by number and by size."""

import pytest

from workers.engine.reader import LARGEST_BYTES, Poll


@pytest.mark.parametrize(
    ("record_bytes", "records"),
    [(LARGEST_BYTES, 16), (100_000, 160), (1_000, 500), (0, 500), (50_000_000, 1)],
)
def test_a_poll_takes_as_many_records_as_are_allowed_and_fit(record_bytes: int, records: int) -> None:
    assert Poll(500, 16_000_000).fitting(record_bytes) == records
