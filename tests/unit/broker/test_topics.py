"""What the file of topics says, and which of Kafka's topics speak against a start."""

import pytest
from pydantic import ValidationError

from broker import kafka, topics
from broker.settings import Priority, Settings


def settings(**values: object) -> Settings:
    return Settings.model_validate(values)


def test_there_is_a_topic_of_jobs_for_each_priority() -> None:
    priorities = (Priority(name="soon", weight=2, deadline_s=60), Priority(name="later", weight=1, deadline_s=60))
    assert {"jobs.soon", "jobs.later"} < set(topics.wanted(settings(priorities=priorities)))


def test_all_topics_of_the_design_are_in_the_file() -> None:
    assert set(topics.wanted(settings())) == {
        *("jobs.interactive", "jobs.normal", "jobs.batch"),
        *("results", "results.replies", "usage", "alerts", "jobs.control", "jobs.dead"),
    }


def test_the_dead_letters_take_the_largest_record_that_a_topic_of_jobs_takes() -> None:
    wanted = topics.wanted(settings())
    headers = 100_000
    assert wanted["jobs.dead"].max_message_bytes >= wanted["jobs.normal"].max_message_bytes + headers
    assert wanted["jobs.dead"].max_message_bytes <= kafka.MAX_REQUEST_BYTES


def test_with_the_defaults_jobs_are_remembered_for_longer_than_their_records_are_kept() -> None:
    wanted = topics.wanted(settings())
    kept = {name: (shape.retention_h + shape.segment_h) * 3600 for name, shape in wanted.items() if "jobs." in name}
    kept.pop("jobs.dead")
    assert topics.retention_problem(settings(), kept) is None


def test_a_topic_that_keeps_records_as_long_as_jobs_are_remembered_is_refused_by_name() -> None:
    problem = topics.retention_problem(settings(prefix="eu", expire_s=3600), {"jobs.normal": 3600})
    assert problem is not None
    assert "eu.jobs.normal" in problem
    assert "expire_s" in problem


def test_a_topic_that_never_deletes_is_refused() -> None:
    assert topics.retention_problem(settings(), {"jobs.normal": float("inf")}) is not None


def test_missing_topics_are_named_with_their_prefix_and_the_remedy() -> None:
    sentence = topics.missing_topic(settings(prefix="eu"), {"results": 8}, ["results", "usage"])
    assert sentence == "there is no topic eu.usage: make it with `aibroker topics`"
    assert topics.missing_topic(settings(), {"results": 8}, ["results"]) is None


def test_retention_and_segment_are_told_to_kafka_in_milliseconds() -> None:
    options = topics.Shape(partitions=1, retention_h=1, segment_h=0.25, max_message_bytes=2_000_000).options()
    assert (options["retention.ms"], options["segment.ms"]) == ("3600000", "900000")
    assert options["cleanup.policy"] == "delete"


def test_a_mistyped_field_in_the_file_is_refused() -> None:
    with pytest.raises(ValidationError, match="retention"):
        topics.wanted(settings(), "results: {partitions: 1, retention: 1, segment_h: 1, max_message_bytes: 1048576}")


@pytest.mark.parametrize(
    ("requests", "expected"), [({0, 60, 65}, "3.0"), ({0, 60}, "2.8"), ({0, 65}, None), (set(), None)]
)
def test_the_version_is_read_from_the_requests_that_a_kafka_knows(requests: set[int], expected: str | None) -> None:
    assert kafka.version(requests) == expected
