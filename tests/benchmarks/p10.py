"""P10: what a worker costs that has nothing to do: its share of a core, and how many operations a second MongoDB has from it.

The worker has served jobs of four tenants in every priority before, with quotas and telemetry on, so that everything is warm that stays warm. What
the server does by itself is measured without the worker, in the same run, and subtracted.
"""

import asyncio
from collections import Counter
from typing import Any

import orjson
import pymongo

from broker.local.stack import Stack
from tests.benchmarks.ground import Entry, Figure, Options, Record, counted, cpu_s, fresh, produce
from tests.faults.waiting import until_ended
from tests.integration.deployment import chat

CPU_SHARE = 0.02
OPERATIONS_PER_S = 5.0
WATCHED_S = 60
ALONE_S = 30
CALM_S = 20
"""How long after the last job it is left alone before it counts as idle."""
JOBS = 400
PRIORITIES = ("interactive", "normal", "batch")
SETTINGS = """
quotas: [{tenant: "*", requests: 1000000, tokens: 1000000000, usd: "1000"}]
guards: {pii_input: flag, pii_output: flag}
telemetry: {exporter: log, interval_s: 10}
"""


async def measure(stack: Stack, options: Options) -> Entry:
    """Measure the server alone, then with an idle worker."""
    watched_s, alone_s = options.sized(WATCHED_S), options.sized(ALONE_S)
    async with fresh(stack, options, SETTINGS) as deployment:
        server = deployment.mongo
        [worker] = await deployment.workers()
        jobs = [orjson.dumps({**chat(f"p10-{number}"), "tenant": f"t{number % 4}"}) for number in range(JOBS)]
        await produce(
            deployment.services,
            (Record(f"jobs.{PRIORITIES[number % 3]}", job) for number, job in enumerate(jobs)),
        )
        if not await until_ended(deployment.services, 120):
            raise RuntimeError(f"the jobs did not end; the worker's log is {worker.log}")
        await asyncio.sleep(CALM_S)
        before = cpu_s(worker)
        busy = await _operations(server, watched_s)
        share = (cpu_s(worker) - before) / watched_s
        await deployment.stop(worker)
        alone = await _operations(server, alone_s)
    by_kind = {kind: round(busy[kind] - alone[kind], 2) for kind in sorted(busy)}
    return Entry(
        {
            "share of a core": Figure(share, "<=", CPU_SHARE),
            "operations a second": Figure(sum(by_kind.values()), "<=", OPERATIONS_PER_S),
        },
        {"watched_s": watched_s, "operations_a_second": by_kind, "of_the_server_alone": dict(alone)},
    )


async def _operations(server: "pymongo.MongoClient[dict[str, Any]]", seconds: float) -> Counter[str]:
    """Operations a second by kind, without the two questions that count them."""
    before = counted(server)
    await asyncio.sleep(seconds)
    after = counted(server)
    a_second: Counter[str] = Counter({kind: round((after[kind] - before[kind]) / seconds, 3) for kind in after})
    return a_second
