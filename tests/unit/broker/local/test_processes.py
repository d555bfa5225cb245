"""Child processes: they end with us, however we end, and take their own children along."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from broker.local.errors import DiskFull, ServerDied
from broker.local.processes import Child, Children, until

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
print("child", child.pid, flush=True)
time.sleep(300)
"""
PARENT = f"""
import os, sys, time
from pathlib import Path
from broker.local.processes import Children
with Children(Path(sys.argv[1])) as children:
    children.start("stubborn", [sys.executable, "-c", {STUBBORN!r}], dict(os.environ))
    time.sleep(300)
"""


def start(children: Children, source: str) -> Child:
    return children.start("child", [sys.executable, "-c", source], dict(os.environ))


def family(log: Path) -> list[psutil.Process]:
    """The stubborn child, its child and their guardian's parent, once the log names them."""
    words = log.read_text().split() if log.exists() else []
    if len(words) < 2:
        return []
    grandchild = psutil.Process(int(words[1]))
    child = grandchild.parent()
    return [child, grandchild] if child else []


def gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


async def test_what_is_started_is_told_by_its_log_and_exit_code(tmp_path: Path) -> None:
    with Children(tmp_path) as children:
        child = start(children, "import os; print('hello', os.getpid()); raise SystemExit(4)")
        assert await child.ended(10)
    assert child.exit_code == 4
    assert child.output() == f"hello {child.pid}\n"


async def test_stop_kills_a_child_that_does_not_listen_and_its_children(tmp_path: Path) -> None:
    with Children(tmp_path) as children:
        child = start(children, STUBBORN)
        assert await until(lambda: len(family(child.log)) == 2, 10)
        processes = family(child.log)
        await child.stop(grace_s=0.1)
        assert child.exit_code == -signal.SIGKILL
        assert await until(lambda: gone(processes), 5)


async def test_what_a_child_left_behind_is_killed_when_its_end_is_seen(tmp_path: Path) -> None:
    with Children(tmp_path) as children:
        child = start(children, STUBBORN)
        assert await until(lambda: len(family(child.log)) == 2, 10)
        processes = family(child.log)
        os.kill(child.pid, signal.SIGKILL)
        assert await child.ended(5)
        assert await until(lambda: gone(processes), 5)


async def test_leaving_the_block_kills_what_runs(tmp_path: Path) -> None:
    with Children(tmp_path) as children:
        child = start(children, STUBBORN)
        assert await until(lambda: len(family(child.log)) == 2, 10)
        processes = family(child.log)
    assert await until(lambda: gone(processes), 5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_children_of_a_killed_parent_end_with_it(tmp_path: Path, number: signal.Signals) -> None:
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, str(tmp_path))
    log = tmp_path / "stubborn.log"
    assert await until(lambda: len(family(log)) == 2, 10)
    processes = family(log)
    guardians = [
        process for process in psutil.Process(parent.pid).children() if "guardian.py" in str(process.cmdline())
    ]
    assert len(guardians) == 1
    parent.send_signal(number)
    await parent.wait()
    assert await until(lambda: gone([*processes, *guardians]), 10)


async def test_a_suspended_child_goes_on_when_it_is_resumed(tmp_path: Path) -> None:
    with Children(tmp_path) as children:
        child = start(children, "import time; time.sleep(300)")
        child.suspend()
        assert await until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED, 5)
        child.resume()
        assert await until(lambda: psutil.Process(child.pid).status() != psutil.STATUS_STOPPED, 5)
        child.suspend()
        await child.stop(grace_s=5)
    assert child.exit_code == -signal.SIGTERM


async def test_a_full_disk_is_named_as_the_reason(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    with Children(tmp_path) as children:
        child = start(children, "raise SystemExit('cannot write: No space left on device')")
        with pytest.raises(DiskFull, match=r"child ended with code 1 .* disk is full: free some space"):
            await child.ready(never, 10)


async def test_a_child_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    with Children(tmp_path) as children:
        child = start(children, "import time; time.sleep(300)")
        with pytest.raises(ServerDied, match=r"child was not ready after 0 s: its log, .*child\.log"):
            await child.ready(never, 0.2)


def test_no_child_inherits_the_pipe_that_keeps_the_guardian_waiting(tmp_path: Path) -> None:
    with Children(tmp_path) as children:
        child = start(children, "import os; print(sorted(os.listdir('/dev/fd')), flush=True)")
        child._process.wait(10)
        assert len(eval(child.output())) <= 4  # noqa: S307 the three standard ones, and the listing's own
        assert isinstance(child._process, subprocess.Popen)
