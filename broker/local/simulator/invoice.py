"""The invoice: every call that was served, in columns, about 150 bytes a call."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal

import orjson

from broker.local.simulator.prices import PICO, dollars
from broker.local.simulator.usage import CHAT, EMBEDDINGS, MODERATIONS, PATHS, RESPONSES, Counts, usage_of

OUTCOMES = ("open", "answered", "cut", "client_gone")
_PREFIX = {CHAT: "chatcmpl-", RESPONSES: "resp_", MODERATIONS: "modr-", EMBEDDINGS: "embd-"}
_LONGEST_ID = 512
_LONGEST_NAME = 256


class Names:
    """Numbers for strings that come again and again; 0 is no string."""

    def __init__(self) -> None:
        self._names: list[str | None] = [None]
        self._numbers: dict[str | None, int] = {None: 0}

    def number(self, name: str | None) -> int:
        """The number of that name, a new one where it is new."""
        found = self._numbers.get(name)
        if found is None:
            found = self._numbers[name] = len(self._names)
            self._names.append(name)
        return found

    def name(self, number: int) -> str | None:
        """The name of that number."""
        return self._names[number]


class Invoice:
    """Calls in the order in which they were opened; a call's row number never changes.

    `first_serial` numbers the ids; it must be above those of earlier runs whose calls are restored. `on_closed` gets
    each closed call as a JSON line.
    """

    def __init__(self, first_serial: int, on_closed: Callable[[bytes], None] | None = None) -> None:
        self._next_serial, self._on_closed = first_serial, on_closed
        self._names = Names()
        self._request_ids: list[bytes | None] = []
        self._opened, self._closed = array("d"), array("d")
        self._serial, self._cost = array("Q"), array("q")
        self._prompt, self._cached, self._output, self._reasoning = (array("I") for _ in range(4))
        self._model, self._fault = array("I"), array("I")
        self._path, self._outcome, self._usage_sent = (array("B") for _ in range(3))
        self._status = array("H")
        self.open_now = self.max_open = 0
        self._by_status: Counter[int] = Counter()
        self._by_outcome: Counter[str] = Counter()
        self._total = 0

    def __len__(self) -> int:
        return len(self._opened)

    def open(self, path: str, request_id: str | None, opened: float) -> int:
        """Starts a row and gives its number; times are unix seconds."""
        self._request_ids.append(
            request_id[:_LONGEST_ID].encode("utf-8", "replace") if request_id is not None else None
        )
        self._opened.append(opened)
        self._serial.append(self._next_serial)
        self._path.append(PATHS.index(path))
        for column in (self._cached, self._output, self._reasoning, self._prompt, self._model, self._fault):
            column.append(0)
        for column in (self._outcome, self._usage_sent, self._status, self._cost):
            column.append(0)
        self._closed.append(0.0)
        self._next_serial += 1
        self.open_now += 1
        self.max_open = max(self.max_open, self.open_now)
        return len(self._opened) - 1

    def id_of(self, row: int) -> str:
        """The id of that call's answer, which its `x-request-id` header tells too."""
        return f"{_PREFIX[PATHS[self._path[row]]]}{self._serial[row]:016x}"

    def describe(self, row: int, model: str, prompt_tokens: int) -> None:
        """What was read from the request."""
        self._model[row] = self._names.number(model[:_LONGEST_NAME])
        self._prompt[row] = prompt_tokens

    def mark(self, row: int, fault: str | None) -> None:
        """Which fault this call meets."""
        self._fault[row] = self._names.number(fault)

    def charge(self, row: int, counts: Counts, cost: int, *, usage_sent: bool) -> None:
        """What the answer costs in pico-dollars, and whether it said so."""
        _, self._cached[row], self._output[row], self._reasoning[row] = counts
        self._cost[row] = cost
        self._usage_sent[row] = usage_sent
        self._total += cost

    def close(self, row: int, outcome: str, closed: float, status: int | None = None) -> None:
        """Ends a row; only the first end counts."""
        if self._outcome[row]:
            return
        self._outcome[row] = OUTCOMES.index(outcome)
        self._closed[row] = closed
        self._status[row] = status or 0
        self.open_now -= 1
        self._count(row)
        if self._on_closed:
            self._on_closed(self.line(row))

    def close_open(self, outcome: str, closed: float) -> None:
        """Ends every row that is still open."""
        for row in [row for row, number in enumerate(self._outcome) if not number]:
            self.close(row, outcome, closed)

    def detach(self) -> None:
        """Tells nobody about closed calls any more."""
        self._on_closed = None

    def _count(self, row: int) -> None:
        self._by_outcome[OUTCOMES[self._outcome[row]]] += 1
        if self._status[row]:
            self._by_status[self._status[row]] += 1

    def record(self, row: int) -> dict[str, object]:
        """One call as `GET /sim/calls` shows it."""
        path, request_id = PATHS[self._path[row]], self._request_ids[row]
        counts = Counts(self._prompt[row], self._cached[row], self._output[row], self._reasoning[row])
        return {
            "request_id": request_id.decode() if request_id is not None else None,
            "id": self.id_of(row),
            "model": self._names.name(self._model[row]),
            "path": path,
            "prompt_tokens": counts.prompt,
            "cached_tokens": counts.cached,
            "output_tokens": counts.output,
            "reasoning_tokens": counts.reasoning,
            "status": self._status[row] or None,
            "opened": round(self._opened[row], 6),
            "closed": round(self._closed[row], 6) if self._outcome[row] else None,
            "usage": usage_of(path, counts) if self._usage_sent[row] else None,
            "cost": dollars(self._cost[row]),
            "outcome": OUTCOMES[self._outcome[row]],
            "fault": self._names.name(self._fault[row]),
        }

    def line(self, row: int) -> bytes:
        """One call as a JSON line."""
        return orjson.dumps(self.record(row), option=orjson.OPT_APPEND_NEWLINE)

    def lines(self, since: int, batch: int = 500) -> Iterator[bytes]:
        """The calls from that row number on, as JSON lines, many in one piece."""
        for start in range(since, len(self), batch):
            yield b"".join(self.line(row) for row in range(start, min(start + batch, len(self))))

    def restore(self, record: Mapping[str, object]) -> None:
        """Takes up a closed call that `record` wrote in an earlier run; raises `ValueError` or `KeyError`."""
        path, request_id, fault = str(record["path"]), record["request_id"], record["fault"]
        serial = int(str(record["id"]).removeprefix(_PREFIX[path]), 16)
        cached, output, reasoning = (_whole(record, f"{name}_tokens") for name in ("cached", "output", "reasoning"))
        prompt, model, outcome = _whole(record, "prompt_tokens"), record["model"], str(record["outcome"])
        opened, closed, status = float(str(record["opened"])), float(str(record["closed"])), record["status"]
        cost, outcome_number = int(Decimal(str(record["cost"])) * PICO), OUTCOMES.index(outcome)
        row = self.open(path, None if request_id is None else str(request_id), opened)
        self._serial[row] = serial
        if model is not None:
            self.describe(row, str(model), prompt)
        self.mark(row, None if fault is None else str(fault))
        self.charge(row, Counts(prompt, cached, output, reasoning), cost, usage_sent=record["usage"] is not None)
        self._outcome[row], self._closed[row] = outcome_number, closed
        self._status[row] = status if isinstance(status, int) else 0
        self._count(row)
        self.open_now = self.max_open = 0

    def stats(self) -> dict[str, object]:
        """Counts over all calls."""
        return {
            "calls": len(self),
            "open": self.open_now,
            "max_open": self.max_open,
            "by_status": {str(status): count for status, count in sorted(self._by_status.items())},
            "by_outcome": dict(self._by_outcome),
            "cost": dollars(self._total),
        }


def _whole(record: Mapping[str, object], name: str) -> int:
    value = record[name]
    if type(value) is not int:
        raise ValueError(f"{name} is no whole number")
    return value
