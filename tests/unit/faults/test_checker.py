"""The checker finds nothing wrong with a good history, and finds each fault that is planted into one."""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from bson.decimal128 import Decimal128

from tests.faults import checker, history
from tests.faults.history import History, Kill, Limit, Record

COST = "0.0001"
OURS = {"broker", "workers", "schemas"}


def job(number: int, *, offset: int | None = None, **fields: object) -> Record:
    value = {"id": f"j{number}", "tenant": "acme", "body": {"model": "m", "n": number}, **fields}
    value = {name: content for name, content in value.items() if content is not None}
    return Record("jobs.normal", 0, number if offset is None else offset, value=json.dumps(value).encode())


def document(number: int, **fields: object) -> dict[str, Any]:
    return {
        "_id": f"acme/j{number}",
        "uid": f"u{number}",
        "generation": 1,
        "fence": 1,
        "state": "succeeded",
        "owner": "w1",
        "result": {
            "status": "succeeded",
            "generation": 1,
            "cost_usd": Decimal128(COST),
            "usage": {"input_tokens": 7, "output_tokens": 3},
            "metadata": fields.pop("metadata", None),
        },
        **fields,
    }


def event(number: int, offset: int, topic: str = "results", **fields: object) -> Record:
    key = f"acme/j{number}"
    value = {"tenant": "acme", "job_id": f"j{number}", "generation": 1, "status": "succeeded", "cost_usd": COST}
    headers = (("ce_id", f"{key}/{fields.get('generation', 1)}".encode()),)
    return Record(topic, 0, offset, key.encode(), json.dumps({**value, **fields}).encode(), headers)


def row(number: int, attempt: str = "1.1", **fields: object) -> dict[str, Any]:
    return {
        "_id": f"u{number}/1/{attempt}",
        "tenant": "acme",
        "job_id": f"j{number}",
        "generation": 1,
        "cost_usd": Decimal128(COST),
        "input_tokens": 7,
        "output_tokens": 3,
        "billed": True,
        "estimated": False,
        "quota_keys": ["tenant:acme/day/2026-12-01T00:00Z"],
        **fields,
    }


def usage_event(of: Mapping[str, Any], offset: int) -> Record:
    value = {"id": of["_id"], "cost_usd": str(of["cost_usd"]), "billed": of["billed"]}
    return Record("usage", 0, offset, b"acme", json.dumps(value).encode())


def entry(requests: int, usd: str) -> dict[str, Any]:
    return {"requests": requests, "tokens": 0, "usd": Decimal128(usd)}


def book(closed: Mapping[str, Any], **grants: Mapping[str, Any]) -> dict[str, Any]:
    return {"_id": "tenant:acme/day/2026-12-01T00:00Z", "subject": "tenant:acme", "closed": closed, "grants": grants}


def call(number: int, attempt: str = "1.1", **fields: object) -> dict[str, Any]:
    return {
        "request_id": f"u{number}/1/{attempt}",
        "prompt_tokens": 7,
        "output_tokens": 3,
        "status": 200,
        "opened": 100.0,
        "closed": 101.0,
        "usage": {},
        "cost": COST,
        "outcome": "answered",
        "fault": None,
        **fields,
    }


def gone(number: int, attempt: str = "1.1", **fields: object) -> dict[str, Any]:
    """A call whose worker went away while it was open."""
    return call(number, attempt, status=None, usage=None, cost="0", outcome="client_gone", closed=105.0, **fields)


@pytest.fixture
def good() -> History:
    numbers = range(3)
    garbage = Record("jobs.normal", 0, 3, b"k", b"\xff", (("h", b"1"),))
    origin = {"topic": "p.jobs.normal", "partition": "0", "offset": "3", "reason": "undecodable"}
    told = tuple((f"aibroker-{name}", content.encode()) for name, content in origin.items())
    rows = [row(number) for number in numbers]
    return History(
        accepted=[("jobs.normal", 0, offset) for offset in range(4)],
        records=[*(job(number) for number in numbers), garbage],
        dead=[Record("jobs.dead", 0, 0, b"k", b"\xff", (("h", b"1"), *told))],
        events=[event(number, number) for number in numbers],
        usage_events=[usage_event(each, offset) for offset, each in enumerate(rows)],
        documents=[document(number) for number in numbers],
        ledger=rows,
        quotas=[book({"requests": 1, "tokens": 10, "usd": Decimal128(COST)}, w1=entry(2, "0.0002"))],
        calls=[call(number) for number in numbers],
        committed={("jobs.normal", 0): 4},
        limits=[Limit("acme", requests=3, usd=Decimal("0.0003"))],
        prefix="p",
    )


