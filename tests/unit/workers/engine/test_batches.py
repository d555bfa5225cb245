"""Sealed batches: which limit is passed, when one is complete, and what its sealer is told."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import orjson
import pytest
from bson.decimal128 import Decimal128

from broker.errors import AibrokerError, KafkaMissing, TopicMissing
from broker.lanes import Record, Sent
from broker.sending import Sending
from schemas.batch import BatchEvent
from tests.builders import some_settings
from tests.virtual_time import run
from workers.engine.batches import (
    AT_ONCE,
    CALM_S,
    ENOUGH,
    LONGEST_S,
    LOOK_S,
    SHORTEST_S,
    TAKEN,
    Batches,
    passed_limit,
)
from workers.stores.control import HaltKind, Seal, Sealed
from workers.stores.memory import MemoryDatabase, MemoryStore
from workers.stores.protocol import Address, Finish, NewJob, Published

SEAL = Seal("acme/b", "acme", "b", total=3, reply=Address("results.mine", 2), seq=7)


@pytest.mark.parametrize(
    ("limits", "states", "usd", "which"),
    [
        ({}, {"failed": 9}, None, None),
        ({"max_cost_usd": Decimal("0.5")}, {}, Decimal("0.5"), None),
        (
            {"max_cost_usd": Decimal("0.5")},
            {},
            Decimal("0.5000001"),
            "max_cost_usd: 0.5000001 was billed, 0.5 may be; ",
        ),
        ({"max_errors": 2}, {"failed": 1, "expired": 1, "cancelled": 9, "waiting": 9}, None, None),
        ({"max_errors": 2}, {"failed": 1, "expired": 1, "rejected": 1}, None, "max_errors: 3 of the batch's jobs"),
        ({"max_errors": 0}, {"dead": 1}, None, "max_errors: 1 of the batch's jobs"),
        ({"max_error_rate": 0.5}, {"failed": 10, "succeeded": 10}, None, None),
        ({"max_error_rate": 0.5}, {"failed": 11, "succeeded": 9}, None, "max_error_rate: 11 of 20 jobs"),
        ({"max_error_rate": 0.5}, {"failed": ENOUGH - 1, "cancelled": 90}, None, None),
        ({"max_error_rate": 0.5, "total": 2}, {"failed": 2}, None, "max_error_rate: 2 of 2 jobs"),
    ],
)
def test_a_limit_is_passed_when_more_is_there(
    limits: dict[str, Any], states: Mapping[str, int], usd: Decimal | None, which: str | None
) -> None:
    passed = passed_limit(replace(SEAL, **{"total": 100, **limits}), states, usd)
    assert (passed or "").startswith(which or "")
    assert bool(passed) is bool(which)


class Kafka:
    """Stands where the sending task stands: answers each record with the next of `errors`."""

    def __init__(self, *errors: AibrokerError | None) -> None:
        self.records: list[Record] = []
        self._errors = list(errors)

    def try_put(self, record: Record) -> "asyncio.Future[Sent]":
        """Keep a record."""
        self.records.append(record)
        sent: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
        error = self._errors.pop(0) if self._errors else None
        if error is None:
            sent.set_result(Sent(record.topic, 0, 0))
        else:
            sent.set_exception(error)
        return sent


class ABatch:
    """A looker on a store in memory, whose clock is the test's."""

    def __init__(self, *errors: AibrokerError | None) -> None:
        self.now = datetime.now(UTC)
        self.store = MemoryStore(MemoryDatabase(lambda: self.now), "us")
        self.kafka = Kafka(*errors)
        self.limited: list[str] = []
        self.batches = Batches(self.store, cast("Sending", self.kafka), some_settings(), self.limited.append)

    async def jobs(self, **states: str | None) -> None:
        """Jobs of the batch by name: how each has ended, or None."""
        for name, state in states.items():
            known = (name, "acme", name, "normal", b"{}", b"", Address("results"), self.now)
            await self.store.insert([NewJob(f"acme/{name}", *known, batch_id="b")])
            if state is not None:
                await self.ends(name, state)

    async def ends(self, name: str, state: str, *, out: bool = True, usd: str = "0.1") -> None:
        """End a job."""
        row = {"_id": name, "tenant": "acme", "batch_id": "b", "billed": True, "cost_usd": Decimal128(usd)}
        await self.store.finish([Finish(f"acme/{name}", 1, state, {"status": state}, row, keep_payload=True)], "t")
        if out:
            await self.out(name)
            await self.store.ledger([row])

    async def out(self, name: str) -> None:
        """Have a result be out."""
        await self.store.published([Published(f"acme/{name}", "t", 1)], self.now)

    async def looked(self) -> float:
        """Look once, as soon as it is time; return how long the batch rests then."""
        batch = self.store.database.batches["acme/b"]
        batch["watch_at"] = datetime.now(UTC)
        assert await self.batches.look()
        left: timedelta = batch.get("watch_at", datetime.max.replace(tzinfo=UTC)) - datetime.now(UTC)
        return left.total_seconds()


def test_the_sealer_is_told_once_all_jobs_have_ended_and_their_results_are_out() -> None:
    async def life() -> ABatch:
        batch = ABatch()
        await batch.store.seal(SEAL)
        await batch.jobs(a="succeeded", b="failed")
        await batch.looked()
        await batch.jobs(c=None)
        await batch.looked()
        await batch.ends("c", "succeeded", out=False)
        await batch.looked()
        assert batch.kafka.records == []
        await batch.out("c")
        await batch.looked()
        assert "watch_at" not in batch.store.database.batches["acme/b"]
        return batch

    [record] = run(life()).kafka.records
    assert (record.topic, record.partition, record.key) == ("results.mine", 2, b"acme/b")
    headers = dict(record.headers)
    assert (headers["ce_type"], headers["ce_id"]) == (b"aibroker.batch.v1", b"seal:acme/b/7")
    event = BatchEvent.model_validate_json(record.value or b"")
    assert (event.total, event.jobs, event.states, event.code) == (3, 3, {"succeeded": 2, "failed": 1}, None)
    assert event.cost_usd == Decimal("0.2")


