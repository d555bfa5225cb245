"""The data folder of a stack: who may use it, whether there is space, and `stack.json`, where outsiders find the addresses."""

import fcntl
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from broker.local.errors import DiskFull, FolderInUse, LocalError
from broker.local.processes import until

FREE_BYTES = 500_000_000
_LOCK = ".lock"
_STACK = "stack.json"
_GUARDIAN_S = 10


@dataclass(frozen=True)
class Pids:
    """The processes of a stack; None for a server that is not ours."""

    kafka: int | None = None
    mongod: int | None = None
    simulator: int | None = None
    workers: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Addresses:
    """What `stack.json` holds; `simulator` is None where there is none."""

    kafka: str
    mongo: str
    database: str
    simulator: str | None
    pids: Pids


def write(folder: Path, addresses: Addresses) -> None:
    """Write `stack.json` so that a reader sees the old one or the new one, never a part."""
    draft = folder / f"{_STACK}.new"
    draft.write_text(json.dumps(asdict(addresses), indent=2) + "\n")
    draft.replace(folder / _STACK)


def remove(folder: Path) -> None:
    """Remove `stack.json`: nothing runs here any more."""
    (folder / _STACK).unlink(missing_ok=True)


def check_space(folder: Path) -> None:
    """Refuse to start servers that would soon fill the disk.

    Raises:
        DiskFull: less than 500 MB are free.
    """
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES:
        raise DiskFull(
            f"only {free // 1_000_000} MB are free where {folder} lies, and {FREE_BYTES // 1_000_000} MB are needed: "
            "free some space, or name another folder with --data"
        )


@asynccontextmanager
async def locked(folder: Path) -> AsyncIterator[int]:
    """Make the folder and hold its lock; gives the open file, for those who have to hold it longer than we live.

    Raises:
        FolderInUse: another stack runs on it.
        LocalError: the folder cannot be made or written.
    """
    lock = _open(folder)
    try:
        if not await until(lambda: _try_lock(lock) or _owner_lives(lock), _GUARDIAN_S) or not _try_lock(lock):
            raise FolderInUse(
                f"{folder} is in use by another stack (pid {_owner(lock)}): stop that one, or name another folder with --data"
            )
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d" % os.getpid(), 0)
        yield lock
    finally:
        os.close(lock)


def _open(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise LocalError(
            f"{folder} cannot be used for data ({error.strerror}): name another folder with --data"
        ) from error


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(lock: int) -> int:
    return int(os.pread(lock, 20, 0) or b"0")


def _owner_lives(lock: int) -> bool:
    """Whether waiting is of no use; the guardian of an owner that was killed gives the lock back within seconds."""
    try:
        os.kill(_owner(lock), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
