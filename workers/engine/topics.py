"""Which reply topics and partitions exist: asked before a result is sent there, because sending to one that does not exist blocks the sender."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from broker.errors import ServiceMissing
from broker.events import Events

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
        self._asked_at = -float("inf")
        self._asking = asyncio.Lock()
        self._events = Events("worker.topics")

    def exists(self, topic: str, partition: int | None) -> bool:
        """Whether a result could be sent there, as far as is known now."""
        count = self._partitions.get(topic, 0)
        return count > 0 if partition is None else partition < count

    def known(self, topic: str, partition: int | None) -> bool:
        """Whether a result can surely be sent there; False: ask `knows`."""
        return self.exists(topic, partition) and self._fresh(MAX_AGE_S)

    async def knows(self, topic: str, partition: int | None) -> bool:
        """Whether a result can be sent there; asks Kafka where that is not known.

        While Kafka is away, what was known stays known, and who asks for something else waits: a job is not refused for an outage.
        """
        while not self._fresh(MAX_AGE_S if self.exists(topic, partition) else REFRESH_S):
            if self._asking.locked() and self.exists(topic, partition):
                return True  # one who waits for a new answer is enough
            async with self._asking:
                if self._clock() - self._asked_at > REFRESH_S:
                    await self._ask()
            if self.exists(topic, partition):
                return True
            if not self._fresh(REFRESH_S):
                await asyncio.sleep(REFRESH_S)
        return self.exists(topic, partition)

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has; 0 where there is none."""
        await self.knows(topic, None)
        return self._partitions.get(topic, 0)

    def _fresh(self, age_s: float) -> bool:
        return self._clock() - self._fetched_at <= age_s

    async def _ask(self) -> None:
        """Fetch once for all who wait."""
        try:
            self._partitions = await self._fetch()
            self._fetched_at = self._clock()
        except ServiceMissing as error:
            self._events.warning("topics.unknown", reason=str(error))
        self._asked_at = self._clock()
