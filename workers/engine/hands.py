"""What a worker has in its hands: jobs that are ready, ids that it may hold, the lease under which it holds them, and what shall not run."""

from dataclasses import dataclass, field

from workers.engine.halts import Halts
from workers.engine.leases import Leases
from workers.engine.ready import ReadyQueue
from workers.engine.registry import Registry


@dataclass(slots=True, frozen=True)
class Hands:
    """Shared by the parts that take jobs up and lay them down."""

    ready: ReadyQueue
    registry: Registry
    leases: Leases
    halts: Halts = field(default_factory=Halts)
