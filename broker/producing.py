"""Starts and stops producers in bounded time, whatever Kafka does meanwhile."""

import asyncio
from collections.abc import Callable

from broker.events import Events
from broker.kafka import AIOKafkaProducer, KafkaError, reaching
from broker.settings import Settings

STOP_S = 5.0
_START_S = 30.0
_GIVE_UP_S = 0.5

_events = Events("sending")


async def started(settings: Settings, make: Callable[[Settings], AIOKafkaProducer]) -> AIOKafkaProducer:
    """Make a producer and connect it.

    Raises:
        KafkaMissing: Kafka does not answer within 30 s.
    """
    made = make(settings)
    try:
        with reaching(settings):
            async with asyncio.timeout(_START_S):
                await made.start()
    except BaseException:
        await stop(made)
        raise
    return made


async def stop(old: AIOKafkaProducer, patience_s: float = STOP_S) -> None:
    """Stop a producer after waiting `patience_s` for what it holds; the rest, which it would try to send for ever, is forgotten."""
    flushing = asyncio.create_task(old.flush())
    done, _ = await asyncio.wait({flushing}, timeout=patience_s)
    if not done:
        flushing.cancel()
        await _abandon(old)
        return
    try:
        await old.stop()
    except (KafkaError, OSError) as error:
        _events.debug("producer.stopped_badly", why=repr(error))


async def _abandon(old: AIOKafkaProducer) -> None:
    """Have a producer forget what it holds, which its own `stop()` would try to send for ever."""
    task = old._sender.sender_task  # noqa: SLF001 there is no public way to give up
    if task is None:
        await old.client.close()
    else:
        task.cancel()
        await old.client.close()  # ends the requests whose answers it waits for
        done, _ = await asyncio.wait({task}, timeout=_GIVE_UP_S)
        if not done:  # it waits for news of a cluster that it has no connection to
            task.cancel()
            await asyncio.wait({task})
    old._closed = True  # noqa: SLF001 the same