def test_what_kafka_did_not_take_is_told_again_with_the_same_content_though_jobs_ran_again_meanwhile() -> None:
    async def life() -> list[Record]:
        batch = ABatch(KafkaMissing("away"))
        await batch.store.seal(SEAL)
        await batch.jobs(a="succeeded", b="failed", c="failed")
        assert await batch.looked() == pytest.approx(TAKEN.total_seconds(), abs=5)
        assert await batch.store.rerun("acme/b", 1) is None
        await batch.looked()
        assert "watch_at" not in batch.store.database.batches["acme/b"]
        return batch.kafka.records

    first, second = run(life())
    assert first == second


def test_a_reply_topic_that_was_deleted_is_not_waited_for() -> None:
    async def life() -> bool:
        batch = ABatch(TopicMissing("gone"))
        await batch.store.seal(replace(SEAL, total=0))
        await batch.looked()
        return "watch_at" in batch.store.database.batches["acme/b"]

    assert not run(life())


def test_a_batch_that_passes_a_limit_stops_and_its_event_says_why() -> None:
    async def life() -> tuple[ABatch, list[Any]]:
        batch = ABatch()
        await batch.store.seal(replace(SEAL, max_errors=1, max_cost_usd=Decimal(1)))
        await batch.jobs(a="failed", b="failed", c=None)
        await batch.looked()
        await batch.looked()
        halts = await batch.store.halts()
        await batch.ends("c", "cancelled")
        await batch.looked()
        return batch, halts

    batch, [halt] = run(life())
    assert (halt.scope, halt.kind) == ("acme/b", HaltKind.LIMITED)
    assert batch.limited == ["acme/b"]
    event = orjson.loads(batch.kafka.records[0].value or b"")
    assert (event["code"], event["message"]) == ("batch_limit", halt.reason)


def test_a_batch_in_which_nothing_happens_is_looked_at_less_and_less_often() -> None:
    async def life() -> list[float]:
        batch = ABatch()
        await batch.store.seal(SEAL)
        await batch.jobs(a=None)
        rests = [await batch.looked() for _ in range(5)]
        await batch.ends("a", "failed")
        return [*rests, await batch.looked()]

    rests = run(life())
    assert rests == pytest.approx([SHORTEST_S, 4, 8, LONGEST_S, LONGEST_S, SHORTEST_S], abs=0.5)


def test_a_looker_rests_until_the_next_turn_that_it_knows_of() -> None:
    async def life() -> tuple[float, float, float]:
        batch = ABatch()
        without = batch.batches._calm_s()
        await batch.store.seal(SEAL)
        await batch.jobs(a=None)
        await batch.looked()
        short = batch.batches._calm_s()
        await batch.looked()
        await batch.looked()
        return without, short, batch.batches._calm_s()

    assert run(life()) == pytest.approx((CALM_S, SHORTEST_S, CALM_S), abs=0.5)


def test_a_seal_is_looked_at_at_once_and_what_nobody_sealed_every_few_seconds() -> None:
    async def life() -> tuple[int, list[Record], int]:
        batch = ABatch()
        looks = []
        look = batch.store.look

        async def counted(now: datetime, again_at: datetime) -> Sealed | None:
            looks.append(now)
            return await look(now, again_at)

        batch.store.look = counted  # type: ignore[method-assign]
        running = asyncio.create_task(batch.batches.run())
        await asyncio.sleep(60)
        calm = len(looks)
        await batch.store.seal(replace(SEAL, total=0))
        batch.batches.nudge()
        await asyncio.sleep(0.1)
        told = list(batch.kafka.records)
        await batch.store.seal(replace(SEAL, total=0, seq=8))
        await asyncio.sleep(CALM_S)
        running.cancel()
        await asyncio.wait({running})
        return calm, told, len(batch.kafka.records)

    calm, told, later = run(life())
    assert calm <= 60 / CALM_S + 1
    assert (len(told), later) == (1, 2)


def test_while_more_batches_are_due_than_are_looked_at_in_a_row_the_looker_goes_on_within_a_second() -> None:
    async def life() -> int:
        batch = ABatch()
        for number in range(3 * AT_ONCE):
            await batch.store.seal(replace(SEAL, id=f"acme/{number}", batch_id=str(number), total=0))
        running = asyncio.create_task(batch.batches.run())
        await asyncio.sleep(2 * LOOK_S + 0.1)
        running.cancel()
        await asyncio.wait({running})
        return len(batch.kafka.records)

    assert run(life()) == 3 * AT_ONCE


def test_a_seal_that_came_while_the_last_one_was_looked_at_is_not_told_of_by_it() -> None:
    async def life() -> list[Record]:
        batch = ABatch()
        await batch.store.seal(SEAL)
        await batch.jobs(a="succeeded", b="succeeded", c="succeeded")
        counts = batch.store.counts

        async def sealed_meanwhile(batch_id: str) -> dict[str, int]:
            found = await counts(batch_id)
            await batch.store.seal(replace(SEAL, total=4, seq=8))
            return found

        batch.store.counts = sealed_meanwhile  # type: ignore[method-assign]
        await batch.looked()
        return batch.kafka.records

    assert run(life()) == []
