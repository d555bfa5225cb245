"""A cluster's id is one that Kafka's own tool takes as a value."""

import uuid

from broker.local.kafka import cluster_id


def test_no_id_looks_like_an_option() -> None:
    dashed = uuid.UUID(bytes=b"\xf8" + bytes(15))  # base64 of 0xf8... begins with "-"
    plain = uuid.UUID(bytes=bytes(16))
    assert cluster_id(iter([dashed, plain]).__next__) == "A" * 22
