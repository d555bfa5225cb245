"""Reads files of any size line by line in constant memory, and names a file by what it holds."""

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from broker.errors import UsageError
from schemas.job import MAX_RECORD_BYTES

_BLOCK = 1 << 20
_BOM = b"\xef\xbb\xbf"
_SPOOLED_IN_MEMORY = 8 << 20
_FOLDED_SLACK = 200_000  # a line may hold more blanks than the record that is made of it


@dataclass(slots=True, frozen=True)
class Line:
    """A line that is not empty; `text` is None where it is over the limit."""

    number: int
    text: bytes | None


@contextlib.contextmanager
def opened(name: str, standard_input: BinaryIO) -> Iterator[BinaryIO]:
    """Open a file that can be read twice; `-` is the standard input, kept in a temporary file meanwhile.

    Raises:
        UsageError: There is no such file, or it cannot be read.
    """
    if name == "-":
        with tempfile.SpooledTemporaryFile(max_size=_SPOOLED_IN_MEMORY) as kept:
            shutil.copyfileobj(standard_input, kept, _BLOCK)
            kept.seek(0)
            yield kept  # type: ignore[misc] # a spooled file reads and seeks as any other
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115 the block below closes it; only the opening is guarded here
    except OSError as error:
        raise UsageError(
            f"{name}: {error.strerror}; give the path of a file of JSON lines, or - for standard input"
        ) from None
    with file:
        yield file


def size(file: BinaryIO) -> int:
    """The file's length in bytes; its position is at its start afterwards."""
    end = file.seek(0, 2)
    file.seek(0)
    return end


def fingerprint(file: BinaryIO) -> str:
    """The first 16 hex digits of the SHA-256 of what the file holds; its position is at its start afterwards."""
    found = hashlib.sha256()
    file.seek(0)
    while block := file.read(_BLOCK):
        found.update(block)
    file.seek(0)
    return found.hexdigest()[:16]


def lines(file: BinaryIO) -> Iterator[Line]:
    """Every line that is not blank, numbered from 1 over all lines; never more than one of them in memory."""
    limit = MAX_RECORD_BYTES + _FOLDED_SLACK
    number = 0
    while text := file.readline(limit):
        number += 1
        if number == 1:
            text = text.removeprefix(_BOM)
        if len(text) >= limit and not text.endswith(b"\n"):
            _skip_to_end_of_line(file)
            yield Line(number, None)
        elif stripped := text.strip():
            yield Line(number, stripped)


def _skip_to_end_of_line(file: BinaryIO) -> None:
    while (rest := file.readline(_BLOCK)) and not rest.endswith(b"\n"):
        pass
