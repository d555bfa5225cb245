"""Sends a record again until Kafka acknowledges it, for what is lost otherwise: its own offset is committed after that."""

import asyncio
from collections.abc import Awaitable, Callable

from broker.errors import AibrokerError
from broker.lanes import Sent
from workers.engine.persistence import LONGEST_RETRY_S


async def acknowledged(
    sent: "asyncio.Future[Sent]",
    again: Callable[[], "Awaitable[asyncio.Future[Sent]]"],
    failed: Callable[[AibrokerError], None],
) -> None:
    """Wait until a record is there; `again` sends it once more, `failed` is told each time."""
    while (error := await _failure(sent)) is not None:
        failed(error)
        await asyncio.sleep(LONGEST_RETRY_S)
        sent = await again()


async def _failure(sent: "asyncio.Future[Sent]") -> AibrokerError | None:
    try:
        await sent
    except AibrokerError as error:
        return error
    return None
