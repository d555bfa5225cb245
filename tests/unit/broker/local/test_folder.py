"""The data folder: one owner at a time, enough space, and a `stack.json` that is never half written."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from broker.local import folder
from broker.local.errors import DiskFull, FolderInUse, LocalError
from broker.local.folder import Addresses, Pids

ADDRESSES = Addresses("127.0.0.1:9092", "mongodb://127.0.0.1:27017/", "aibroker", None, Pids(kafka=1, workers=[3, 4]))


def test_stack_json_has_exactly_the_keys_that_outsiders_rely_on(tmp_path: Path) -> None:
    folder.write(tmp_path, ADDRESSES)
    assert json.loads((tmp_path / "stack.json").read_text()) == {
        "kafka": "127.0.0.1:9092",
        "mongo": "mongodb://127.0.0.1:27017/",
        "database": "aibroker",
        "simulator": None,
        "pids": {"kafka": 1, "mongod": None, "simulator": None, "workers": [3, 4]},
    }
    assert [path.name for path in tmp_path.iterdir()] == ["stack.json"]


def test_removing_stack_json_twice_is_no_error(tmp_path: Path) -> None:
    folder.write(tmp_path, ADDRESSES)
    folder.remove(tmp_path)
    folder.remove(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_told_with_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.check_space(tmp_path)
    monkeypatch.setattr(folder, "FREE_BYTES", 10**18)
    with pytest.raises(DiskFull, match="MB are needed: free some space, or name another folder with --data"):
        folder.check_space(tmp_path)


async def test_a_folder_has_one_owner_until_it_lets_go(tmp_path: Path) -> None:
    async with folder.locked(tmp_path / "new"):
        with pytest.raises(FolderInUse, match=f"in use by another stack \\(pid {os.getpid()}\\)"):
            async with folder.locked(tmp_path / "new"):
                pass
    async with folder.locked(tmp_path / "new"):
        pass


async def test_the_lock_of_a_dead_owner_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = multiprocessing.get_context("spawn").Process()
    dead.start()
    dead.join()
    monkeypatch.setattr(folder, "_GUARDIAN_S", 0.2)
    async with folder.locked(tmp_path) as lock:
        os.pwrite(lock, b"%d " % (dead.pid or 0), 0)
        with pytest.raises(FolderInUse):
            async with folder.locked(tmp_path):
                pass


async def test_a_folder_that_cannot_be_made_is_told_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LocalError, match=r"file/data cannot be used for data \(Not a directory\): name another"):
        async with folder.locked(tmp_path / "file" / "data"):
            pass
