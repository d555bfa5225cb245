"""What ends a process that is of no use any more: a blocked loop, a loop of ours that does not tick; and what does not."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from workers.engine.loop_lag import LoopLag
from workers.engine.watchdog import EXIT, TICK_S, Watchdog

WITHIN_S = 30
"""Far more than any of these processes needs; far less than it would block."""

_PROCESS = """
import asyncio, logging, sys, time
from broker.events import to_stream
from workers.engine.loop_lag import LoopLag
from workers.engine.watchdog import TICK_S, Watchdog

def blocked():
    time.sleep(600)

def log_that_nobody_reads():
    while True:
        logging.getLogger("aibroker.test").info("full", extra={"event_fields": {"text": "x" * 60_000}})

def nothing():
    pass

async def never():
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass  # as PyMongo's condition does while it waits for its lock

def deaf_to_its_cancellation():
    deaf.add(asyncio.get_running_loop().create_task(never()))

deaf = set()

async def live(stuck_s, silent_s, then):
    begun = time.monotonic()
    ticks = lambda: {"leases": time.monotonic(), "taker": begun - silent_s}
    watchdog = Watchdog(stuck_s, LoopLag(), ticks, ending_s=1.0)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watchdog.run())
        await asyncio.sleep(0.2)
        then()
        await asyncio.sleep(3)
        watching.cancel()

to_stream("info")
asyncio.run(live(float(sys.argv[1]), float(sys.argv[2]), globals()[sys.argv[3]]))
"""


def process(stuck_s: float, silent_s: float, then: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", _PROCESS, str(stuck_s), str(silent_s), then]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[4])


def ended(stuck_s: float, silent_s: float, then: str) -> tuple[int, list[dict[str, str]]]:
    with process(stuck_s, silent_s, then) as running:
        output, _ = running.communicate(timeout=WITHIN_S)
    return running.returncode, [json.loads(line) for line in output.splitlines()]


def test_a_process_whose_loop_is_blocked_ends_with_70_and_says_so() -> None:
    code, said = ended(1.0, 0.0, "blocked")
    assert code == EXIT == 70
    assert [line["event"] for line in said] == ["watchdog.exit"]
    assert said[0]["stuck"].startswith("the event loop has not turned for")


def test_a_process_with_a_loop_of_ours_that_does_not_tick_ends_with_70_and_names_it() -> None:
    code, said = ended(10.0, TICK_S + 1, "nothing")
    assert code == EXIT
    assert said[0]["stuck"].startswith("taker has not ticked for")


def test_a_process_that_hangs_on_its_log_ends_though_it_can_tell_nobody() -> None:
    with process(1.0, 0.0, "log_that_nobody_reads") as running:
        assert running.wait(WITHIN_S) == EXIT
        assert running.stdout is not None
        running.stdout.close()


def test_a_process_that_does_not_end_when_its_work_has_ends_with_70() -> None:
    code, said = ended(10.0, 0.0, "deaf_to_its_cancellation")
    assert code == EXIT
    assert said[0]["stuck"] == "the process has not ended 1 s after its work"


def test_a_process_whose_loops_turn_and_tick_goes_on() -> None:
    assert ended(1.0, 0.0, "nothing") == (0, [])


@pytest.mark.parametrize(("stuck_s", "allowed_s"), [(5.0, TICK_S), (TICK_S + 30, TICK_S + 30)])
def test_a_loop_of_ours_may_be_silent_for_a_minute_or_for_as_long_as_the_event_loop(
    stuck_s: float, allowed_s: float
) -> None:
    now = time.monotonic()
    ticks: dict[str, float] = {"taker": now - allowed_s + 5}
    watchdog = Watchdog(stuck_s, LoopLag(), lambda: ticks)
    assert watchdog.stuck() is None
    ticks["taker"] = now - allowed_s - 1
    assert "taker" in str(watchdog.stuck())


def test_nothing_that_does_not_tick_is_missed() -> None:
    ticks: Mapping[str, float] = {}
    assert Watchdog(1.0, LoopLag(), lambda: ticks).stuck() is None
