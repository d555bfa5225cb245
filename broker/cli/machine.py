"""What `up` and `demo` share: the settings of a local stack, what has to be there before workers, and clean stops."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from broker import mongo, settings, topics
from broker.cli import variables
from broker.local.stack import Stack
from broker.settings import Settings

INTERRUPTED = 130
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def prepare(of: Settings) -> topics.Ensured:
    """Make topics, collections and indexes that are not there yet."""
    client = mongo.connect(of.mongo.get_secret_value())
    try:
        await mongo.check(client)
        ensured, _ = await asyncio.gather(topics.ensure(of), mongo.prepare(client[of.database]))
    finally:
        await mongo.close(client)
    return ensured


def run_until_stopped(work: Coroutine[Any, Any, None], stopping: Callable[[], None]) -> bool:
    """Run `work` to its end; False if SIGINT, SIGTERM or SIGHUP ended it, which is called out by `stopping`.

    The first signal cancels the work, whose blocks then stop what they have started. A second one ends the process at once: the guardian
    of the stack kills what is left.
    """
    return asyncio.run(_until_stopped(work, stopping))


async def _until_stopped(work: Coroutine[Any, Any, None], stopping: Callable[[], None]) -> bool:
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    signals = 0

    def stop() -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            os._exit(INTERRUPTED)
        stopping()
        task.cancel()

    for number in _STOPPING:
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not signals:
            raise
        return False
    return True


def settings_for(stack: Stack, environment: Mapping[str, str], file: Path | None) -> tuple[Settings, dict[str, str]]:
    """The settings of a stack's deployment, and the variables for its workers."""
    led = {**variables.of_file(file), **variables.of_stack(stack.kafka_url, stack.mongo_url, stack.addresses.database)}
    known = settings.load({**environment, **led}, file)
    led |= variables.of_simulator(stack.addresses.simulator, known)
    return settings.load({**environment, **led}, file), led
