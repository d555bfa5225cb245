"""Tells of alerts: sends the event of each that a book has and that Kafka may not have, then notes in the book that it is told.

Whoever wrote the alert into the book sends its event; where that worker died, or never learnt that its write went through, another one does. An event
that is sent twice has the same id and the same content, because it is made from the book alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from broker.events import Events
from broker.lanes import Record
from broker.outgoing import alert_headers, encode
from broker.sending import Sending
from broker.settings import Settings
from workers.engine.failpoints import Failpoints
from workers.quota.alerts import alert_id, event
from workers.quota.book import Alert, Book
from workers.quota.entries import Entries
from workers.quota.protocol import Key
from workers.stores.protocol import StoreUnknownError

PERIOD_S = 2.0
LOOK_AROUND_S = 30.0
"""How often books are looked for whose alerts nobody told."""
TAKE_OVER = timedelta(seconds=15)
"""When others tell of what the worker that noticed it has not told."""
_TRIES = 8

Send = Callable[[Sequence[tuple[Key, Alert]]], Awaitable[Collection[int]]]
"""Sends the events of alerts, and gives the positions of those that are not acknowledged."""


class Announcer:
    """The way of alerts to the topic `alerts`."""

    def __init__(self, sending: Sending, settings: Settings, failpoints: Failpoints) -> None:
        self._sending = sending
        self._topic, self._source = settings.topic("alerts"), settings.source
        self._failpoints = failpoints

    async def send(self, alerts: Sequence[tuple[Key, Alert]]) -> Collection[int]:
        """Send their events; back when each is acknowledged or has failed."""
        self._failpoints.hit("before_alert")
        sending = self._sending.try_put_many([self._record(key, alert) for key, alert in alerts])
        return range(len(alerts)) if sending is None else await sending

    def _record(self, key: Key, alert: Alert) -> Record:
        said = event(key, alert)
        headers = alert_headers(said, alert_id(key, alert), self._source)
        return Record(self._topic, encode(said.model_dump()), key.subject.encode(), headers, None)


class Alerting:
    """The teller.

    Args:
        entries: Whoever notices an alert.
        send: The way to Kafka.
    """

    def __init__(self, entries: Entries, send: Send) -> None:
        self._books = entries.books
        self._send = send
        self._now = entries.now
        entries.noticed = self.noticed
        self._mine: dict[Key, set[str]] = {}  # thresholds
        self._look_at: datetime | None = None
        self._asked = asyncio.Event()
        self._events = Events("worker.alerts")

    def noticed(self, key: Key, thresholds: Collection[str]) -> None:
        """Say that this worker has written alerts into a book."""
        self._mine.setdefault(key, set()).update(thresholds)
        self._asked.set()

    async def run(self) -> None:
        """Tell for ever."""
        while True:
            self._asked.clear()
            try:
                await self.tell()
            except StoreUnknownError as error:
                self._events.warning("alerts.unknown", reason=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(PERIOD_S):
                    await self._asked.wait()

    async def tell(self) -> None:
        """Tell of what this worker noticed, and from time to time of what others have left untold.

        Raises:
            StoreUnknownError: The next round goes on.
        """
        mine, self._mine = self._mine, {}
        left = mine
        try:
            told = await self._tell(mine, await self._books.read([*mine, *await self._abandoned(mine)]))
            left = {key: thresholds for key, thresholds in mine.items() if key not in told}
        finally:
            for key, thresholds in left.items():
                self._mine.setdefault(key, set()).update(thresholds)

    async def _abandoned(self, mine: Collection[Key]) -> list[Key]:
        """Books with alerts that nobody may tell, at first and then twice a minute."""
        now = self._now()
        if self._look_at is not None and abs(now - self._look_at) < timedelta(seconds=LOOK_AROUND_S):
            return []
        found = await self._books.untold()
        self._look_at = now
        return [key for key in found if key not in mine]

    async def _tell(self, mine: Mapping[Key, Collection[str]], books: Mapping[Key, Book]) -> set[Key]:
        """Send what is due; return the keys of which nothing of that is left."""
        late = self._now() - TAKE_OVER
        due = [
            (key, alert)
            for key, book in books.items()
            for alert in book.untold
            if alert.at <= late or str(alert.threshold) in mine.get(key, ())
        ]
        failed = await self._send(due) if due else ()
        unsent = {due[position][0] for position in failed}
        told: dict[Key, list[Alert]] = {}
        for position, (key, alert) in enumerate(due):
            if position not in failed:
                told.setdefault(key, []).append(alert)
                self._events.info("alerts.told", id=alert_id(key, alert))
        noted = {key for key, alerts in told.items() if await self._note(key, alerts)}
        return {key for key in mine if key not in unsent and (key in noted or key not in told)}

    async def _note(self, key: Key, alerts: Sequence[Alert]) -> bool:
        """Note in a book that these alerts are told; False: others write it all the time."""
        for _ in range(_TRIES):
            book = (await self._books.read([key])).get(key)
            if book is None or await self._books.swap(
                key, book.alerting(alert._replace(told=True) for alert in alerts)
            ):
                return True
        return False