def broken(run: History) -> set[str]:
    return {number for number, problems in checker.check(run).items() if problems}


def killed(run: History, *held: str) -> History:
    return replace(run, kills=[Kill(105.0, "w1", frozenset(held))])


def buried_twice(run: History) -> History:
    return replace(run, dead=[run.dead[0], replace(run.dead[0], offset=1)])


def without(items: Sequence[Any], place: int) -> list[Any]:
    return [item for number, item in enumerate(items) if number != place]


def test_a_good_history_has_no_problem(good: History) -> None:
    assert not broken(good), checker.check(good)


def test_an_empty_history_has_no_problem() -> None:
    assert not broken(History())


def test_a_lost_job_breaks_the_first_and_the_fifth_invariant(good: History) -> None:
    run = replace(
        good,
        documents=without(good.documents, 1),
        events=without(good.events, 1),
        ledger=without(good.ledger, 1),
        usage_events=without(good.usage_events, 1),
        calls=without(good.calls, 1),
        limits=[],
    )
    assert broken(run) == {"1", "5"}


def test_an_offset_beyond_an_unknown_record_is_no_fault_before_it_is_committed(good: History) -> None:
    run = replace(good, records=[*good.records, job(9, offset=4)])
    assert broken(run) == {"1"}
    assert broken(replace(run, committed={("jobs.normal", 0): 5})) == {"1", "5"}


def test_a_lost_dead_letter_is_seen(good: History) -> None:
    assert broken(replace(good, dead=[])) == {"1", "5"}


def test_a_dead_letter_whose_bytes_were_touched_is_seen(good: History) -> None:
    assert broken(replace(good, dead=[replace(good.dead[0], value=b"{}")])) == {"1"}


def test_a_dead_letter_may_not_come_twice_where_nothing_disturbed_its_reader(good: History) -> None:
    run = buried_twice(good)
    topic, partition, offset = run.records[-1].place
    assert broken(run) == {"1"}
    assert broken(replace(run, reassigned=frozenset({(topic, partition + 1)}))) == {"1"}
    assert broken(replace(run, unacknowledged=frozenset({(topic, partition, offset + 1)}))) == {"1"}
    assert broken(replace(run, kills=[Kill(0.0, "", frozenset(), how="line")])) == {"1"}


def test_a_dead_letter_may_come_twice_after_the_death_of_a_worker(good: History) -> None:
    assert not broken(killed(buried_twice(good)))


def test_a_dead_letter_may_come_twice_where_its_partition_was_given_out_again(good: History) -> None:
    run = buried_twice(good)
    assert not broken(replace(run, reassigned=frozenset({run.records[-1].place[:2]})))


def test_a_dead_letter_may_come_twice_where_the_first_was_not_acknowledged(good: History) -> None:
    run = buried_twice(good)
    assert not broken(replace(run, unacknowledged=frozenset({run.records[-1].place})))


def test_an_acknowledged_record_that_is_not_in_its_topic_is_seen(good: History) -> None:
    assert broken(replace(good, accepted=[*good.accepted, ("jobs.batch", 0, 0)])) == {"1"}


def test_a_job_that_has_not_ended_is_seen(good: History) -> None:
    waiting = {**document(0), "state": "waiting", "result": None}
    assert "1" in broken(replace(good, documents=[waiting, *good.documents[1:]]))


def test_a_document_that_nobody_asked_for_is_seen(good: History) -> None:
    silent = document(8, result={**document(8)["result"], "usage": {}, "cost_usd": "0"})
    told = event(8, 8, cost_usd="0")
    assert broken(replace(good, documents=[*good.documents, silent], events=[*good.events, told])) == {"1"}


def test_the_same_job_sent_twice_is_one_job(good: History) -> None:
    assert not broken(replace(good, records=[*good.records, job(1, offset=4)]))


def test_another_job_under_a_known_id_has_to_be_a_dead_letter(good: History) -> None:
    other = job(1, offset=4, body={"model": "other"})
    run = replace(good, records=[*good.records, other])
    assert broken(run) == {"1"}
    origin = {"topic": "p.jobs.normal", "partition": "0", "offset": "4", "reason": "id_conflict"}
    told = tuple((f"aibroker-{name}", content.encode()) for name, content in origin.items())
    letter = Record("jobs.dead", 0, 1, None, other.value, told)
    assert not broken(replace(run, dead=[*good.dead, letter]))
    same = job(1, offset=4)
    wrong = replace(letter, value=same.value)
    assert broken(replace(run, records=[*good.records, same], dead=[*good.dead, wrong])) == {"1"}


