"""Alerts on a real Kafka: one id for each threshold that two workers cross together, also where a worker dies before it tells."""

from collections import Counter
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from broker.local.stack import Stack
from schemas.alert import ALERT_TYPE, AlertEvent
from tests.integration.deployment import Deployment, chat, deployed

pytestmark = pytest.mark.timeout(180)
LIMITS = """
limits:
  - {scope: tenant, of: acme, per: lifetime, requests: 40, alerts: [50, 80, 100]}
  - {scope: tenant, of: acme, per: lifetime, requests: 20, mode: shadow, alerts: [100, 200]}
"""
THRESHOLDS = {f"alert:tenant:acme/lifetime/{threshold}" for threshold in (50, 80, 100)}
SHADOWS = {f"alert:shadow-tenant:acme/lifetime/{threshold}" for threshold in (100, 200)}


def limited(folder: Path) -> dict[str, str]:
    file = folder / "aibroker.yaml"
    file.write_text(LIMITS)
    return {"AIBROKER_SETTINGS": str(file), "AIBROKER_LEASE_S": "6", "AIBROKER_SESSION_TIMEOUT_S": "6"}


async def alerts(deployment: Deployment, ids: set[str], within_s: float = 60) -> Counter[str]:
    """Read the topic until each of these ids is there; how often each was told, always with the same content."""
    topic, told, said = deployment.services.topic("alerts"), Counter[str](), dict[str, bytes]()
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=deployment.services.kafka, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()

    async def read() -> bool:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            for record in records:
                headers = dict(record.headers)
                event = AlertEvent.model_validate_json(record.value)
                assert headers["ce_type"].decode() == ALERT_TYPE
                assert record.key.decode() == headers["ce_subject"].decode() == event.limit_of
                name = headers["ce_id"].decode()
                assert said.setdefault(name, record.value) == record.value
                told[name] += 1
        return ids <= told.keys()

    try:
        await deployment.until(read, within_s)
        await read()
    finally:
        await consumer.stop()
    return told


async def test_a_limit_that_two_workers_cross_is_told_once_for_each_threshold(
    stack: Stack, prefix: str, tmp_path: Path
) -> None:
    async with deployed(stack, prefix, {"default": {"latency": {"kind": "fixed", "ms": 100}}}) as deployment:
        workers = await deployment.workers(2, AIBROKER_WORKER_SLOTS="4", **limited(tmp_path))
        await deployment.send([chat(f"a{number}", tenant="acme") for number in range(60)])
        await deployment.until(lambda: deployment.count({"billed": True}, "usage") == 40, 60)
        assert (await alerts(deployment, THRESHOLDS | SHADOWS)).keys() == THRESHOLDS | SHADOWS
        await deployment.until_count(0, {"untold": True}, collection="quotas")
        [book] = deployment.documents({"subject": "tenant:acme"}, "quotas")
        told = {alert["threshold"]: alert["spent"]["requests"] for alert in book["alerts"]}
        assert all(requests >= 40 * threshold // 100 for threshold, requests in told.items())
        await deployment.stop(*workers)


async def test_an_alert_whose_worker_dies_before_it_is_told_is_told_by_another_one(
    stack: Stack, prefix: str, tmp_path: Path
) -> None:
    settings = limited(tmp_path)
    async with deployed(stack, prefix) as deployment:
        [victim] = await deployment.workers(1, AIBROKER_FAIL_AT="before_alert", **settings)
        await deployment.send([chat(f"b{number}", tenant="acme") for number in range(40)])
        await deployment.until(lambda: victim.exit_code is not None)
        assert deployment.count({"untold": True}, "quotas") > 0
        [survivor] = await deployment.workers(1, **settings)
        assert await alerts(deployment, THRESHOLDS)
        await deployment.until_count(0, {"untold": True}, collection="quotas")
        await deployment.stop(survivor)
