"""A record as a reader or the control handler gets it from Kafka, before anybody has said what it is."""

from collections.abc import Sequence
from typing import NamedTuple

from broker.codec import Place


class Record(NamedTuple):
    """A record as it was read; `headers` are Kafka's."""

    place: Place
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
