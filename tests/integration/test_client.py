"""The client library on a real Kafka: a task of the test answers jobs as workers do."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from broker import Client, kafka, topics
from broker.errors import (
    ClientClosed,
    ControlRefused,
    JobRefused,
    KafkaMissing,
    ResultTimeout,
    TopicMissing,
    UsageError,
)
from broker.lanes import Record
from broker.local.stack import Stack
from broker.sending import Sending
from broker.settings import Settings
from schemas.result import Result, Status

WAIT_S = 20


def job(text: str = "hi", **fields: Any) -> dict[str, Any]:  # noqa: ANN401 whatever a job may have
    return {"body": {"model": "m", "messages": [{"role": "user", "content": text}]}, **fields}


class Responder:
    """Answers every job with its own body, unless it is told to hold them back."""

    def __init__(self, settings: Settings, sending: Sending) -> None:
        self.settings, self.sending = settings, sending
        self.jobs: dict[str, dict[str, Any]] = {}
        self.controls: list[dict[str, Any]] = []
        self.answering = True

    async def take(self, record: Any) -> None:  # noqa: ANN401 the library has no types
        """Do what a worker does with one record."""
        message = orjson.loads(record.value)
        if record.topic == self.settings.topic("jobs.control"):
            self.controls.append(message)
        else:
            self.jobs[message["id"]] = message
            if self.answering:
                await self.answer(message, message.get("reply_to", "results"), message.get("reply_partition"))
        for control in self.controls:  # one may be read before its job
            known = self.jobs.get(control.get("job_id", ""))
            if control["action"] == "reply" and known and message in (known, control):
                await self.answer(known, control["reply_to"], control["reply_partition"])

    async def answer(self, message: dict[str, Any], topic: str, partition: int | None, *, generation: int = 1) -> None:
        """Publish a job's result."""
        key = f"{message['tenant']}/{message['id']}"
        result = {
            "job_id": message["id"],
            "tenant": message["tenant"],
            "generation": generation,
            "operation": "chat",
            "status": "succeeded",
            "output": {"echo": message["body"]},
            "cost_usd": "0.5",
            "attempts": 1,
            "timing": {"queued_ms": 1, "provider_ms": 2, "total_ms": 3},
            "batch_id": message.get("batch_id"),
            "metadata": message.get("metadata"),
            "finished_at": datetime.now(UTC).isoformat(),
        }
        headers = [("ce_type", b"aibroker.result.v1"), ("ce_id", f"{key}/{generation}".encode())]
        topic = self.settings.topic(topic)
        await self.sending.put(Record(topic, orjson.dumps(result), key.encode(), headers, partition))


async def deployment(stack: Stack, prefix: str) -> Settings:
    made = Settings(kafka=stack.addresses.kafka, prefix=prefix)
    await topics.ensure(made)
    return made


@pytest.fixture
async def settings(stack: Stack, shared_prefix: str) -> Settings:
    return await deployment(stack, shared_prefix)


@pytest.fixture
async def responder(settings: Settings) -> AsyncIterator[Responder]:
    async with answering(settings) as one:
        yield one


@asynccontextmanager
async def answering(settings: Settings) -> AsyncIterator[Responder]:
    names = [settings.topic(name) for name in ("jobs.interactive", "jobs.normal", "jobs.batch", "jobs.control")]
    reader = kafka.consumer(settings)
    counts = await kafka.partition_counts(settings)
    await reader.start()
    before = settings.topic("")
    places = [kafka.TopicPartition(t, n) for t in names for n in range(counts[t.removeprefix(before)])]
    reader.assign(places)
    await reader.seek_to_end(*places)  # what is there belongs to other tests
    async with Sending(settings) as sending:
        one = Responder(settings, sending)

        async def read() -> None:
            async for record in reader:
                await one.take(record)

        task = asyncio.create_task(read())
        try:
            yield one
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await reader.stop()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 what it waits for tells nobody
            await asyncio.sleep(0.01)


async def test_a_result_comes_back_to_the_handle(settings: Settings, responder: Responder) -> None:
    async with Client(settings) as client:
        handle = await client.submit(job("hello", metadata={"row": 7}))
        result = await handle.result(WAIT_S)
    assert isinstance(result, Result)
    assert (result.job_id, result.status, result.metadata) == (handle.id, Status.SUCCEEDED, {"row": 7})
    assert result.output == {"echo": job("hello")["body"]}
    assert responder.jobs[handle.id]["reply_to"] == "results.replies"


