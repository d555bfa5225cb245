"""Child processes that cannot outlive us: each in its own session, watched by a guardian, its output in a file."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from broker.local.errors import DiskFull, LocalError, ServerDied

_POLL_S = 0.02
_ASK_S = 0.1  # asking costs the server, too
_REAP_S = 10
_LOG_KEPT_BYTES = 20_000_000
_HERE = Path(__file__).parent


async def until(condition: Callable[[], bool], within_s: float) -> bool:
    """Wait until `condition()` is true; False when it was not within `within_s` seconds."""
    give_up = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > give_up:
            return False
        await asyncio.sleep(_POLL_S)
    return True


class Child:
    """A process that `Children.start` made; its pid is also the id of its process group."""

    def __init__(
        self, name: str, log: Path, process: "subprocess.Popen[bytes]", *, log_start: int, ended: Callable[[int], None]
    ) -> None:
        """`log_start` is the log's size before it started; `ended` is called once, with its pid, when its end was seen."""
        self.name = name
        self.log = log
        self._log_start = log_start
        self._process = process
        self._ended: Callable[[int], None] | None = ended

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it still runs; the first look after its end also kills what it left in its group."""
        if self._process.poll() is None:
            return True
        if self._ended is not None:
            self._signal_group(signal.SIGKILL)
            self._ended(self.pid)
            self._ended = None
        return False

    @property
    def exit_code(self) -> int | None:
        """None while it runs; -9 means that it was killed."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask it to stop."""
        if self.running:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill it and its children at once, as a crash would."""
        if self.running:
            self._signal_group(signal.SIGKILL)

    def suspend(self) -> None:
        """Stop it where it is (SIGSTOP), as a long pause of the machine would."""
        if self.running:
            self._signal_group(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `suspend`."""
        if self.running:
            self._signal_group(signal.SIGCONT)

    async def ended(self, within_s: float) -> bool:
        """Wait for its end; False when it still runs after `within_s` seconds."""
        return await until(lambda: not self.running, within_s)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL after `grace_s` seconds; returns when it is gone."""
        self.resume()
        self.terminate()
        try:
            if await self.ended(grace_s):
                return
        finally:
            self.kill()
        if not await self.ended(grace_s + 10):
            raise ServerDied(f"{self.name} (pid {self.pid}) cannot be killed; see {self.log}")

    def output(self) -> str:
        """What it has written to its log since its start, up to the last 200 kB."""
        with self.log.open("rb") as log:
            log.seek(max(self._log_start, self.log.stat().st_size - 200_000))
            return log.read().decode(errors="replace")

    async def ready(self, answers: Callable[[], Awaitable[bool]], within_s: float) -> None:
        """Wait until `answers()` is true, asking again and again.

        Raises:
            LocalError: it ended first, or was not ready after `within_s` seconds.
        """
        give_up = time.monotonic() + within_s
        while self.running:
            if await answers():
                return
            if time.monotonic() > give_up:
                raise self.failure(f"was not ready after {within_s:.0f} s")
            await asyncio.sleep(_ASK_S)
        raise self.failure(f"ended with code {self.exit_code} before it was ready")

    def failure(self, what: str) -> LocalError:
        """Return the error that says `what` went wrong with it, and why if its log tells."""
        output = self.output()
        if "No space left on device" in output:
            return DiskFull(f"{self.name} {what}, because the disk is full: free some space and start again")
        if missing := re.search(r"error while loading shared libraries: (\S+?):", output):
            return ServerDied(
                f"{self.name} {what}, because this system lacks {missing[1]}: install the package that has it"
            )
        return ServerDied(f"{self.name} {what}: its log, {self.log}, says why at its end")

    def reap(self) -> None:
        """Wait for the end of what was killed, so that no zombie stays."""
        self.kill()
        self._process.wait(timeout=_REAP_S)
        _ = self.running

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


class Children:
    """Starts children and their guardian; leaving the block kills what still runs."""

    def __init__(self, logs: Path, held: Sequence[int] = ()) -> None:
        """Logs go to the folder `logs`; the open files `held` (a lock) stay open until the last child is gone."""
        self._logs = logs
        self._held = tuple(held)
        self._children: list[Child] = []
        self._pipe = -1
        self._guardian: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Children":
        self._logs.mkdir(parents=True, exist_ok=True)
        reading, self._pipe = os.pipe()
        try:
            self._guardian = subprocess.Popen(  # noqa: S603 our own file and our own interpreter
                [sys.executable, "-I", "-S", str(_HERE / "guardian.py"), str(reading)],
                pass_fds=(reading, *self._held),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        finally:
            os.close(reading)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children:
            child.kill()
        for child in self._children:
            child.reap()
        os.close(self._pipe)
        if self._guardian is not None:
            self._guardian.wait(timeout=_REAP_S)

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Child:
        """Start `command` (its first word an absolute path) with its output appended to `<logs>/<name>.log`.

        `environment` is all of its environment.
        """
        log = self._logs / f"{name}.log"
        if log.exists() and log.stat().st_size > _LOG_KEPT_BYTES:
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as output:
            log_start = output.tell()
            process = subprocess.Popen(  # noqa: S603 there is no shell, and the command is ours
                [sys.executable, "-I", "-S", str(_HERE / "launch.py"), str(self._pipe), *command],
                pass_fds=(self._pipe,),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )
            child = Child(name, log, process, log_start=log_start, ended=self._tell_ended)
        self._children.append(child)
        return child

    def _tell_ended(self, pid: int) -> None:
        with contextlib.suppress(OSError):
            os.write(self._pipe, b"-%d\n" % pid)