def test_a_job_without_an_id_is_found_by_its_metadata(good: History) -> None:
    nameless = job(2, id=None, metadata={"row": 2})
    records = [*good.records[:2], nameless, good.records[3]]
    assert "1" in broken(replace(good, records=records))
    documents = [*good.documents[:2], document(2, metadata={"row": 2})]
    assert not broken(replace(good, records=records, documents=documents))


def test_a_job_without_an_id_that_waits_still_is_not_called_lost(good: History) -> None:
    nameless = job(2, id=None, metadata={"row": 2})
    waiting = {**document(2), "state": "waiting", "result": None, "payload": nameless.value}
    records = [*good.records[:2], nameless, good.records[3]]
    problems = checker.check(replace(good, records=records, documents=[*good.documents[:2], waiting]))["1"]
    assert any("has not ended" in problem for problem in problems)
    assert not any("lost" in problem for problem in problems)


def test_an_unpublished_result_breaks_the_second_invariant(good: History) -> None:
    assert broken(replace(good, events=good.events[1:])) == {"2"}


def test_a_result_told_twice_is_fine_and_with_two_contents_is_not(good: History) -> None:
    assert not broken(replace(good, events=[*good.events, event(0, 7)]))
    assert broken(replace(good, events=[*good.events, event(0, 7, message="other")])) == {"2"}


def test_a_published_result_that_is_not_the_stored_one_is_seen(good: History) -> None:
    assert broken(replace(good, events=[event(0, 0, status="failed"), *good.events[1:]])) == {"2"}
    assert broken(replace(good, events=[event(0, 0, cost_usd="0.2"), *good.events[1:]])) == {"2"}


def test_a_result_has_to_be_on_the_topic_where_it_is_awaited(good: History) -> None:
    run = replace(good, records=[job(0, reply_to="results.mine"), *good.records[1:]])
    assert broken(run) == {"2"}
    assert not broken(replace(run, events=[event(0, 0, "results.mine"), *good.events[1:]]))


def test_a_result_has_to_be_in_the_partition_where_it_is_awaited(good: History) -> None:
    run = replace(good, records=[job(0, reply_partition=3), *good.records[1:]])
    assert broken(run) == {"2"}
    assert not broken(replace(run, events=[replace(event(0, 0), partition=3), *good.events[1:]]))


def test_a_refusal_under_a_known_id_is_no_second_content(good: History) -> None:
    refusal = event(0, 7, generation=0, status="rejected")
    assert not broken(replace(good, events=[*good.events, refusal]))


def test_the_completion_of_a_batch_is_left_aside_and_anything_else_that_is_no_result_is_not(good: History) -> None:
    told = replace(event(0, 9), key=b"acme/b1", value=b"{}", headers=(("ce_type", b"aibroker.batch.v1"),))
    assert broken(replace(good, events=[*good.events, told])) == set()
    foreign = replace(told, headers=(("ce_type", b"somebody.elses.v1"),))
    assert broken(replace(good, events=[*good.events, foreign])) == {"2"}


def test_a_double_bill_breaks_the_third_invariant(good: History) -> None:
    double = row(0, "2.1")
    run = replace(
        good,
        ledger=[*good.ledger, double],
        usage_events=[*good.usage_events, usage_event(double, 8)],
        calls=[*good.calls, call(0, "2.1")],
        limits=[],
    )
    assert broken(run) == {"3", "4"}


def test_a_missing_row_breaks_the_third_invariant(good: History) -> None:
    run = replace(good, ledger=good.ledger[1:], usage_events=good.usage_events[1:], limits=[])
    assert broken(run) == {"3"}


def test_a_wrong_cost_breaks_the_third_invariant(good: History) -> None:
    wrong = row(0, cost_usd=Decimal128("0.00011"))
    run = replace(good, ledger=[wrong, *good.ledger[1:]], usage_events=[usage_event(wrong, 0), *good.usage_events[1:]])
    assert "3" in broken(run)


def test_a_row_with_other_tokens_than_the_invoice_is_seen(good: History) -> None:
    assert broken(replace(good, ledger=[row(0, input_tokens=8), *good.ledger[1:]])) == {"3"}


