"""The demo, as a newcomer runs it: twice on the same folder, with servers of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

PROGRAM = Path(sys.executable).parent / "aibroker"


@pytest.mark.timeout(400)
def test_the_demo_ends_by_itself_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    said = []
    for _ in range(2):
        ended = subprocess.run(
            [PROGRAM, "demo", "--data", tmp_path / "demo"],
            env=environment,
            capture_output=True,
            timeout=190,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        said.append(ended.stdout.decode())
    assert "Nothing was paid for twice" not in said[0]
    assert "Nothing was paid for twice" in said[1]
    first, second = (re.search(r"([\d,]+) different jobs have ended", each) for each in said)
    assert first
    assert second
    assert first[1] == second[1]
    assert not [
        process.pid for process in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(process.info["cmdline"])
    ]
