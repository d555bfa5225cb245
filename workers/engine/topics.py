"""Which reply topics and partitions exist: asked before a result is sent there, because sending to one that does not exist blocks the sender."""

import time
from collections.abc import Awaitable, Callable, Mapping

REFRESH_S = 2.0
"""How often, at most, an unknown name makes us ask Kafka again."""
MAX_AGE_S = 60.0


class Topics:
    """A cache of partition counts by topic name, without the deployment's prefix.

    Args:
        fetch: Asks Kafka for all topics of this deployment.
        clock: Seconds of a monotonic clock.
    """

    def __init__(
        self, fetch: Callable[[], Awaitable[Mapping[str, int]]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._partitions: Mapping[str, int] = {}
        self._fetched_at = -float("inf")

    def exists(self, topic: str, partition: int | None) -> bool:
        """Whether a result could be sent there, as far as is known now."""
        count = self._partitions.get(topic, 0)
        return count > 0 if partition is None else partition < count

    async def knows(self, topic: str, partition: int | None) -> bool:
        """Whether a result can be sent there; asks Kafka where that is not known."""
        age = self._clock() - self._fetched_at
        found = self.exists(topic, partition)
        if age > MAX_AGE_S or (not found and age > REFRESH_S):
            self._partitions = await self._fetch()
            self._fetched_at = self._clock()
            found = self.exists(topic, partition)
        return found
