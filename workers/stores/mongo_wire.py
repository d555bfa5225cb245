"""How the store speaks to MongoDB: documents encoded one by one, sent as write commands, and every doubt a `StoreUnknownError`."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import bson
import pymongo
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo import ReadPreference
from pymongo.errors import DocumentTooLarge, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from broker.mongo import Database, Document
from workers.stores.mongo_documents import FATE_FIELDS
from workers.stores.protocol import Fate, Finish, Row, StoreUnknownError, Waiting

Job = TypeVar("Job", Waiting, Finish)

MAX_DOCUMENT_BYTES = 12_000_000
DUPLICATE_KEY = 11000
# A message may have 48,000,000 bytes; the rest is room for one more document of the largest size.
_MESSAGE_BYTES = 30_000_000
# Refusals that are the document's own fault, wherever it stands: nested too deeply, no BSON, too large.
_DOCUMENT_CODES = frozenset({15, 22, 10334})
# The same, when MongoDB names the one document: a bad value or field name, the validator, too large after the update.
_STATEMENT_CODES = _DOCUMENT_CODES | {2, 9, 14, 52, 55, 56, 57, 121, 17280, 17419, 17420}


@contextmanager
def answered(within_s: float) -> Iterator[None]:
    """Bound the operations inside; what leaves of the driver's errors is `StoreUnknownError`.

    PyMongo's client (seen in 4.20) swallows one cancellation in ten: the operation returns as if nothing had been asked, and a task that is told
    to end goes on for ever. So a cancellation that came meanwhile is raised here.
    """
    task = asyncio.current_task()
    asked = task.cancelling() if task is not None else 0
    try:
        with pymongo.timeout(within_s):
            yield
    except (PyMongoError, OSError) as error:
        raise StoreUnknownError(f"{type(error).__name__}: {str(error)[:300]}") from error
    finally:
        if task is not None and task.cancelling() > asked:
            raise asyncio.CancelledError


def encode(document: Mapping[str, Any]) -> RawBSONDocument | None:
    """Encode one document alone; None: BSON cannot hold it, or it is over 12 MB."""
    try:
        raw = bson.encode(document)
    except (BSONError, OverflowError, UnicodeError, RecursionError):
        return None
    return RawBSONDocument(raw) if len(raw) <= MAX_DOCUMENT_BYTES else None


def encoded_row(row: Mapping[str, Any]) -> RawBSONDocument | None:
    """Encode a ledger row, once where it can remember that."""
    stored: RawBSONDocument | None = getattr(row, "stored", None)
    if stored is None:
        stored = encode(row)
        if isinstance(row, Row):
            row.stored = stored
    return stored


@dataclass(slots=True)
class Written:
    """What became of the statements of one write."""

    matched: int = 0
    errors: dict[int, int] = field(default_factory=dict)  # a statement's index -> the code that refused it


class Connection:
    """A database of which all writes are acknowledged by a majority and all reads are majority reads on the primary."""

    def __init__(self, database: Database, owner: str, timeout_s: float = 10.0) -> None:
        """`owner` is this store's own incarnation; `timeout_s` bounds each operation."""
        self.owner = owner
        self.timeout_s = timeout_s
        self.database: Database = database.client.get_database(
            database.name,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority"),
            read_preference=ReadPreference.PRIMARY,
        )
        self.jobs = self.database.get_collection("jobs")
        self.workers = self.database.get_collection("workers")
        self.batches = self.database.get_collection("batches")

    async def write(self, verb: str, collection: str, statements: Sequence[RawBSONDocument]) -> Written:
        """Send `insert` documents or `update` statements, unordered; one that MongoDB refuses leaves the others alone.

        The command itself, because PyMongo's bulk objects cost more than everything else together.

        Raises:
            StoreUnknownError: for all of them, also when only the majority's acknowledgement is missing.
        """
        written = Written()
        for first, chunk in _chunks(statements):
            await self._write_chunk(written, (verb, collection), chunk, first)
        return written

    async def _write_chunk(
        self, written: Written, command: tuple[str, str], statements: Sequence[RawBSONDocument], first: int
    ) -> None:
        try:
            reply = await self._command(*command, statements)
        except _UnreadableError:
            if len(statements) == 1:
                written.errors[first] = _TOO_DEEP
                return
            half = len(statements) // 2
            await self._write_chunk(written, command, statements[:half], first)
            await self._write_chunk(written, command, statements[half:], first + half)
            return
        written.matched += reply["n"]
        for error in reply.get("writeErrors", ()):
            if error["code"] != DUPLICATE_KEY and error["code"] not in _STATEMENT_CODES:
                raise StoreUnknownError(f"MongoDB answered {error['code']}: {error.get('errmsg', '')[:300]}")
            written.errors[first + error["index"]] = error["code"]

    async def _command(self, verb: str, collection: str, statements: Sequence[RawBSONDocument]) -> Document:
        command: Document = {
            verb: collection,
            "ordered": False,
            "writeConcern": _MAJORITY,
            "documents" if verb == "insert" else "updates": statements,
        }
        with answered(self.timeout_s):
            try:
                reply = await self.database.command(command)
            except DocumentTooLarge as error:
                raise _UnreadableError from error
            except OperationFailure as error:
                # The message was not even read, so surely nothing of it was written.
                if error.code in _DOCUMENT_CODES:
                    raise _UnreadableError from error
                raise
        if "writeConcernError" in reply:
            raise StoreUnknownError(f"the majority did not acknowledge: {reply['writeConcernError']}")
        return reply

    async def update_many(self, query: Document, update: Document) -> int:
        """One update of many jobs; return how many matched. The driver never sends it again."""
        statement = encode({"q": query, "u": update, "multi": True})
        return 0 if statement is None else (await self.write("update", "jobs", [statement])).matched

    async def compare_and_set(
        self,
        jobs: Sequence[Job],
        statement: Callable[[Job], Document],
        judge: Callable[[Job, Mapping[str, Any]], Fate],
    ) -> list[Fate]:
        """One conditional update a job; when not all matched, `judge` tells each one's fate from a majority read."""
        fates = [Fate.REFUSED] * len(jobs)
        encoded = [(index, encode(statement(job))) for index, job in enumerate(jobs)]
        sent = [(index, document) for index, document in encoded if document is not None]
        written = await self.write("update", "jobs", [document for _, document in sent])
        stored: dict[str, Document] | None = None
        if written.matched + len(written.errors) < len(sent):
            found = await self.find({"_id": {"$in": [jobs[index].id for index, _ in sent]}}, FATE_FIELDS)
            stored = {document["_id"]: document for document in found}
        for place, (index, _) in enumerate(sent):
            if place not in written.errors:
                fates[index] = Fate.DONE if stored is None else judge(jobs[index], stored.get(jobs[index].id, {}))
        return fates

    def holds(self, stored: Mapping[str, Any], fence: int) -> bool:
        """Whether a document carries our own (owner, fence)."""
        return (stored.get("owner"), stored.get("fence")) == (self.owner, fence)

    async def find(self, query: Mapping[str, Any], fields: Mapping[str, Any], **options: Any) -> list[Document]:  # noqa: ANN401 PyMongo's own
        """Majority read of jobs, in one round trip where they fit."""
        with answered(self.timeout_s):
            return await self.jobs.find(query, fields, batch_size=1_000, **options).to_list(None)

    async def aggregate(self, collection: str, pipeline: Sequence[Document], index: str) -> list[Document]:
        """Majority read of what a pipeline gives; as a command, because the drivers' own methods differ."""
        with answered(self.timeout_s):
            cursor = await self.database.cursor_command(
                "aggregate",
                collection,
                codec_options=self.database.codec_options,
                pipeline=pipeline,
                cursor={},
                hint=index,
                readConcern={"level": "majority"},
            )
            found: list[Document] = await cursor.to_list(None)
        return found

    async def owners(self, query: Mapping[str, Any], index: str) -> list[str]:
        """Every incarnation that documents matching `query` name as their owner, by hops over the index."""
        found: list[str] = []
        while True:
            after = found[-1] if found else ""
            options: Document = {"sort": [("owner", 1)], "limit": 1, "hint": index}
            documents = await self.find({**query, "owner": {"$gt": after}}, {"owner": 1}, **options)
            if not documents:
                return found
            found.append(documents[0]["owner"])

    async def the_dead(self, owners: Sequence[str]) -> list[str]:
        """Those of `owners` that are fenced or have no lease."""
        with answered(self.timeout_s):
            living = await self.workers.find(
                {"_id": {"$in": list(owners)}, "fenced": {"$exists": False}}, {"_id": 1}
            ).to_list(None)
        alive = {lease["_id"] for lease in living}
        return [owner for owner in owners if owner not in alive]


class _UnreadableError(Exception):
    """MongoDB, or the driver, refused a whole message because of a document in it."""


_TOO_DEEP = 15
_MAJORITY = {"w": "majority"}


def _chunks(statements: Sequence[RawBSONDocument]) -> Iterator[tuple[int, Sequence[RawBSONDocument]]]:
    """Cut into messages that the server takes; with each the index of its first statement."""
    first = size = 0
    for index, statement in enumerate(statements):
        size += len(statement.raw)
        if size > _MESSAGE_BYTES and index > first:
            yield first, statements[first:index]
            first, size = index, len(statement.raw)
    if first < len(statements):
        yield first, statements[first:]
