"""What of a file has arrived."""

from datetime import UTC, datetime

import orjson

from broker.cli.arrived import Arrived
from broker.cli.lines import JobLine, Terms, read_line

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def line(deadline: str = "2026-12-02T00:00:00Z", **job: object) -> JobLine:
    terms = Terms("b1", "acme", deadline)
    made = read_line(3, orjson.dumps({"body": BODY, **job}), terms, datetime(2026, 12, 1, tzinfo=UTC))
    assert isinstance(made, JobLine), made
    return made


def test_a_job_that_stands_in_the_topic_has_arrived_whatever_its_deadline() -> None:
    arrived = Arrived()
    assert not arrived.holds(line())
    arrived.add(orjson.dumps(line().job))
    assert arrived.holds(line())
    assert arrived.holds(line("2026-12-03T00:00:00Z"))
    assert arrived.count == 1


def test_another_body_or_tenant_under_the_same_id_has_not_arrived() -> None:
    arrived = Arrived()
    arrived.add(orjson.dumps(line(id="a").job))
    assert arrived.holds(line(id="a"))
    assert not arrived.holds(line(id="a", tenant="globex"))
    assert not arrived.holds(line(id="a", body={**BODY, "model": "n"}))


def test_records_of_others_are_passed_over() -> None:
    arrived = Arrived()
    for value in (None, b"", b"{", b"[]", b'{"id": 1}'):
        arrived.add(value)
    assert not arrived.holds(line())
