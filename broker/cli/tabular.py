"""Rows of usage in the forms that other programs read, and as pictures: CSV and Parquet with exact dollars, bars on the terminal, a PNG."""

import csv
import io
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.table import Table

from broker import outgoing
from broker.cli import screen
from broker.errors import UsageError
from schemas.money import plain

Rows = Sequence[Mapping[str, Any]]

_PRECISION = 38  # of a decimal128 in Parquet
_DIGITS = 18
"""Digits behind the point of dollars in Parquet; more where a row has more."""
_BARS = 40
_WIDTH = 50
_DPI = 120


class Form(StrEnum):
    """How usage is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"
    PLOT = "plot"
    """Bars on the terminal; a picture where --output names a file."""


def csv_text(columns: Sequence[str], rows: Rows) -> str:
    """A table as CSV; dollars are plain decimals with every digit, what is absent is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    return text.getvalue()


def json_text(rows: Rows) -> str:
    """Lines of JSON; dollars are strings."""
    return "".join(f"{outgoing.encode(row).decode()}\n" for row in rows)


def write_parquet(file: Path, columns: Sequence[str], rows: Rows) -> None:
    """A table as Parquet; dollars are exact decimals.

    Raises:
        UsageError: pyarrow is not installed, or an amount has more than 38 digits.
    """
    pyarrow, parquet = _extra("pyarrow", "parquet"), _extra("pyarrow.parquet", "parquet")
    arrays = {}
    for name in columns:
        values = [_exact(row.get(name)) for row in rows]
        amounts = [value for value in values if isinstance(value, Decimal)]
        kind = pyarrow.decimal128(_PRECISION, max([_DIGITS, *map(_decimals, amounts)])) if amounts else None
        try:
            arrays[name] = pyarrow.array(values, type=kind)
        except pyarrow.ArrowInvalid as error:
            raise UsageError(f"{name} does not fit Parquet's decimals of 38 digits ({error}); write CSV") from None
    parquet.write_table(pyarrow.table(arrays), file)


def write_bars(names: Sequence[str], value: str, rows: Rows) -> None:
    """Bars on the terminal, one a row; their lengths are rounded, the amounts beside them are not."""
    table = Table(title=f"{value} by {', '.join(names)}", title_justify="left", show_header=False, box=None)
    for column in ("left", "right", "left"):
        table.add_column(justify="right" if column == "right" else "left", overflow="fold")
    shown = rows[:_BARS]
    most = max((_number(row[value]) for row in shown), default=0.0)
    for row in shown:
        length = round(_number(row[value]) / most * _WIDTH) if most > 0 else 0
        table.add_row(_label(names, row), screen.cell(row[value]), "█" * max(length, 0))
    screen.output().print(table)
    if len(rows) > len(shown):
        screen.say(f"the first {len(shown)} of {len(rows):,} rows are shown")


def write_picture(file: Path, names: Sequence[str], value: str, rows: Rows) -> None:
    """A PNG: lines over the days where usage is summed by day, else bars.

    Raises:
        UsageError: matplotlib is not installed.
    """
    figure = _extra("matplotlib.figure", "plot").Figure(figsize=(11, 6), layout="constrained")
    axes = figure.add_subplot()
    if "day" in names:
        others = [name for name in names if name != "day"]
        days = sorted({str(row["day"]) for row in rows})
        for label, points in _lines(others, value, rows).items():
            axes.plot(days, [points.get(day, 0.0) for day in days], marker="o", label=label)
        if others:
            axes.legend()
        axes.tick_params("x", rotation=45)
        axes.set_ylabel(value)
    else:
        shown = list(reversed(rows[:_BARS]))
        axes.barh([_label(names, row) for row in shown], [_number(row[value]) for row in shown])
        axes.set_xlabel(value)
    axes.set_title(f"{value} by {', '.join(names)}")
    figure.savefig(file, format="png", dpi=_DPI)


def _extra(module: str, extra: str) -> ModuleType:
    """A library of an extra, loaded by who asks for it."""
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise UsageError(f"this needs {package}; install it with: pip install 'aibroker[{extra}]'") from None


def _lines(others: Sequence[str], value: str, rows: Rows) -> dict[str, dict[str, float]]:
    lines: dict[str, dict[str, float]] = {}
    for row in rows:
        lines.setdefault(_label(others, row), {})[str(row["day"])] = _number(row[value])
    return lines


def _label(names: Sequence[str], row: Mapping[str, Any]) -> str:
    return " / ".join(screen.cell(row.get(name)) for name in names) or "all"


def _exact(value: object) -> object:
    amount = screen.decimal(value)
    return value if amount is None else amount


def _cell(value: object) -> object:
    amount = screen.decimal(value)
    return "" if value is None else value if amount is None else plain(amount)


def _number(value: object) -> float:
    amount = screen.decimal(value)
    return float(str(value) if amount is None else amount)


def _decimals(amount: Decimal) -> int:
    exponent = amount.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
