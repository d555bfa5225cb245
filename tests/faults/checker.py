"""Judges a history by the seven invariants of the contract; reads plain data and imports nothing of ours.

`check` returns the problems of each invariant, as sentences; none at all means that it held.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from tests.faults.history import Document, History, Place, Record, amount
from tests.faults.links import TERMINAL, Links, Problems
from tests.faults.money import each_row_told, few_calls, one_bill, within_limits

BATCH_EVENT = "aibroker.batch.v1"
"""The `ce_type` of a batch's completion."""


def check(history: History) -> dict[str, list[str]]:
    """The problems of each invariant, by its number."""
    links = Links(history)
    return {number: list(invariant(history, links)) for number, invariant in INVARIANTS.items()}


def one_end(history: History, links: Links) -> Problems:
    """1. Every accepted record has exactly one terminal document, or one record in `jobs.dead`."""
    there = {record.place for record in history.records}
    for place in history.accepted:
        if place not in there:
            yield f"{place}: acknowledged to its producer, and not in the topic"
    for record in history.records:
        if record.place not in links.dead and record.place not in links.document_of:
            yield f"{record.place}: lost: neither a document nor a dead letter"
    for key, document in links.documents.items():
        if document["state"] not in TERMINAL:
            yield f"{key}: has not ended: {document['state']}, {document.get('why_waiting')}"
        yield from _asked_for(key, links)
    yield from _dead_letters(history, links)


def _asked_for(key: str, links: Links) -> Problems:
    if key not in links.records_of:
        yield f"{key}: a document that no record asked for"
    elif len({_work(record, links) for record in links.records_of[key]}) > 1:
        yield f"{key}: two different jobs under one id, and no dead letter"


def _work(record: Record, links: Links) -> str:
    """What makes two records with one id the same job."""
    wanted = links.asked[record.place]
    return wanted.work if wanted is not None else ""


def _dead_letters(history: History, links: Links) -> Problems:
    records = {record.place: record for record in history.records}
    for place, letters in links.dead.items():
        if place[0] == "jobs.control":
            continue
        record = records.get(place)
        if record is None:
            yield f"{place}: a dead letter that no record became"
            continue
        if len(letters) > 1 and not _may_come_again(place, history):
            yield f"{place}: {len(letters)} dead letters, and nothing is known that explains the second"
        if any(_untouched(letter) != _untouched(record) for letter in letters):
            yield f"{place}: its dead letter's bytes, key or headers differ"
        if letters[0].header("aibroker-reason") == "id_conflict":
            yield from _conflict(record, links)


def _may_come_again(place: Place, history: History) -> bool:
    died = any(kill.incarnation for kill in history.kills)  # a line that was cut has none
    return died or place[:2] in history.reassigned or place in history.unacknowledged


def _conflict(record: Record, links: Links) -> Problems:
    """A conflict needs another job under the same id."""
    wanted = links.asked[record.place]
    others = links.records_of.get(f"{wanted.tenant}/{wanted.job_id}", []) if wanted is not None else []
    if not others or any(_work(other, links) == _work(record, links) for other in others):
        yield f"{record.place}: called a conflict, and no other job has its id"


def _untouched(record: Record) -> tuple[object, ...]:
    kept = tuple(header for header in record.headers if not header[0].startswith("aibroker-"))
    return record.key, record.value, kept


def one_content(history: History, links: Links) -> Problems:
    """2. One result content per (job, generation), and at least one event on its topic."""
    contents: dict[tuple[str, int], dict[str, Any]] = {}
    places: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for event in history.events:
        if (
            event.header("ce_type") == BATCH_EVENT
        ):  # a batch ended: it stands on its sealer's topic, and is nobody's result
            continue
        key, result = (event.key or b"").decode("utf-8", "replace"), event.content
        if not _is_result(event, key, result):
            yield f"{event.place}: with key {key!r} and ce_id {event.header('ce_id')!r} it is no result"
        elif result["generation"]:  # 0 refuses another job under a known id; each is its own
            places[key].add((event.topic, event.partition))
            if contents.setdefault((key, result["generation"]), result) != result:
                yield f"{key}: two contents for generation {result['generation']}"
    yield from _all_published(links, contents, places)


def _all_published(
    links: Links, contents: dict[tuple[str, int], dict[str, Any]], places: dict[str, set[tuple[str, int]]]
) -> Problems:
    for key, document in links.documents.items():
        if document["state"] in TERMINAL:
            yield from _published(document, contents.pop((key, document["generation"]), None))
            yield from _reached(links, key, places[key])
    for key, generation in contents:  # of what has ended only earlier generations are left
        if generation >= links.documents.get(key, {}).get("generation", 0):
            yield f"{key}: generation {generation} was published, and its document has not ended"


def _is_result(event: Record, key: str, result: Any) -> bool:  # noqa: ANN401 any JSON value
    return (
        isinstance(result, dict)
        and f"{result.get('tenant')}/{result.get('job_id')}" == key
        and event.header("ce_id") == f"{key}/{result.get('generation')}"
    )


def _published(document: Document, content: dict[str, Any] | None) -> Problems:
    result = document.get("result") or {}
    if content is None:
        yield f"{document['_id']}: its result was not published"
    elif not (content["status"] == document["state"] == result.get("status")):
        yield f"{document['_id']}: published as {content['status']}, stored as {document['state']}"
    elif amount(content["cost_usd"]) != amount(result["cost_usd"]):
        yield f"{document['_id']}: published at {content['cost_usd']}, stored at {result['cost_usd']}"


def _reached(links: Links, key: str, places: set[tuple[str, int]]) -> Problems:
    """The result is where each of its records wants it; what was rejected may be told on `results` instead."""
    topics = {topic for topic, _ in places}
    for record in links.records_of.get(key, ()):
        wanted = links.asked[record.place]
        if wanted is None or links.documents[key]["state"] == "rejected":
            continue
        exactly = wanted.reply_partition is None or (wanted.reply_to, wanted.reply_partition) in places
        if wanted.reply_to not in topics or not exactly:
            yield f"{key}: no event on {wanted.reply_to}/{wanted.reply_partition} for {record.place}"


def committed_is_kept(history: History, links: Links) -> Problems:
    """5. Every offset below the committed one has a document or a record in `jobs.dead`."""
    for record in history.records:
        below = record.offset < history.committed.get((record.topic, record.partition), 0)
        if below and record.place not in links.dead and record.place not in links.document_of:
            yield f"{record.place}: committed, and neither a document nor a dead letter"


def nothing_left(history: History, links: Links) -> Problems:
    """7. No terminal job has its `outbox` token once everybody has caught up."""
    del history
    for key, document in links.documents.items():
        if document.get("outbox") is not None:
            yield f"{key}: its outbox still holds {document['outbox']!r}"


INVARIANTS: dict[str, Callable[[History, Links], Problems]] = {
    "1": one_end,
    "2": one_content,
    "3": one_bill,
    "4": few_calls,
    "5": committed_is_kept,
    "6": within_limits,
    "7": nothing_left,
    "usage": each_row_told,
}
"""Each invariant's check, by its number in the contract; `usage` is what the contract guarantees besides."""
