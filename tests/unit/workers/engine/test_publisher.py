"""What is finished comes out and leaves no outbox, also when its result is asked for again while it is on its way."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from broker.errors import AibrokerError
from broker.lanes import Record
from tests.builders import Bench, an_answer, one_after_another
from workers.stores.protocol import Address, Unpublished

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
