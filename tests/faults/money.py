"""Judges the invariants about money: one bill a job, as few calls as possible, spend within its limits."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from tests.faults.history import Document, History, Kill, Limit, amount
from tests.faults.links import TERMINAL, Links, Problems, canonical

JUST_S = 1.0
"""An answer that came less than this before its worker's end may not have been written down."""


def one_bill(history: History, links: Links) -> Problems:
    """3. No duplicate key, at most one billed row per (job, generation), at the result's cost; rows equal the invoice."""
    for key, times in Counter(row["_id"] for row in history.ledger).items():
        if times > 1:
            yield f"row {key}: {times} times in the ledger"
    billed: dict[tuple[str, int], list[Document]] = defaultdict(list)
    for row in history.ledger:
        if row["billed"]:
            billed[f"{row['tenant']}/{row['job_id']}", row["generation"]].append(row)
    for (key, generation), rows in billed.items():
        if len(rows) > 1:
            yield f"{key}: billed {len(rows)} times for generation {generation}"
    for key, document in links.documents.items():
        yield from _bill(document, billed.get((key, document["generation"]), []))
    yield from _invoice(history)


def _bill(document: Document, rows: Sequence[Document]) -> Problems:
    result = document.get("result")
    if result is None:
        return
    cost = sum((amount(row["cost_usd"]) for row in rows), Decimal(0))
    if cost != amount(result["cost_usd"]):
        yield f"{document['_id']}: its result costs {result['cost_usd']}, its billed rows {cost}"
    used = sum(result["usage"].values())
    if used and not rows:
        yield f"{document['_id']}: used {used} tokens and has no billed row"


def _invoice(history: History) -> Problems:
    """Rows that are not estimated are on the invoice; what is on the invoice without a row was open at a kill."""
    lines = {call["request_id"]: call for call in history.calls if call["usage"] is not None or amount(call["cost"])}
    rows = {row["_id"]: row for row in history.ledger}
    for key, row in rows.items():
        if not row["estimated"]:
            yield from _billed_by_provider(key, row, lines.get(key))
    for key, line in lines.items():
        if key not in rows and not open_at_a_kill(line, history.kills):
            yield f"call {key}: {line['cost']} on the invoice, no row, and it was not open at a kill"
        elif key in rows and rows[key]["estimated"] and not history.kills:
            yield f"row {key}: estimated, and the invoice knows its amount"


def _billed_by_provider(key: str, row: Document, line: Mapping[str, Any] | None) -> Problems:
    if line is None:
        yield f"row {key}: not on the provider's invoice"
    elif amount(row["cost_usd"]) != amount(line["cost"]):
        yield f"row {key}: {row['cost_usd']} here, {line['cost']} on the invoice"
    elif (row["input_tokens"], row["output_tokens"]) != (line["prompt_tokens"], line["output_tokens"]):
        yield f"row {key}: its tokens differ from the invoice's"


def each_row_told(history: History, links: Links) -> Problems:
    """Beyond the seven: every row of the ledger is told on `usage`, with the same amount, and nothing else is."""
    del links
    told: dict[str, list[Any]] = defaultdict(list)
    for event in history.usage_events:
        content = event.content if isinstance(event.content, dict) else {}
        told[str(content.get("id"))].append(content)
    for row in history.ledger:
        events = told.pop(row["_id"], [])
        if not events:
            yield f"row {row['_id']}: no usage event"
        elif len({canonical(event) for event in events}) > 1:
            yield f"row {row['_id']}: usage events with different contents"
        elif amount(events[0]["cost_usd"]) != amount(row["cost_usd"]) or events[0]["billed"] != row["billed"]:
            yield f"row {row['_id']}: its usage event says something else"
    for key in told:
        yield f"usage event {key}: no such row"


def open_at_a_kill(call: Document, kills: Sequence[Kill]) -> bool:
    """Whether the call was open, or answered less than a second before, when its worker was killed or cut off."""
    held = str(call["request_id"]).rpartition(".")[0]
    closed = call["closed"]
    return any(
        held in kill.held
        and call["opened"] <= max(kill.at, kill.until) + JUST_S
        and (closed is None or closed >= kill.at - JUST_S)
        for kill in kills
    )


def few_calls(history: History, links: Links) -> Problems:
    """4. Calls per job <= 1 + the error answers that it was given + its calls open at a kill."""
    uids = {document["uid"]: key for key, document in links.documents.items() if "uid" in document}
    calls: dict[tuple[str, str], list[Document]] = defaultdict(list)
    seen: set[str] = set()
    for call in history.calls:
        request_id = str(call["request_id"])
        uid, _, generation = request_id.rpartition("/")[0].rpartition("/")
        if uid not in uids:
            yield f"call {request_id}: of a job that nobody knows"
        if request_id in seen:
            yield f"call {request_id}: two calls under one request id"
        seen.add(request_id)
        calls[uid, generation].append(call)
    for (uid, generation), of_job in calls.items():
        errors = sum(1 for call in of_job if is_error(call))
        cut = sum(1 for call in of_job if not is_error(call) and open_at_a_kill(call, history.kills))
        if len(of_job) > 1 + errors + cut:
            yield (
                f"{uids.get(uid, uid)}: {len(of_job)} calls in generation {generation}, "
                f"{errors} error answers, {cut} open at a kill"
            )


def is_error(call: Document) -> bool:
    """Whether the provider's own answer gave a reason to call again."""
    return call["status"] not in {None, 200} or call.get("fault") is not None or call["outcome"] == "cut"


def within_limits(history: History, links: Links) -> Problems:
    """6. Billed spend per tenant <= limit + the stated bound; after everything has ended, holds = 0."""
    over = all(document["state"] in TERMINAL for document in links.documents.values())
    for limit in history.limits:
        rows = [row for row in history.ledger if row["tenant"] == limit.tenant and row["billed"]]
        for unit, (allowed, bound) in _allowed(limit).items():
            if (used := _spent(rows, unit)) > allowed + bound:
                yield f"{limit.tenant}: billed {used} {unit}, allowed are {allowed} + {bound}"
            if over:
                yield from _holds(history, limit.tenant, rows, unit)


def _holds(history: History, tenant: str, rows: Sequence[Document], unit: str) -> Problems:
    """What a book says is spent or granted is what the ledger says is spent; else somebody still holds something, or lost it."""
    for book in history.quotas:
        if book["subject"] != f"tenant:{tenant}":
            continue
        taken = sum((amount(entry[unit]) for entry in (book["closed"], *book["grants"].values())), Decimal(0))
        spent = _spent([row for row in rows if book["_id"] in row["quota_keys"]], unit)
        if taken != spent:
            yield f"quota {book['_id']}: {taken} {unit} are spent or held, the ledger says {spent}"


def _allowed(limit: Limit) -> dict[str, tuple[Decimal, Decimal]]:
    """What is limited, with the limit and its bound."""
    units: dict[str, tuple[int | Decimal | None, int | Decimal]] = {
        "requests": (limit.requests, limit.bound_requests),
        "tokens": (limit.tokens, limit.bound_tokens),
        "usd": (limit.usd, limit.bound_usd),
    }
    return {unit: (Decimal(most), Decimal(bound)) for unit, (most, bound) in units.items() if most is not None}


def _spent(rows: Sequence[Document], unit: str) -> Decimal:
    if unit == "requests":
        return Decimal(len(rows))
    if unit == "tokens":
        return Decimal(sum(row["input_tokens"] + row["output_tokens"] for row in rows))
    return sum((amount(row["cost_usd"]) for row in rows), Decimal(0))
