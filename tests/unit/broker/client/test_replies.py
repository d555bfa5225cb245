"""What is kept for who awaits a result."""

import asyncio
import gc

import pytest

from broker.client.replies import Replies, Slot
from broker.errors import ResultLost, ResultTimeout
from broker.settings import Settings
from schemas.result import Result


def result(generation: int = 1, status: str = "succeeded") -> Result:
    return Result.model_validate(
        {
            "job_id": "1",
            "tenant": "acme",
            "generation": generation,
            "operation": "chat",
            "status": status,
            "cost_usd": "0",
            "attempts": 1,
            "timing": {"queued_ms": 0, "provider_ms": 0, "total_ms": 0},
            "finished_at": "2026-12-01T08:00:00Z",
        }
    )


async def nothing(keys: object) -> None:
    del keys


async def test_a_result_that_is_here_is_given_at_once() -> None:
    slot = Slot("acme/1", None)
    slot.put(result(), b"acme/1/1")
    assert (await slot.wait(0.001)).job_id == "1"


async def test_one_that_does_not_come_in_time_raises_and_may_be_awaited_again() -> None:
    slot = Slot("acme/1", None)
    with pytest.raises(ResultTimeout, match="acme/1"):
        await slot.wait(0.001)
    slot.put(result(), None)
    assert (await slot.wait(1)).generation == 1


async def test_the_same_event_twice_is_one_result_and_a_rerun_replaces_it() -> None:
    slot = Slot("acme/1", None)
    slot.put(result(status="failed"), b"acme/1/1")
    slot.put(result(status="succeeded"), b"acme/1/1")
    assert (await slot.wait(1)).status == "failed"
    slot.put(result(generation=2), b"acme/1/2")
    slot.put(result(status="dead"), b"late")
    assert ((await slot.wait(1)).generation, (await slot.wait(1)).status) == (2, "succeeded")


async def test_whoever_waits_is_told_when_no_result_can_come() -> None:
    slot = Slot("acme/1", None)
    waiting = asyncio.create_task(slot.wait(None))
    await asyncio.sleep(0)
    slot.fail(ResultLost("gone"))
    with pytest.raises(ResultLost, match="gone"):
        await waiting


async def test_a_job_that_is_awaited_twice_has_one_place_for_its_result() -> None:
    replies = Replies(Settings(), nothing)
    slot = replies.slot("acme/1")
    assert replies.slot("acme/1") is slot
    slot.put(result(), None)
    assert replies.slot("acme/1") is not slot, "a job that ended may be run again"


async def test_a_result_that_nobody_holds_a_handle_for_is_not_kept() -> None:
    replies = Replies(Settings(), nothing)
    kept = replies.slot("acme/kept")
    replies.slot("acme/dropped")
    gc.collect()
    assert replies.known("acme/dropped") is None
    assert replies.known("acme/kept") is kept


async def test_after_the_end_nothing_can_be_awaited() -> None:
    replies = Replies(Settings(), nothing)
    await replies.aclose()
    with pytest.raises(Exception, match="closed"):
        replies.slot("acme/1")
