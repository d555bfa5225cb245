"""The documents of a file's jobs in the order of its lines: the file is read again, and the database is asked for some ids at a time."""

from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, BinaryIO

from broker import mongo
from broker.cli import database, files, queries
from broker.cli.lines import JobLine, Terms, read_line
from broker.cli.seen import Seen

_AT_ONCE = 200
_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)  # no deadline had passed when the file was sent


def keys(file: BinaryIO, terms: Terms) -> Iterator[str]:
    """`<tenant>/<job id>` of each line that could be sent, in order, each once."""
    seen = Seen()
    for line in files.lines(file):
        made = read_line(line.number, line.text, terms, _BEFORE_ALL) if line.text is not None else None
        if isinstance(made, JobLine) and seen.add(key := f"{made.tenant}/{made.job_id}"):
            yield key


async def documents(
    opened: mongo.Database, wanted: Iterator[str], match: Mapping[str, Any], projection: Mapping[str, Any]
) -> AsyncIterator[dict[str, Any]]:
    """Those of these documents that are as `match` says, in order; however large they are, few are in memory."""
    while some := list(islice(wanted, _AT_ONCE)):
        async for document in database.aggregate(opened, "jobs", queries.in_order(some, match, projection)):
            yield document
