"""Long work on the event loop in slices: what is urgent has its turn in between."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

Item = TypeVar("Item")

SLICE = 32
"""So many records or jobs are worked on in a row, some two milliseconds: an interactive job has ten turns of the loop between submit and result, and
behind batches of hundreds each of them took twenty."""


async def sliced(items: Iterable[Item]) -> AsyncIterator[Item]:
    """The same items, with a turn for others after each slice."""
    for number, item in enumerate(items, 1):
        yield item
        if number % SLICE == 0:
            await asyncio.sleep(0)
