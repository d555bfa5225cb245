"""What an invoice and the ledger say differently: call by call where the invoice names calls, else span by span; each difference names its rows."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

from broker.usage.columns import Line
from broker.usage.ledger import Row, usd
from schemas.usage import COUNTS

Document = Mapping[str, Any]
_T = TypeVar("_T", int, Decimal)
Pair = tuple[Any, Any]
"""What the invoice says, and what the ledger does."""


class Difference(NamedTuple):
    """One difference: its kind, what stands on both sides, the places on the invoice and the keys of the ledger's rows."""

    kind: str
    what: Mapping[str, Pair]
    invoice: Sequence[str]
    rows: Sequence[str]
    more_rows: int = 0
    about: str = ""

    @property
    def usd(self) -> Decimal | None:
        """Dollars that the invoice has over the ledger; None where it does not say dollars."""
        theirs, ours = self.what.get("cost_usd", (None, None))
        return None if theirs is None else theirs - (ours or Decimal(0))


KINDS: Mapping[str, str] = {
    "not_in_ledger": "a call on the invoice that no row of the ledger knows",
    "not_on_invoice": "a row that is not estimated, and that the invoice does not have",
    "differs": "both know it, and say different things of it",
    "estimated": "a row whose cost is our estimate, and the invoice knows the true one",
    "twice": "one call, several times on the invoice",
}
"""Every kind of difference."""


class Calls:
    """Compares an invoice that names calls: ask `add` with every row that there is, then `rest` for what no row was."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines: dict[str, Line] = {}
        self._twice: dict[str, list[Line]] = defaultdict(list)
        for line in lines:
            key = line.key
            if key is None:
                continue
            first = self._lines.setdefault(key, line)
            if first is not line:
                self._twice[key] += [line]
        self._left = dict(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def left(self) -> list[str]:
        """Keys of the lines for which no row has come yet."""
        return list(self._left)

    def add(self, row: Row, *, expected: bool) -> Difference | None:
        """Compare one row; `expected`: the invoice should have it."""
        key = row.id if row.id in self._lines else row.response_id
        line = self._lines.get(key) if key is not None else None
        if line is None or key is None:
            if row.estimated or not expected:
                return None
            return Difference("not_on_invoice", {"cost_usd": (None, row.cost)}, (), (row.id,))
        self._left.pop(key, None)
        if row.estimated:
            return (
                None
                if line.free
                else Difference("estimated", {"cost_usd": (line.cost, row.cost)}, (line.place,), (row.id,))
            )
        what = dict(_differing(line, row))
        return Difference("differs", what, (line.place,), (row.id,)) if what else None

    def rest(self) -> Iterator[Difference]:
        """What is on the invoice and in no row, unless it was free; and what is on it several times."""
        for line in self._left.values():
            if not line.free:
                yield Difference("not_in_ledger", {"cost_usd": (line.cost, None)}, (line.place,), ())
        for key, again in self._twice.items():
            places = [line.place for line in (self._lines[key], *again)]
            costs = [line.cost for line in again if line.cost is not None]
            yield Difference("twice", {"cost_usd": (sum(costs, Decimal(0)), None)} if costs else {}, places, (key,))


def _differing(line: Line, row: Row) -> Iterator[tuple[str, Pair]]:
    if line.cost is not None and line.cost != row.cost:
        yield "cost_usd", (line.cost, row.cost)
    for name, count in (line.counts or {}).items():
        if count != row.counts[name]:
            yield name, (count, row.counts[name])
    if line.model is not None and row.models and line.model not in row.models:
        yield "model", (line.model, ", ".join(sorted(row.models)))


class Span(NamedTuple):
    """What the sums of an invoice are of: a time, and a model and a credential where it tells them apart."""

    start: datetime
    end: datetime
    model: str | None
    credential: str | None


class Sums(NamedTuple):
    """Sums of one side; None: it does not say."""

    calls: int | None
    counts: Mapping[str, int]
    cost: Decimal | None
    places: Sequence[str] = ()


def spans(lines: Iterable[Line]) -> dict[Span, Sums]:
    """The invoice's sums by what they are of; lines that tell apart what the ledger does not (projects, users) are added up."""
    found: dict[Span, Sums] = {}
    for line in lines:
        if line.start is None or line.end is None:
            continue
        span = Span(line.start, line.end, line.model, line.credential)
        other = found.get(span, Sums(None, {}, None))
        counts = {**other.counts}
        for name, count in (line.counts or {}).items():
            counts[name] = counts.get(name, 0) + count
        found[span] = Sums(
            _plus(other.calls, line.calls), counts, _plus(other.cost, line.cost), (*other.places, line.place)
        )
    return found


def ledger_sums(span: Span, groups: Iterable[Document]) -> Sums:
    """The ledger's sums of what a span means, out of those of its time by model and credential."""
    chosen = [
        group
        for group in groups
        if (span.model is None or group["_id"]["model"] == span.model)
        and (span.credential is None or group["_id"]["credential"] == span.credential)
    ]
    counts = {name: sum(int(group[name]) for group in chosen) for name in COUNTS}
    return Sums(
        sum(group["calls"] for group in chosen), counts, sum((usd(group["cost_usd"]) for group in chosen), Decimal(0))
    )


def span_difference(theirs: Sums, ours: Sums) -> dict[str, Pair]:
    """What both sides say differently, of that which the invoice says at all."""
    what: dict[str, Pair] = {}
    if theirs.calls is not None and theirs.calls != ours.calls:
        what["calls"] = (theirs.calls, ours.calls)
    for name, count in theirs.counts.items():
        if count != ours.counts[name]:
            what[name] = (count, ours.counts[name])
    if theirs.cost is not None and theirs.cost != ours.cost:
        what["cost_usd"] = (theirs.cost, ours.cost)
    return what


def unnamed(known: Iterable[Span], groups: Iterable[Document]) -> Iterator[Document]:
    """The ledger's groups of a time that no span of the invoice means."""
    spans_of = list(known)
    for group in groups:
        named = any(
            span.model in {None, group["_id"]["model"]} and span.credential in {None, group["_id"]["credential"]}
            for span in spans_of
        )
        if not named and (group["calls"] or usd(group["cost_usd"])):
            yield group


def _plus(one: _T | None, other: _T | None) -> _T | None:
    return other if one is None else one if other is None else one + other
