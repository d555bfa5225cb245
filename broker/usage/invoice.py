"""What a provider says was used: reads an export of OpenAI's, of Anthropic's, of the simulator's, or of the neutral format, as CSV or JSON."""

import csv
import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from broker.errors import UsageError
from broker.settings_file import places
from broker.usage import columns
from broker.usage.cells import WrongColumnError
from broker.usage.columns import Line

Record = Mapping[str, Any]
_LOCATED_BYTES = 5_000_000


class Place(NamedTuple):
    """Where a record stands: a line of the file, or a path inside one JSON document."""

    line: int | None
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        inside = "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in self.path).lstrip(".")
        return inside if self.line is None else f"{self.line}"


class Invoice(NamedTuple):
    """A whole export: its lines, in which format it is, and for which provider (None: for any)."""

    form: str
    provider: str | None
    lines: list[Line]


def read(file: Path) -> Invoice:
    """Read an export; nothing of it is used when one of its lines is wrong.

    Raises:
        UsageError: With file, line and what is allowed.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UsageError(f"{file}: cannot be read: {reason}; give a CSV or JSON export in UTF-8") from None
    records = list(_json(file, text) if text.lstrip()[:1] in {"{", "["} else _csv(file, text))
    if not records:
        raise UsageError(f"{file}:1: there is no line in it; give {columns.EXPORTS}")
    try:
        form = columns.form_of(records[0][1])
    except WrongColumnError as wrong:
        raise UsageError(f"{_where(file, text, records[0][0])}: {wrong}") from None
    lines: list[Line] = []
    for place, record in records:
        try:
            lines.append(form.line(record, str(place)))
        except WrongColumnError as wrong:
            raise UsageError(f"{_where(file, text, place, wrong.column)}: {wrong}") from None
    return Invoice(form.name, form.provider, lines)


def _csv(file: Path, text: str) -> Iterator[tuple[Place, Record]]:
    reader = csv.DictReader(text.splitlines(), strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UsageError(f"{file}:1: {twice}: is a column twice; leave one of them")
        for row in reader:
            if None in row or None in row.values():
                raise UsageError(
                    f"{file}:{reader.line_num}: has more or fewer cells than the first line names columns; give each line one cell a column"
                )
            yield Place(reader.line_num), {name.strip(): value.strip() for name, value in row.items()}
    except csv.Error as error:
        raise UsageError(
            f"{file}:{reader.line_num}: is not CSV ({error}); put cells with quotes or commas in quotes"
        ) from None


def _json(file: Path, text: str) -> Iterator[tuple[Place, Record]]:
    """The records of one document (a page of buckets, or a list), or of lines of JSON."""
    try:
        whole = json.loads(text, parse_float=Decimal)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise UsageError(
                f"{file}:{error.lineno}: is not JSON ({error.msg}); give one document, or one object a line"
            ) from None
        yield from _json_lines(file, text)
        return
    if isinstance(whole, dict) and isinstance(whole.get("data"), list):
        yield from _buckets(file, whole)
    elif isinstance(whole, list):
        yield from (
            (Place(None, (str(number),)), _object(file, entry, f"[{number}]")) for number, entry in enumerate(whole)
        )
    else:
        yield Place(1), _object(file, whole, "1")


def _json_lines(file: Path, text: str) -> Iterator[tuple[Place, Record]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield Place(number), _object(file, json.loads(line, parse_float=Decimal), str(number))
        except json.JSONDecodeError as error:
            raise UsageError(f"{file}:{number}: is not JSON ({error.msg}); give one object a line") from None


def _buckets(file: Path, page: Record) -> Iterator[tuple[Place, Record]]:
    """Each result of a page of the providers' own interfaces, with the times of its bucket."""
    if page.get("has_more"):
        raise UsageError(f"{file}: has_more is true, so more pages follow; put the `data` of all of them into one file")
    for number, bucket in enumerate(page["data"]):
        place = f"data[{number}]"
        times = {
            name: value for name, value in _object(file, bucket, place).items() if name not in {"results", "object"}
        }
        results = bucket.get("results")
        if not isinstance(results, list):
            raise UsageError(f"{file}: {place}: has no list `results`; give {columns.EXPORTS}")
        for index, result in enumerate(results):
            yield Place(None, ("data", str(number), "results", str(index))), {**times, **_object(file, result, place)}


def _object(file: Path, value: object, place: str) -> Record:
    if not isinstance(value, dict):
        raise UsageError(f"{file}:{place}: is no object; give {columns.EXPORTS}")
    return value


def _where(file: Path, text: str, place: Place, column: str = "") -> str:
    """The file and the line of a wrong record; inside one document the line is looked for only now."""
    if place.line is not None or len(text) > _LOCATED_BYTES:
        return f"{file}:{place}"
    known = places(text)
    for path in ((*place.path, column), (*place.path[:2], column), place.path):
        if path in known:
            return f"{file}:{known[path]}: {place}"
    return f"{file}:{place}"
