"""Jars from the Maven registry: pinned sets, each fetched once into a cache and checked at every use.

`python -m broker.local.jars FOLDER PINS` fetches a set into a new folder. It is a process of its own so that it can be stopped.
"""

import asyncio
import hashlib
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from broker.local.errors import JarsDiffer, JarsMissing
from broker.local.processes import Children

_FETCH_S = 300
_AT_ONCE = 8


@dataclass(frozen=True)
class Jar:
    """One pinned jar: where the registry has it, and the SHA-256 of its bytes in hex."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        """Its file's name."""
        return f"{self.artifact}-{self.version}.jar"


@dataclass(frozen=True)
class JarSet:
    """Jars that belong together.

    Args:
        title: What they are to a user: "Kafka 4.2.0".
        megabytes: About what they weigh together.
        pins: The file that lists them.
        instead: What else a user may do who cannot have them, beginning with a comma; "" where there is nothing.
    """

    title: str
    megabytes: int
    pins: Path
    instead: str = ""

    @property
    def folder(self) -> str:
        """The name of their place in the cache."""
        return self.title.lower().replace(" ", "-")


def pinned(pins: Path) -> list[Jar]:
    """Return the jars of a file whose lines are `group:artifact:version sha256`."""
    jars = []
    for line in pins.read_text().splitlines():
        name, sha256 = line.split()
        group, artifact, version = name.split(":")
        jars.append(Jar(group, artifact, version, sha256))
    return jars


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where this user's caches are, ours below."""
    caches = environment.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "aibroker"


def unfit(folder: Path, jars: Iterable[Jar]) -> list[str]:
    """Return the names of those `jars` that `folder` lacks or has with other bytes."""
    return [jar.file for jar in jars if not _is(folder / jar.file, jar.sha256)]


async def provide(
    wanted: JarSet, environment: Mapping[str, str], children: Children, progress: Callable[[str], None]
) -> list[Path]:
    """Return the paths of a set's jars, fetching them if the cache lacks them.

    Raises:
        JarsMissing: they are not there, and no registry answered.
        JarsDiffer: what came is not what is pinned.
    """
    jars = pinned(wanted.pins)
    folder = cache_folder(environment) / wanted.folder
    if await asyncio.to_thread(unfit, folder, jars):
        progress(f"fetching {wanted.title} ({len(jars)} jars, {wanted.megabytes} MB), this once")
        await _fetch(wanted, folder, environment, children)
        progress(f"the jars of {wanted.title} are here and checked")
    return [folder / jar.file for jar in jars]


async def _fetch(wanted: JarSet, folder: Path, environment: Mapping[str, str], children: Children) -> None:
    jars = pinned(wanted.pins)
    staging = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}")
    staging.mkdir(parents=True)
    command = [sys.executable, "-m", "broker.local.jars", str(staging), str(wanted.pins)]
    child = children.start("jars", command, environment)
    try:
        if not await child.ended(_FETCH_S) or child.exit_code != 0:
            raise JarsMissing(
                f"the jars of {wanted.title} could not be fetched from the Maven registry (why: {child.log}): connect this machine "
                f"to it once, or copy {folder} from one that has it{wanted.instead}"
            )
        if wrong := unfit(staging, jars):
            raise JarsDiffer(
                f"the Maven registry gave other bytes than we pinned for {', '.join(wrong)}: do not use them; "
                f"look for a proxy that changes downloads{wanted.instead}"
            )
        shutil.rmtree(folder, ignore_errors=True)
        staging.rename(folder)
    except OSError:
        if unfit(folder, jars):  # otherwise another process of this user was faster with the same
            raise
    finally:
        child.reap()
        shutil.rmtree(staging, ignore_errors=True)


def _is(file: Path, sha256: str) -> bool:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest() == sha256
    except FileNotFoundError:
        return False


def main() -> None:
    """Fetch into the folder that the first argument names every jar of the file that the second one names."""
    from jgo import constants, maven  # noqa: PLC0415 of use to this process only, and takes 0.3 s

    folder = Path(sys.argv[1])

    def fetch(jar: Jar, tries: int = 3) -> None:
        halves = folder / f"{jar.file}.{tries}"  # a new place for each try: half a jar would be taken for a whole one
        central = maven.MavenContext(repo_cache=halves, remote_repos={"central": constants.MAVEN_CENTRAL_URL})
        try:
            central.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve().replace(
                folder / jar.file
            )
        except (OSError, RuntimeError):
            if tries == 1:
                raise
            fetch(jar, tries - 1)
        finally:
            shutil.rmtree(halves, ignore_errors=True)

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(fetch, pinned(Path(sys.argv[2]))))


if __name__ == "__main__":
    main()