async def test_a_timeout_leaves_the_handle_usable(settings: Settings, responder: Responder) -> None:
    responder.answering = False
    async with Client(settings) as client:
        handle = await client.submit(job())
        with pytest.raises(ResultTimeout) as caught:
            await handle.result(0.2)
        assert caught.value.retryable
        await until(lambda: handle.id in responder.jobs)
        sent = responder.jobs[handle.id]
        await responder.answer(sent, sent["reply_to"], sent["reply_partition"])
        assert (await handle.result(WAIT_S)).status is Status.SUCCEEDED


async def test_a_wrong_job_is_refused_before_it_is_sent(settings: Settings, responder: Responder) -> None:
    async with Client(settings) as client:
        with pytest.raises(JobRefused, match="did you mean deadline") as caught:
            await client.submit(job(dedline="2030-01-01T00:00:00Z"))
        assert caught.value.code == "unknown_field"
        with pytest.raises(UsageError, match="interactive, normal, batch"):
            await client.submit(job(), priority="urgent")
        good = await client.submit(job())
        await good.result(WAIT_S)
    assert set(responder.jobs) == {good.id}


async def test_another_process_gets_the_result_by_the_id(settings: Settings, responder: Responder) -> None:
    async with Client(settings, tenant="acme") as first:
        handle = await first.submit(job(id="inv-1"))
        await handle.result(WAIT_S)
    async with Client(settings) as second:
        result = await second.await_result("inv-1", WAIT_S, tenant="acme")
    assert (result.tenant, result.job_id) == ("acme", "inv-1")
    assert [control["action"] for control in responder.controls] == ["reply"]


async def test_a_result_that_goes_elsewhere_comes_here_too_once_it_is_awaited(
    settings: Settings, responder: Responder
) -> None:
    async with Client(settings) as client:
        handle = await client.submit(job(reply_to="results"))
        assert (await handle.result(WAIT_S)).job_id == handle.id
    assert "reply_partition" not in responder.jobs[handle.id]


async def test_many_are_submitted_in_order_with_few_under_way(settings: Settings, responder: Responder) -> None:
    refused = []
    jobs = [job(str(n), id=f"j{n}") if n != 3 else {"body": 5} for n in range(700)]
    async with Client(settings) as client:
        handles = [handle async for handle in client.submit_many(jobs, window=100, refused=refused.append)]
        results = await asyncio.gather(*(handle.result(WAIT_S) for handle in handles))
    assert [result.job_id for result in results] == [f"j{n}" for n in range(700) if n != 3]
    assert [(one.position, one.code) for one in refused] == [(3, "invalid_job")]
    assert len(responder.jobs) == 699


async def test_a_slow_source_holds_no_acknowledged_job_back(settings: Settings, responder: Responder) -> None:
    more = asyncio.Event()

    async def slow() -> AsyncIterator[dict[str, Any]]:
        yield job(id="first")
        await more.wait()
        yield job(id="second")

    async with Client(settings) as client, asyncio.timeout(WAIT_S):
        handles = client.submit_many(slow())
        first = await anext(handles)
        assert (await first.result()).job_id == "first"
        more.set()
        [second] = [handle async for handle in handles]
        assert (await second.result()).job_id == "second"
    assert len(responder.jobs) == 2


async def test_a_batch_is_followed_to_its_end(settings: Settings, responder: Responder) -> None:
    lines = (orjson.dumps(job(str(n), id=f"b/{n}")) for n in range(300))
    async with Client(settings) as client, asyncio.timeout(WAIT_S):
        other = await client.submit(job(batch_id="other"))
        submitted = await client.send_many(lines, priority="batch", common={"batch_id": "b"})
        await (await client.submit(job(id="b/300", batch_id="b"))).result()
        await client.seal("b", 301)
        ids = [result.job_id async for result in client.follow("b", total=301)]
    assert (submitted.count, submitted.refused_count) == (300, 0)
    assert sorted(ids) == sorted(f"b/{n}" for n in range(301))
    assert other.id not in ids
    await until(lambda: any(c["action"] == "seal" and c["total"] == 301 for c in responder.controls))


async def test_lines_that_are_no_jobs_are_counted_and_told(settings: Settings, responder: Responder) -> None:
    async with Client(settings) as client:
        submitted = await client.send_many([b"[]", b"{", orjson.dumps(job()), job(id="\n")])
    assert submitted.count == 1
    assert [(one.position, one.code) for one in submitted.refused] == [
        (0, "undecodable"),
        (1, "undecodable"),
        (3, "invalid_job"),
    ]
    await until(lambda: len(responder.jobs) == 1)


async def test_a_cancel_reaches_the_control_topic_with_its_reason(settings: Settings, responder: Responder) -> None:
    responder.answering = False
    async with Client(settings) as client:
        handle = await client.submit(job(tenant="acme"))
        await handle.cancel("no need")
    await until(lambda: bool(responder.controls))
    assert responder.controls == [
        {"action": "cancel", "tenant": "acme", "job_id": handle.id, "reason": "no need"},
    ]


