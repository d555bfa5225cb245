"""The simulated provider as a process of its own, for a stack without real ones."""

import sys
from collections.abc import Callable, Mapping, Sequence

from broker.local import ports, readiness
from broker.local.processes import Child, Children

_START_S = 60
_STOP_S = 10


class Simulator:
    """The simulator whose port stays the same over restarts."""

    def __init__(
        self, children: Children, *, environment: Mapping[str, str], port: int = 0, arguments: Sequence[str] = ()
    ) -> None:
        """`arguments` are added to its command line; port 0 means any free one."""
        self._children = children
        self._environment = environment
        self._arguments = arguments
        self.port = ports.choose(port, "the simulator")
        self.child: Child | None = None

    @property
    def url(self) -> str:
        """The address below which everything of it lies; OpenAI's API is at `/v1`."""
        return f"http://{ports.HOST}:{self.port}"

    async def start(self, progress: Callable[[str], None]) -> None:  # noqa: ARG002 the servers have one shape
        """Start it and return when it answers.

        Raises:
            LocalError: it ended before it was ready.
        """
        command = [sys.executable, "-m", "broker.local.simulator", "--port", str(self.port), *self._arguments]
        self.child = self._children.start("simulator", command, self._environment)
        await self.child.ready(self._answers, _START_S)

    async def stop(self) -> None:
        """Stop it cleanly."""
        if self.child is not None:
            await self.child.stop(_STOP_S)

    async def _answers(self) -> bool:
        return await readiness.http_answers(self.url, "/sim/calls")
