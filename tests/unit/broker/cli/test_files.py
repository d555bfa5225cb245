"""Files of any size, line by line."""

import hashlib
import io
from pathlib import Path

import pytest

from broker.cli.files import Line, fingerprint, lines, opened, size
from broker.errors import UsageError


def test_lines_are_numbered_over_blank_ones() -> None:
    assert list(lines(io.BytesIO(b"a\n\n  \r\nb\r\nc"))) == [Line(1, b"a"), Line(4, b"b"), Line(5, b"c")]


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert list(lines(io.BytesIO(b"\xef\xbb\xbf{}\n"))) == [Line(1, b"{}")]


def test_a_line_over_the_limit_is_skipped_and_the_next_one_is_read() -> None:
    assert list(lines(io.BytesIO(b"x" * 5_000_000 + b"\nb\n"))) == [Line(1, None), Line(2, b"b")]


def test_a_file_is_named_by_the_hash_of_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_bytes(b"{}\n")
    with opened(str(path), io.BytesIO()) as file:
        assert fingerprint(file) == hashlib.sha256(b"{}\n").hexdigest()[:16]
        assert size(file) == 3
        assert file.read() == b"{}\n"


def test_standard_input_can_be_read_twice() -> None:
    with opened("-", io.BytesIO(b"{}\n")) as file:
        fingerprint(file)
        assert list(lines(file)) == [Line(1, b"{}")]


def test_a_missing_file_is_wrong_use_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"), opened(str(tmp_path / "none"), io.BytesIO()):
        pass
