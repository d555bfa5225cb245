"""Which records are results of the batch that is followed."""

from datetime import UTC, datetime
from typing import Any

import orjson

from broker.client.following import Batch, Sieve


def taken(sieve: Sieve, headers: tuple[tuple[str, bytes], ...] = (), **fields: Any) -> bool:  # noqa: ANN401 a result's fields
    message = {
        "job_id": "1",
        "tenant": "acme",
        "generation": 1,
        "operation": "chat",
        "status": "succeeded",
        "cost_usd": "0",
        "attempts": 1,
        "timing": {"queued_ms": 0, "provider_ms": 0, "total_ms": 0},
        "batch_id": "b",
        "finished_at": "2026-12-01T08:00:00Z",
        **fields,
    }
    key = f"{message['tenant']}/{message['job_id']}".encode()
    return sieve.take(key, orjson.dumps(message), headers) is not None


def sieve() -> Sieve:
    return Sieve(Batch("acme", "b", datetime(2026, 12, 1, tzinfo=UTC)))


def test_a_result_of_the_batch_is_taken_once_a_generation() -> None:
    one = sieve()
    assert taken(one)
    assert not taken(one)
    assert taken(one, generation=2)
    assert one.seen == {"1": 2}


def test_results_of_other_batches_and_tenants_are_not() -> None:
    one = sieve()
    assert not taken(one, batch_id="c")
    assert not taken(one, batch_id=None)
    assert not taken(one, tenant="acme.eu")
    assert not taken(one, batch_id="c", metadata={"batch_id": "b"}), "the name may stand in somebody's metadata"
    assert one.seen == {}


def test_what_is_no_result_is_passed_over() -> None:
    one = sieve()
    assert not taken(one, headers=(("ce_type", b"aibroker.batch.v1"),))
    assert not taken(one, status="unheard of")
    assert one.take(b"acme/1", b'"batch_id":"b" and garbage', ()) is None
    assert one.take(None, b"{}", ()) is None
    assert one.take(b"acme/1", None, ()) is None
