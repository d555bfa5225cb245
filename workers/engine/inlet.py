"""What a record needs on its way in, whether it is a job or about one: the store, what publishes, dead letters, and which topics there are."""

from dataclasses import dataclass

from workers.engine.dead_letters import DeadLetters
from workers.engine.publisher import Publisher
from workers.engine.topics import Topics
from workers.stores.control import ControlStore


@dataclass(slots=True, frozen=True)
class Inlet:
    """Shared by the parts that read topics."""

    store: ControlStore
    publisher: Publisher
    dead_letters: DeadLetters
    topics: Topics
