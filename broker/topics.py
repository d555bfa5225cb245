"""The topics of a deployment: which there shall be (`deploy/topics.yaml`), making those that are missing, and what speaks against a start."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Literal

import yaml
from pydantic import Field, TypeAdapter

from broker import kafka
from broker.errors import KafkaMissing, SettingsError, TopicMissing
from broker.section import Section
from broker.settings import Settings

_PRIORITY = "{priority}"
_CLUSTERS_OWN = -1  # the replication factor that the cluster gives by itself
_ALREADY_EXISTS = 36
_HOUR_S = 3_600
_VISIBLE_S = 30
_LOOK_AGAIN_S = 0.05


class Shape(Section):
    """How one topic is made: see the head of `deploy/topics.yaml`."""

    partitions: Annotated[int, Field(ge=1, le=10_000)]
    retention_h: Annotated[float, Field(gt=0)]
    segment_h: Annotated[float, Field(gt=0)]
    max_message_bytes: Annotated[int, Field(ge=1_048_576)]
    cleanup: Literal["delete", "compact", "compact,delete"] = "delete"
    timestamps: Literal["producer", "broker"] = "broker"

    def options(self) -> dict[str, str]:
        """The topic's configuration in Kafka's words."""
        return {
            "cleanup.policy": self.cleanup,
            "retention.ms": str(round(self.retention_h * _HOUR_S * 1000)),
            "segment.ms": str(round(self.segment_h * _HOUR_S * 1000)),
            "max.message.bytes": str(self.max_message_bytes),
            "message.timestamp.type": "LogAppendTime" if self.timestamps == "broker" else "CreateTime",
        }


@dataclass(slots=True, frozen=True)
class Ensured:
    """What `ensure` found: topics that it made and topics that were there, by their full names."""

    made: tuple[str, ...]
    there: tuple[str, ...]


def wanted(settings: Settings, text: str | None = None) -> dict[str, Shape]:
    """Return the topics that a deployment needs, by their names without the prefix.

    Args:
        settings: The priorities, one topic of jobs for each.
        text: YAML in place of `deploy/topics.yaml`.
    """
    text = resources.files("deploy").joinpath("topics.yaml").read_text(encoding="utf-8") if text is None else text
    shapes = TypeAdapter(dict[str, Shape]).validate_python(yaml.safe_load(text))
    names = [priority.name for priority in settings.priorities]
    return {
        pattern.replace(_PRIORITY, name): shape
        for pattern, shape in shapes.items()
        for name in (names if _PRIORITY in pattern else [""])
    }


async def ensure(settings: Settings, shapes: Mapping[str, Shape] | None = None) -> Ensured:
    """Make the topics that are missing; change none that is there. May be called at any time, by several at once.

    Raises:
        KafkaMissing: Kafka does not answer, or would not make a topic.
    """
    shapes = wanted(settings) if shapes is None else shapes
    counts = await kafka.partition_counts(settings)
    missing = [_new(settings.topic(name), shape) for name, shape in shapes.items() if name not in counts]
    there = [settings.topic(name) for name in shapes if name in counts]
    if not missing:
        return Ensured((), tuple(there))
    async with kafka.admin(settings) as client:
        with kafka.reaching(settings):
            answer = await client.create_topics(missing)
    made: list[str] = []
    for topic, code, message in answer.topic_errors:
        if code not in {0, _ALREADY_EXISTS}:
            raise KafkaMissing(f"Kafka would not make the topic {topic}: {message or f'error {code}'}; make it by hand")
        (there if code else made).append(topic)
    await _visible(settings, set(shapes))
    return Ensured(tuple(made), tuple(there))


def _new(topic: str, shape: Shape) -> kafka.NewTopic:
    new = kafka.NewTopic(topic, shape.partitions, 1, topic_configs=shape.options())
    new.replication_factor = _CLUSTERS_OWN  # its constructor refuses what the protocol allows
    return new


async def _visible(settings: Settings, names: set[str]) -> None:
    """Wait until the brokers tell of topics that were made: they learn of them a moment later."""
    with kafka.reaching(settings):
        async with asyncio.timeout(_VISIBLE_S):
            while not names <= set(await kafka.partition_counts(settings)):  # noqa: ASYNC110 Kafka tells nobody when it has learnt of a topic
                await asyncio.sleep(_LOOK_AGAIN_S)


async def check(settings: Settings, needed: Iterable[str] | None = None) -> dict[str, int]:
    """Return how many partitions each topic has, by its name without the prefix, after making sure that a worker may start.

    Args:
        settings: Where Kafka is; `expire_s` is how long a job's document is kept.
        needed: Names without the prefix of the topics that must be there; all of `wanted` by default.

    Raises:
        KafkaMissing: Kafka does not answer.
        TopicMissing: A topic is not there.
        SettingsError: The job topics keep records for longer than jobs are remembered.
    """
    counts = await kafka.partition_counts(settings)
    if missing := missing_topic(settings, counts, wanted(settings) if needed is None else needed):
        raise TopicMissing(missing)
    problem = retention_problem(settings, await kept_s(settings, sorted(job_topics(settings, counts))))
    if problem:
        raise SettingsError(problem)
    return counts


def missing_topic(settings: Settings, counts: Mapping[str, int], needed: Iterable[str]) -> str | None:
    """Return a sentence that names the topics that are not there, None if all are."""
    missing = [settings.topic(name) for name in needed if name not in counts]
    return f"there is no topic {', '.join(missing)}: make it with `aibroker topics`" if missing else None


def job_topics(settings: Settings, counts: Mapping[str, int]) -> set[str]:
    """Return the names without the prefix of the topics of jobs that are there."""
    return {f"jobs.{priority.name}" for priority in settings.priorities} & set(counts)


def retention_problem(settings: Settings, kept: Mapping[str, float]) -> str | None:
    """Say which topic keeps its records for as long as jobs are remembered, or longer: read again, they would run again.

    Args:
        settings: `expire_s` is how long a job is remembered.
        kept: For how many seconds each topic keeps a record at most; infinite where it never deletes.
    """
    for topic, seconds in kept.items():
        if settings.expire_s <= seconds:
            return (
                f"expire_s: jobs are remembered for {settings.expire_s / _HOUR_S:.4g} h, but the topic {settings.topic(topic)} keeps records "
                f"for up to {seconds / _HOUR_S:.4g} h (retention.ms + segment.ms): raise expire_s or lower the topic's retention"
            )
    return None


async def kept_s(settings: Settings, names: Sequence[str]) -> dict[str, float]:
    """Return for how many seconds each topic keeps a record at most: its retention and one segment."""
    if not names:
        return {}
    async with kafka.admin(settings) as client:
        with kafka.reaching(settings):
            answers = await client.describe_configs(
                [kafka.ConfigResource(kafka.ConfigResourceType.TOPIC, settings.topic(name)) for name in names]
            )
    options = {
        topic: {option[0]: option[1] for option in configured}
        for answer in answers
        for _, _, _, topic, configured in answer.resources
    }
    return {name: _kept(options[settings.topic(name)]) for name in names}


def _kept(options: Mapping[str, str]) -> float:
    retention_ms = float(options["retention.ms"])
    if retention_ms < 0 or "delete" not in options["cleanup.policy"]:
        return float("inf")
    return (retention_ms + float(options["segment.ms"])) / 1000
