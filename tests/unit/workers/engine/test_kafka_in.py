"""A worker tells which partitions it is given and loses: whoever asks why a record was read twice finds it in the log."""

import logging
from typing import Any, cast

import pytest

from broker.kafka import TopicPartition
from tests.virtual_time import run
from workers.engine.kafka_in import Assignments


class Reader:
    """Counts how often it was told to commit."""

    def __init__(self) -> None:
        self.commits = 0

    async def revoked(self) -> None:
        """Commit what is durable."""
        self.commits += 1


def partitions(*numbers: int) -> set[Any]:
    return {TopicPartition("jobs.normal", number) for number in numbers}


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, Any]]:
    return [(record.getMessage(), cast("Any", record).event_fields) for record in caplog.records]


def test_what_a_reader_is_given_and_loses_is_in_the_log_and_committed_before_it_goes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def life() -> None:
        assignments, reader = Assignments("normal"), Reader()
        await assignments.on_partitions_revoked(partitions())
        await assignments.on_partitions_assigned(partitions(2, 0))
        assignments.reader = cast("Any", reader)
        await assignments.on_partitions_revoked(partitions(2, 0))
        assert reader.commits == 1

    with caplog.at_level(logging.INFO, "aibroker"):
        run(life())
    assert told(caplog) == [
        ("reader.assigned", {"priority": "normal", "partitions": [0, 2]}),
        ("reader.revoked", {"priority": "normal", "partitions": [0, 2]}),
    ]
