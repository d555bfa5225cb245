"""What reaches the terminal: data on standard output, everything else on standard error."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from broker import outgoing
from broker.cli.durations import rfc3339
from schemas.money import plain

_WIDTH_IN_A_FILE = 160  # a table that goes to a file or a pipe is not folded at 80 columns


def output() -> Console:
    """The console of tables."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH_IN_A_FILE, highlight=False)


def notes() -> Console:
    """The console of progress and remarks."""
    return Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


def say(sentence: str) -> None:
    """Write a remark to standard error."""
    sys.stderr.write(f"{sentence}\n")
    sys.stderr.flush()


def write_line(line: bytes) -> None:
    """Write a line of data to standard output."""
    sys.stdout.buffer.write(line + b"\n")


def write_text(text: str) -> None:
    """Write a sentence to standard output."""
    write_line(text.encode())
    flush()


def flush() -> None:
    """Hand over what was written, for who reads along."""
    sys.stdout.buffer.flush()


def write_json(document: Mapping[str, Any]) -> None:
    """Write a document as a line of JSON: amounts as plain decimal strings, instants in UTC."""
    write_line(outgoing.encode(document))
    flush()


def write_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table; numbers and amounts stand at the right."""
    cells = [[cell(value) for value in row] for row in rows]
    numeric = [all(_is_number(row[place]) for row in cells) for place in range(len(columns))]
    table = Table(title=title, title_justify="left", show_header=any(columns))
    for name, right in zip(columns, numeric, strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    output().print(table)


def cell(value: Any) -> str:  # noqa: ANN401 whatever a document holds
    """A value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return rfc3339(value)
    amount = decimal(value)
    if amount is not None:
        return plain(amount)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def decimal(value: Any) -> Decimal | None:  # noqa: ANN401 whatever a document holds
    """The exact amount of a decimal of ours or of the database's, else None."""
    if isinstance(value, Decimal):
        return value
    to_decimal = getattr(value, "to_decimal", None)
    return to_decimal() if to_decimal else None


def _is_number(text: str) -> bool:
    return text == "-" or text.replace(",", "").replace(".", "", 1).isdigit()


def progress() -> Progress:
    """A progress bar on standard error that leaves no trace in a file."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=notes(),
        disable=not sys.stderr.isatty(),
    )
