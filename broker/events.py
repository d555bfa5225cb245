"""A log line is an event: a literal dotted name plus fields, one JSON object a line; never a prompt, a completion or a secret."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

_EXTRA = "event_fields"


class Events:
    """The log of one part.

    Args:
        part: Its name, such as "worker.reader"; a logger of the standard library under `aibroker.`.
    """

    def __init__(self, part: str) -> None:
        self._logger = logging.getLogger(f"aibroker.{part}")

    def debug(self, name: str, **fields: object) -> None:
        """Something that only who looks for it wants to know."""
        self._logger.debug(name, extra={_EXTRA: fields})

    def info(self, name: str, **fields: object) -> None:
        """Something that happened as it should."""
        self._logger.info(name, extra={_EXTRA: fields})

    def warning(self, name: str, **fields: object) -> None:
        """Something that went wrong and was dealt with."""
        self._logger.warning(name, extra={_EXTRA: fields})

    def error(self, name: str, error: BaseException | None = None, **fields: object) -> None:
        """Something that somebody has to look at; with the traceback of `error`."""
        self._logger.error(name, extra={_EXTRA: fields}, exc_info=error)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "part": record.name.removeprefix("aibroker."),
            **getattr(record, _EXTRA, {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:  # a lone surrogate or a long integer, which the standard library writes
            return json.dumps(line, default=str, skipkeys=True)


def to_stream(level: str, stream: TextIO | None = None) -> None:
    """Send this process's events to a stream (standard output) as JSON lines; libraries only from warnings on."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("aibroker").setLevel(level.upper())
