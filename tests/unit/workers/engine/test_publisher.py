"""What is finished comes out and leaves no outbox, also when its result is asked for again while it is on its way."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from bson.decimal128 import Decimal128

from broker.errors import AibrokerError, KafkaMissing
from broker.lanes import Record
from tests.builders import Bench, Sent, an_answer, one_after_another
from tests.virtual_time import VirtualLoop
from workers.engine.publisher import OWN_TURNS, REPUBLISH_S
from workers.engine.watchdog import TICK_S
from workers.stores.memory import MemoryStore
from workers.stores.protocol import Address, Unpublished

AT = datetime(2026, 12, 1, 8, tzinfo=UTC)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass
class Slow:
    """Stands where the sending task stands: acknowledges when it is told to."""

    records: list[Record] = field(default_factory=list)
    under_way: list[asyncio.Future[dict[int, AibrokerError]]] = field(default_factory=list)
    put: asyncio.Event = field(default_factory=asyncio.Event)

    def try_put_many(self, records: Sequence[Record]) -> asyncio.Future[dict[int, AibrokerError]]:
        self.records.extend(records)
        self.put.set()
        self.under_way.append(asyncio.get_running_loop().create_future())
        return self.under_way[-1]

    def acknowledge(self) -> None:
        for future in self.under_way:
            if not future.done():
                future.set_result({})

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.under_way) < count:
                await self.put.wait()
                self.put.clear()


async def finished(bench: Bench) -> list[Unpublished]:
    await bench.store.finish([await bench.process()], "token")
    return await bench.store.unpublished(10, of_the_dead=False)


async def test_the_producers_trace_context_goes_on_to_result_and_usage() -> None:
    bench = Bench(one_after_another(an_answer()))
    [job] = await finished(bench)
    bench.publisher.publish([job._replace(trace=f"{TRACE} rojo=1")])
    await bench.publisher.flush()
    assert {record.topic for record in bench.sent.records} == {"results", "usage"}
    for record in bench.sent.records:
        assert ("traceparent", TRACE.encode()) in record.headers
        assert ("tracestate", b"rojo=1") in record.headers


async def test_a_result_that_is_asked_for_while_it_is_on_its_way_is_sent_again() -> None:
    bench, slow = Bench(one_after_another(an_answer())), Slow()
    jobs = await finished(bench)
    publisher = bench.publisher
    publisher._sending = slow  # type: ignore[assignment] # a stand-in
    publisher.publish(jobs)
    await slow.until(1)
    assert await bench.store.add_reply(jobs[0].id, Address("results"), "a later token")
    await publisher.again([jobs[0].id])
    assert len(slow.under_way) == 1  # not side by side with what is under way
    slow.acknowledge()
    await slow.until(2)
    slow.acknowledge()
    await publisher.flush()
    [document] = bench.database.jobs.values()
    assert "outbox" not in document
    assert [record.topic for record in slow.records].count("results") == 2


def test_a_republish_that_waits_for_kafka_is_no_loop_that_stands_still() -> None:
    loop = VirtualLoop()
    try:
        bench, slow = Bench(one_after_another(an_answer())), Slow()
        loop.run_until_complete(finished(bench))
        publisher = bench.publisher
        publisher._sending = slow  # type: ignore[assignment] # a stand-in
        loop.create_task(publisher.run())
        loop.pass_time(REPUBLISH_S + 1)
        assert len(slow.under_way) == 1
        before = publisher.ticked_at
        loop.pass_time(TICK_S)
        assert publisher.ticked_at > before
        slow.acknowledge()
        loop.settle()
        assert [job for job in bench.database.jobs.values() if "outbox" in job] == []
    finally:
        loop.end()


# -- rows that no outbox tells of ------------------------------------------------------------------------------------------


def a_row(id_: str = "uid/1/1.1") -> dict[str, Any]:
    """The row of an attempt that is billed to nobody."""
    facts = {"tenant": "acme", "job_id": "1", "billed": False, "estimated": True, "incarnation": "us"}
    return {"_id": id_, "recorded_at": AT, "cost_usd": Decimal128("0.0002"), **facts}


def another(bench: Bench) -> Bench:
    """Another worker on the same database."""
    other = Bench(bench.answers)
    other.database = bench.database
    other.store = MemoryStore(bench.database, "another")
    other.publisher._store = other.store
    return other


def untold(bench: Bench) -> list[str]:
    return [id_ for id_, row in bench.database.usage.items() if "untold" in row]


async def test_a_row_is_written_before_it_is_told_and_marked_until_kafka_has_its_event() -> None:
    bench, slow = Bench(one_after_another(an_answer())), Slow()
    bench.publisher._sending = slow  # type: ignore[assignment] # a stand-in
    bench.store.lose_next("ledger", executed=False)
    recording = asyncio.create_task(bench.publisher.record_now([a_row()]))
    await asyncio.sleep(0)
    assert (slow.records, bench.rows()) == ([], [])
    await recording
    await slow.until(1)
    assert untold(bench) == ["uid/1/1.1"]
    slow.acknowledge()
    await bench.publisher.flush()
    assert bench.rows() == [a_row()]
    assert [record.topic for record in slow.records] == ["usage"]


@dataclass
class Unwilling(Sent):
    """A Kafka that is not there for the first records: there is no room for them, or they fail."""

    unwilling: int = 1
    room: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def try_put_many(self, records: Sequence[Record]) -> Any:  # noqa: ANN401 as its parent, or None
        self.unwilling -= 1
        if self.unwilling < 0:
            return super().try_put_many(records)
        failed: asyncio.Future[dict[int, AibrokerError]] = asyncio.get_running_loop().create_future()
        failed.set_result({0: KafkaMissing("planted")})
        return failed if self.room else None


@pytest.mark.parametrize("room", [True, False])
def test_a_row_that_could_not_be_told_is_told_at_the_next_turn(room: bool) -> None:
    loop = VirtualLoop()
    try:
        bench = Bench(one_after_another(an_answer()))
        kafka = bench.publisher._sending = Unwilling(room=room)  # type: ignore[assignment] # a stand-in
        loop.run_until_complete(bench.publisher.record_now([a_row(), a_row("uid/1/1.2")]))
        loop.settle()
        assert untold(bench) == ["uid/1/1.1", "uid/1/1.2"][: 1 if room else 2]
        loop.create_task(bench.publisher.run())
        loop.pass_time(REPUBLISH_S + 1)
        assert untold(bench) == []
        assert len(kafka.records) == (1 if room else 2)
    finally:
        loop.end()


def test_the_rows_of_a_worker_that_was_killed_are_told_by_another_as_they_would_have_been() -> None:
    loop = VirtualLoop()
    try:
        killed, slow = Bench(one_after_another(an_answer())), Slow()
        killed.publisher._sending = slow  # type: ignore[assignment] # a stand-in
        loop.run_until_complete(killed.publisher.record_now([a_row()]))
        loop.settle()
        other = another(killed)
        loop.create_task(other.publisher.run())
        loop.run_until_complete(killed.store.start(1e9, {}))
        loop.pass_time(REPUBLISH_S * OWN_TURNS + 1)
        assert other.sent.records == []  # it lives
        loop.run_until_complete(killed.store.stop())
        loop.pass_time(REPUBLISH_S + 1)
        assert (other.sent.records, untold(other)) == (slow.records, [])
    finally:
        loop.end()


def test_a_row_whose_event_is_under_way_is_not_told_twice() -> None:
    loop = VirtualLoop()
    try:
        bench, slow = Bench(one_after_another(an_answer())), Slow()
        bench.publisher._sending = slow  # type: ignore[assignment] # a stand-in
        loop.run_until_complete(bench.publisher.record_now([a_row()]))
        loop.create_task(bench.publisher.run())
        loop.pass_time(REPUBLISH_S * OWN_TURNS + 1)
        assert len(slow.records) == 1
    finally:
        loop.end()
