"""What a job looks like as a document: built for each write, and read back into the Protocol's types."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bson.dbref import DBRef

from broker.mongo import Document
from schemas.result import Status
from workers.stores.protocol import Address, Claim, Finish, Known, NewJob, Published, State, Unpublished, Waiting

TERMINAL = [str(status) for status in Status]
MAX_REPLIES = 4

CLAIM_FIELDS = dict.fromkeys(
    (
        *(
            "uid",
            "generation",
            "fence",
            "tenant",
            "job_id",
            "priority",
            "payload",
            "arrived_at",
            "replies",
            "replies_n",
        ),
        *("batch_id", "trace", "attempts", "takeovers", "called", "cancel", "last_failure"),
    ),
    1,
)
KNOWN_FIELDS = dict.fromkeys(("state", "owner", "fence", "generation", "digest", "replies", "outbox", "cancel"), 1)
FATE_FIELDS = dict.fromkeys(("state", "owner", "fence", "why_waiting", "cancel"), 1)
UNPUBLISHED_FIELDS = dict.fromkeys(
    (
        *("uid", "generation", "fence", "tenant", "job_id", "trace", "result", "row", "replies", "replies_n", "outbox"),
        "owner",
    ),
    1,
)


def address_document(address: Address) -> Document:
    """One entry of `replies`."""
    return {"topic": address.topic, "partition": address.partition}


def new_document(job: NewJob, owner: str) -> Document:
    """The document of a job that was just read: claimed by `owner`, or waiting."""
    waits = job.due_at is not None
    document: Document = {
        "_id": job.id,
        "uid": job.uid,
        "tenant": job.tenant,
        "job_id": job.job_id,
        "priority": job.priority,
        "state": State.WAITING if waits else State.CLAIMED,
        "owner": None if waits else owner,
        "fence": 0 if waits else 1,
        "generation": 1,
        "takeovers": 0,
        "attempts": 0,
        "payload": job.payload,
        "size": len(job.payload),
        "digest": job.digest,
        "replies": [address_document(job.reply)],
        "replies_n": 1,
        "arrived_at": job.arrived_at,
    }
    if job.batch_id is not None:
        document["batch"] = f"{job.tenant}/{job.batch_id}"
        document["batch_id"] = job.batch_id
    if job.deadline is not None:
        document["deadline"] = job.deadline
    if job.trace is not None:
        document["trace"] = job.trace
    if waits:
        document["due_at"] = job.due_at
        document["why_waiting"] = job.why_waiting
        if job.wait_key is not None:
            document["wait_key"] = job.wait_key
    return document


def merge_pipeline(job: NewJob, owner: str) -> list[Document]:
    """The update that makes a stub this job: its marks and replies stay, its fence rises, a cancelled one is due now."""
    document = new_document(job, owner)
    fields: Document = {
        name: {"$literal": value}
        for name, value in document.items()
        if name not in {"_id", "fence", "generation", "replies", "replies_n"}
    }
    fields["fence"] = {"$add": ["$fence", 1]}
    fields |= _with_address(job.reply)
    gone = ["expire_at"]
    if job.due_at is None:
        gone.append("due_at")
    else:
        cancelled = {"$ne": [{"$type": "$cancel"}, "missing"]}
        fields["due_at"] = {"$cond": [cancelled, "$$NOW", {"$literal": job.due_at}]}
    return [{"$set": fields}, {"$unset": gone}]


def cancel_pipeline(seq: int, reason: str, stub_expires_at: datetime) -> list[Document]:
    """The update that marks a job, or the stub that it makes, as cancelled; a terminal job only learns that it was asked."""
    terminal = {"$in": ["$state", TERMINAL]}
    absent = {"$eq": [{"$type": "$state"}, "missing"]}
    return [
        {
            "$set": {
                "control_seq": {"$literal": seq},
                "cancel": {"$cond": [terminal, {"$ifNull": ["$cancel", "$$REMOVE"]}, {"$literal": reason}]},
                "due_at": {"$cond": [terminal, {"$ifNull": ["$due_at", "$$REMOVE"]}, "$$NOW"]},
                "state": {"$ifNull": ["$state", State.ANNOUNCED]},
                "fence": {"$ifNull": ["$fence", 0]},
                "generation": {"$ifNull": ["$generation", 1]},
                "replies": {"$ifNull": ["$replies", []]},
                "replies_n": {"$ifNull": ["$replies_n", 0]},
                "expire_at": {
                    "$cond": [absent, {"$literal": stub_expires_at}, {"$ifNull": ["$expire_at", "$$REMOVE"]}]
                },
            }
        },
        {"$unset": "rerun"},
    ]


def reply_pipeline(address: Address, token: str, stub_expires_at: datetime) -> list[Document]:
    """The update that adds an address to a job, or to the stub that it makes; a terminal job has its result sent again."""
    terminal = {"$in": ["$state", TERMINAL]}
    absent = {"$eq": [{"$type": "$state"}, "missing"]}
    expiry = {"$cond": [absent, {"$literal": stub_expires_at}, {"$ifNull": ["$expire_at", "$$REMOVE"]}]}
    return [
        {
            "$set": {
                **_with_address(address),
                "state": {"$ifNull": ["$state", State.ANNOUNCED]},
                "fence": {"$ifNull": ["$fence", 0]},
                "generation": {"$ifNull": ["$generation", 1]},
                "outbox": {"$cond": [terminal, {"$literal": token}, {"$ifNull": ["$outbox", "$$REMOVE"]}]},
                "expire_at": {"$cond": [terminal, "$$REMOVE", expiry]},
            }
        }
    ]


def _with_address(address: Address) -> Document:
    """`replies` and `replies_n` with an address that is new; the oldest goes when there are too many."""
    new: Document = {"$literal": address_document(address)}
    before = {"$ifNull": ["$replies", []]}
    known = {"$in": [new, before]}
    after = {"$slice": [{"$concatArrays": [before, [new]]}, -MAX_REPLIES]}
    return {
        "replies": {"$cond": [known, before, after]},
        "replies_n": {"$add": [{"$ifNull": ["$replies_n", 0]}, {"$cond": [known, 0, 1]}]},
    }


def wait_statement(job: Waiting, owner: str) -> Document:
    """The update that puts a claimed job back, unless it is cancelled."""
    changed: Document = {
        "state": State.WAITING,
        "owner": None,
        "due_at": job.due_at,
        "why_waiting": job.why_waiting,
        "attempts": job.attempts,
    }
    gone: Document = {"token": 1}
    if job.wait_key is not None:
        changed["wait_key"] = job.wait_key
    if job.last_failure is not None:
        changed["last_failure"] = job.last_failure
    if job.priority is not None:
        changed["priority"] = job.priority
    if job.deadline is not None:
        changed["deadline"] = job.deadline
    if job.nothing_sent:
        gone["called"] = 1
    return {
        "q": {"_id": job.id, "state": State.CLAIMED, "owner": owner, "fence": job.fence, "cancel": {"$exists": False}},
        "u": {"$set": changed, "$unset": gone},
        "hint": "_id_",
    }


def finish_statement(job: Finish, owner: str, token: str, row: Mapping[str, Any] | None) -> Document:
    """The update that finishes a claimed job, with its ledger row as it is stored."""
    changed: Document = {"state": job.state, "result": job.result, "outbox": token}
    gone: Document = {"token": 1}
    if row is not None:
        changed["row"] = row
    if not job.keep_payload:
        gone["payload"] = 1
    return {
        "q": {"_id": job.id, "state": State.CLAIMED, "owner": owner, "fence": job.fence},
        "u": {"$set": changed, "$unset": gone, "$currentDate": {"finished_at": True}},
        "hint": "_id_",
    }


def clear_statements(done: Sequence[Published], expire_at: datetime) -> list[Document]:
    """The updates that clear outboxes: one for all documents of the same token and `replies_n`."""
    groups: dict[tuple[str, int], list[str]] = {}
    for one in done:
        groups.setdefault((one.token, one.replies_n), []).append(one.id)
    return [
        {
            "q": {"_id": {"$in": ids}, "outbox": token, "replies_n": replies_n},
            "u": {"$unset": {"outbox": 1}, "$set": {"expire_at": expire_at}},
            "multi": True,
        }
        for (token, replies_n), ids in groups.items()
    ]


def claim(document: Mapping[str, Any]) -> Claim:
    """A document that we have just claimed, read with `CLAIM_FIELDS`."""
    return Claim(
        id=document["_id"],
        uid=document["uid"],
        generation=document["generation"],
        fence=document["fence"],
        tenant=document["tenant"],
        job_id=document["job_id"],
        priority=document["priority"],
        payload=document["payload"],
        arrived_at=document["arrived_at"],
        replies=addresses(document),
        replies_n=document["replies_n"],
        batch_id=document.get("batch_id"),
        trace=document.get("trace"),
        attempts=document["attempts"],
        takeovers=document["takeovers"],
        called=document.get("called", False),
        cancel=document.get("cancel"),
        last_failure=document.get("last_failure"),
    )


def known(document: Mapping[str, Any]) -> Known:
    """A document that was read with `KNOWN_FIELDS`."""
    return Known(
        state=document["state"],
        owner=document.get("owner"),
        fence=document["fence"],
        generation=document["generation"],
        digest=document.get("digest"),
        replies=addresses(document),
        outbox=document.get("outbox"),
        cancel=document.get("cancel"),
    )


def unpublished(document: Mapping[str, Any]) -> Unpublished:
    """A finished document that was read with `UNPUBLISHED_FIELDS`."""
    return Unpublished(
        id=document["_id"],
        uid=document["uid"],
        generation=document["generation"],
        fence=document["fence"],
        tenant=document["tenant"],
        job_id=document["job_id"],
        trace=document.get("trace"),
        result=_plain(document["result"]),
        row=document.get("row"),
        replies=addresses(document),
        replies_n=document["replies_n"],
        token=document["outbox"],
    )


def addresses(document: Mapping[str, Any]) -> tuple[Address, ...]:
    """The reply addresses of a document, oldest first."""
    return tuple(Address(reply["topic"], reply["partition"]) for reply in document.get("replies", ()))


def _plain(value: Any) -> Any:  # noqa: ANN401 whatever JSON holds
    """Undo that the driver reads an object with `$ref` and `$id`, as JSON Schema has them, as a reference of its own."""
    if isinstance(value, DBRef):
        value = value.as_doc()
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value
