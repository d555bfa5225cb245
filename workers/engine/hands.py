"""What a worker has in its hands: jobs that are ready, ids that it may hold, and the lease under which it holds them."""

from dataclasses import dataclass

from workers.engine.leases import Leases
from workers.engine.ready import ReadyQueue
from workers.engine.registry import Registry


@dataclass(slots=True, frozen=True)
class Hands:
    """Shared by the parts that take jobs up and lay them down."""

    ready: ReadyQueue
    registry: Registry
    leases: Leases
