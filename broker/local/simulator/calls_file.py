"""Keeps the closed calls in a file, so that the invoice outlives the process."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import orjson

from broker.local.simulator.invoice import Invoice

_EVERY_S = 0.05


class CallsFileError(Exception):
    """The file of calls cannot be used; the message says why and what to do."""


class CallsFile:
    """A file of JSON lines; `on_failure` is told when it cannot be written any more."""

    def __init__(self, path: Path, on_failure: Callable[[CallsFileError], None]) -> None:
        self._path, self._on_failure = path, on_failure
        self._waiting: list[bytes] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab+", buffering=0)
        except OSError as error:
            raise CallsFileError(f"{path} cannot be opened: {error.strerror}; name another with --calls") from error

    def restore_into(self, invoice: Invoice) -> None:
        """Reads the calls of earlier runs; a last line that was cut by a crash is dropped."""
        kept = 0
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    break
                self._restore(invoice, number, line)
                kept += len(line)
        self._file.truncate(kept)

    def _restore(self, invoice: Invoice, number: int, line: bytes) -> None:
        try:
            invoice.restore(orjson.loads(line))
        except (ValueError, KeyError, TypeError, ArithmeticError) as error:
            message = f"{self._path}, line {number} is no call of this simulator; move the file away"
            raise CallsFileError(message) from error

    def add(self, line: bytes) -> None:
        """Takes a line; it is written a moment later, together with its neighbours."""
        if not self._waiting:
            asyncio.get_running_loop().call_later(_EVERY_S, self.flush)
        self._waiting.append(line)

    def flush(self) -> None:
        """Writes what waits."""
        lines = b"".join(self._waiting)
        self._waiting.clear()
        try:
            while lines:
                lines = lines[self._file.write(lines) or 0 :]
        except OSError as error:
            self._on_failure(CallsFileError(f"{self._path} cannot be written: {error.strerror}"))

    def clear(self) -> None:
        """Forgets all calls."""
        self._waiting.clear()
        self._file.truncate(0)

    def close(self) -> None:
        """Writes what waits and lets go of the file."""
        self.flush()
        self._file.close()
