"""`aibroker topics`: makes the topics, collections and indexes of a deployment, and lists the topics."""

import asyncio
from typing import Any

import typer

from broker import topics as topics_of
from broker.cli import machine, screen
from broker.cli.invocation import DataOption, Invocation, JsonOption
from broker.settings import Settings


def topics(context: typer.Context, *, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Make the topics, collections and indexes that are missing, change none that is there, and list the topics.

    `deploy/topics.yaml` says how many partitions each topic has and how long it keeps its records. Run it before the first worker of a
    deployment; `up` and `demo` do so themselves.
    """
    invocation: Invocation = context.obj
    rows = asyncio.run(_made(invocation.settings(data)))
    if as_json:
        for row in rows:
            screen.write_json(row)
    else:
        screen.write_table(
            "Topics", ["topic", "partitions", "kept, hours", "now"], [list(row.values()) for row in rows]
        )


async def _made(of: Settings) -> list[dict[str, Any]]:
    ensured = await machine.prepare(of)
    counts = await topics_of.check(of)
    return [
        {
            "topic": of.topic(name),
            "partitions": counts[name],
            "retention_h": shape.retention_h,
            "state": "made" if of.topic(name) in ensured.made else "there",
        }
        for name, shape in topics_of.wanted(of).items()
    ]