def test_a_row_that_is_not_on_the_invoice_is_seen_unless_it_is_estimated(good: History) -> None:
    unpaid = row(0, "0.9", billed=False)
    run = replace(good, ledger=[*good.ledger, unpaid], usage_events=[*good.usage_events, usage_event(unpaid, 8)])
    assert broken(run) == {"3"}
    guessed = {**unpaid, "estimated": True}
    assert not broken(replace(run, ledger=[*good.ledger, guessed]))


def test_a_row_without_a_usage_event_is_seen(good: History) -> None:
    assert broken(replace(good, usage_events=good.usage_events[1:])) == {"usage"}


def test_a_usage_event_without_a_row_is_seen(good: History) -> None:
    for billed in (True, False):
        run = replace(good, usage_events=[*good.usage_events, usage_event(row(0, "9.9", billed=billed), 8)])
        assert broken(run) == broken(killed(run)) == {"usage"}


def test_a_line_of_the_invoice_without_a_row_needs_a_kill_of_its_own_worker(good: History) -> None:
    lost = call(0, "0.1", closed=104.5)
    run = replace(good, calls=[*good.calls, lost])
    assert broken(run) == {"3", "4"}
    assert not broken(killed(run, "u0/1/0"))
    assert broken(killed(run, "u1/1/0")) == {"3", "4"}
    early = replace(good, calls=[*good.calls, call(0, "0.1", closed=103.5)])
    assert broken(killed(early, "u0/1/0")) == {"3", "4"}


def test_a_stopped_worker_may_have_called_until_it_had_to_know_that_it_is_dead(good: History) -> None:
    calls = [*good.calls, gone(1, "1.2", opened=104.0)]
    stopped = Kill(102.5, "w1", frozenset({"u1/1/1"}), until=104.0)
    assert broken(replace(good, calls=calls, kills=[stopped])) == set()
    assert broken(replace(good, calls=calls, kills=[replace(stopped, until=0.0)])) == {"4"}


def test_a_call_too_many_breaks_the_fourth_invariant(good: History) -> None:
    run = replace(good, calls=[*good.calls, gone(0, "0.1")])
    assert broken(run) == {"4"}
    assert not broken(killed(run, "u0/1/0"))


def test_error_answers_allow_as_many_calls_more(good: History) -> None:
    error = call(0, "1.0", status=500, usage=None, cost="0", fault="500")
    assert not broken(replace(good, calls=[error, *good.calls]))
    assert broken(replace(good, calls=[error, gone(0, "0.7"), *good.calls])) == {"4"}


def test_two_calls_under_one_request_id_are_seen(good: History) -> None:
    again = call(0, status=500, usage=None, cost="0")
    assert broken(replace(good, calls=[again, *good.calls])) == {"4"}


def test_a_call_for_a_job_that_nobody_knows_is_seen(good: History) -> None:
    assert broken(replace(good, calls=[*good.calls, gone(7)])) == {"4"}


def test_overspend_breaks_the_sixth_invariant_beyond_its_bound(good: History) -> None:
    assert broken(replace(good, limits=[Limit("acme", requests=2)])) == {"6"}
    assert not broken(replace(good, limits=[Limit("acme", requests=2, bound_requests=1)]))
    assert broken(replace(good, limits=[Limit("acme", usd=Decimal("0.0002"))])) == {"6"}
    assert broken(replace(good, limits=[Limit("acme", tokens=29)])) == {"6"}


def test_a_hold_that_is_left_breaks_the_sixth_invariant(good: History) -> None:
    closed = good.quotas[0]["closed"]
    assert broken(replace(good, quotas=[book(closed, w1=entry(3, "0.0002"))])) == {"6"}
    assert broken(replace(good, quotas=[book(closed, w1=entry(2, "0.0003"))])) == {"6"}
    assert broken(replace(good, quotas=[book(closed)])) == {"6"}


def test_a_left_outbox_breaks_the_seventh_invariant(good: History) -> None:
    left = {**document(0), "outbox": "token"}
    assert broken(replace(good, documents=[left, *good.documents[1:]])) == {"7"}


def test_a_kill_log_reads_as_it_was_written() -> None:
    kills = [Kill(105.5, "w1", frozenset({"u1/1/1", "u2/1/3"}), 7, "after_call:3"), Kill(107.0, "w2", frozenset())]
    assert history.read_kills(map(history.kill_line, kills)) == kills


@pytest.mark.parametrize("module", ["checker", "money", "links", "history", "reading", "waiting", "told", "judge"])
def test_the_checker_imports_nothing_of_ours(module: str) -> None:
    tree = ast.parse(Path(history.__file__).with_name(f"{module}.py").read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not {name.partition(".")[0] for name in names} & OURS
