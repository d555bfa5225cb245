"""What a worker that ends has not started goes back to wait as it was."""

import asyncio
from random import Random

import pytest

from broker.events import Events
from broker.telemetry import Telemetry
from tests.builders import Bench, an_answer, one_after_another, some_hands
from workers.engine.dispatcher import Dispatcher
from workers.engine.failpoints import Failpoints
from workers.engine.finisher import Finisher
from workers.stores.protocol import State


@pytest.mark.parametrize("called", [True, False])
async def test_a_job_that_is_handed_back_keeps_what_is_known_of_its_calls(called: bool) -> None:
    bench = Bench(one_after_another(an_answer()))
    claim = (await bench.claimed(execution="at_most_once")).claim
    if called:  # by a worker that died
        await bench.store.mark_called(claim.id, claim.fence)
    claim.called = called
    hands = some_hands(bench.store, asyncio.get_running_loop().time, bench.settings)
    hands.registry.add([claim.id])
    hands.ready.accept(claim)
    failpoints = Failpoints("", Events("test"))
    finisher = Finisher(bench.store, bench.publisher, hands.registry, ready=hands.ready, failpoints=failpoints)
    telemetry = Telemetry(bench.settings.telemetry, "us", Random(1))
    dispatcher = Dispatcher(
        bench.pipeline.process, bench.settings.worker, hands=hands, finisher=finisher, telemetry=telemetry
    )
    assert dispatcher.hand_back() == 1
    running = asyncio.create_task(finisher.run())
    await finisher.flush()
    running.cancel()
    [document] = bench.database.jobs.values()
    assert document["state"] == State.WAITING
    assert document.get("called", False) is called
    assert claim.id not in hands.registry
