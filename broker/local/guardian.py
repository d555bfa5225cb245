"""Kills a stack's children when the process that started them is gone, however it went.

`guardian.py PIPE`: run by path with the standard library alone. Lines on the pipe are `+PID` (a process group to watch) and
`-PID` (it has ended). The end of the pipe says that its only writer, the process that started us, is dead. We also inherit the
lock of the data folder, so that nobody else can use the data before every process that has it open is gone.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

_KILL_FOR_S = 8.0  # how long the kernel gets to take the killed away


def main() -> None:
    """Follow the pipe to its end, then kill what is left."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    groups: set[int] = set()
    with os.fdopen(int(sys.argv[1]), "rb", buffering=0) as pipe:
        pending = b""
        while chunk := pipe.read(4096):
            *lines, pending = (pending + chunk).split(b"\n")
            _follow(lines, groups)
    give_up = time.monotonic() + _KILL_FOR_S
    while groups := {group for group in groups if _alive(group)}:
        for group in groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        if time.monotonic() > give_up:
            return
        time.sleep(0.02)


def _follow(lines: Iterable[bytes], groups: set[int]) -> None:
    for line in lines:
        if line.startswith(b"+"):
            groups.add(int(line[1:]))
        elif line.startswith(b"-"):
            groups.discard(int(line[1:]))


def _alive(group: int) -> bool:
    """Whether the group has a member that still runs; its leader may be a zombie that nobody reaps."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    proc = Path("/proc")
    if not (proc / "self" / "stat").exists():
        return True
    return any(_runs_in(entry, group) for entry in proc.iterdir() if entry.name.isdigit())


def _runs_in(process: Path, group: int) -> bool:
    try:
        state, _parent, of_group = (process / "stat").read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return False
    return int(of_group) == group and state not in "ZX"


if __name__ == "__main__":
    main()