async def test_an_id_that_is_awaited_with_other_content_is_refused(settings: Settings, responder: Responder) -> None:
    responder.answering = False
    async with Client(settings) as client:
        held = await client.submit(job("one", id="same"))
        again = await client.submit(job("one", id="same"))
        assert held.id == again.id
        with pytest.raises(JobRefused) as caught:
            await client.submit(job("two", id="same"))
    assert caught.value.code == "id_conflict"


async def test_who_waits_when_the_client_is_closed_is_told(settings: Settings, responder: Responder) -> None:
    responder.answering = False
    async with Client(settings) as client:
        waiting = asyncio.create_task((await client.submit(job())).result())
        await asyncio.sleep(0)
    with pytest.raises(ClientClosed):
        await waiting
    with pytest.raises(ClientClosed):
        await client.submit(job())


async def test_results_that_expired_unread_are_asked_for_again(settings: Settings, responder: Responder) -> None:
    responder.answering = False
    async with Client(settings) as client:
        handle = await client.submit(job())
        await until(lambda: handle.id in responder.jobs)
        sent = responder.jobs[handle.id]
        place = kafka.TopicPartition(settings.topic("results.replies"), sent["reply_partition"])
        client._replies._consumer.pause(place)
        await responder.answer(sent, sent["reply_to"], sent["reply_partition"])
        await responder.sending.flush(WAIT_S)
        await expire(settings, place)
        client._replies._consumer.resume(place)
        assert (await handle.result(WAIT_S)).status is Status.SUCCEEDED
    assert [control["action"] for control in responder.controls] == ["reply"]


async def expire(settings: Settings, place: kafka.TopicPartition) -> None:
    async with kafka.admin(settings) as admin:
        await admin.delete_records({place: kafka.RecordsToDelete(-1)})


async def test_a_kafka_without_the_topics_is_refused_with_the_remedy(stack: Stack, prefix: str) -> None:
    with pytest.raises(TopicMissing, match="aibroker topics"):
        async with Client(kafka=stack.addresses.kafka, prefix=prefix):
            pass


async def test_no_kafka_is_one_sentence() -> None:
    with pytest.raises(KafkaMissing, match="aibroker up"):
        async with Client(kafka="127.0.0.1:1"):
            pass


async def test_the_backlog_counts_what_no_group_has_committed(stack: Stack, prefix: str) -> None:
    settings = await deployment(stack, prefix)
    async with Client(settings) as client:
        await client.send_many([job() for _ in range(5)], priority="batch")
    assert await kafka.backlog(settings) == {"interactive": 0, "normal": 0, "batch": 5}


async def test_topics_are_made_once_and_hold_what_the_file_says(settings: Settings) -> None:
    again = await topics.ensure(settings)
    counts = await topics.check(settings)
    assert again.made == ()
    assert counts == {name: shape.partitions for name, shape in topics.wanted(settings).items()}
    assert await topics.kept_s(settings, ["results.replies"]) == {"results.replies": 4500.0}


async def test_batches_and_reruns_are_asked_for_under_the_key_that_keeps_them_in_order(
    settings: Settings, responder: Responder
) -> None:
    async with Client(settings, tenant="acme") as client:
        await client.cancel_batch("b", "a mistake")
        await client.rerun("j", tenant="beta")
        await client.seal("b", 3, max_cost_usd="0.50", max_error_rate=0.1, reply_to="results")
        with pytest.raises(UsageError, match="max_error_rate: Input should be less than or equal to 1"):
            await client.seal("b", 3, max_error_rate=10)
        with pytest.raises(UsageError, match="max_cost_usd: must be a string"):
            await client.seal("b", 3, max_cost_usd=0.5)  # type: ignore[arg-type]
    await until(lambda: len(responder.controls) == 3)
    assert sorted(responder.controls, key=lambda control: str(control["action"])) == [
        {"action": "cancel", "tenant": "acme", "batch_id": "b", "reason": "a mistake"},
        {"action": "rerun", "tenant": "beta", "job_id": "j"},
        {
            "action": "seal",
            "tenant": "acme",
            "batch_id": "b",
            "total": 3,
            "max_cost_usd": "0.5",
            "max_error_rate": 0.1,
            "reply_to": "results",
        },
    ]


async def test_a_finished_job_that_is_cancelled_here_is_refused_at_once(
    settings: Settings, responder: Responder
) -> None:
    async with Client(settings) as client:
        handle = await client.submit(job())
        await handle.result(WAIT_S)
        with pytest.raises(ControlRefused) as caught:
            await handle.cancel()
    assert (caught.value.code, caught.value.retryable) == ("already_ended", False)
    assert responder.controls == []
