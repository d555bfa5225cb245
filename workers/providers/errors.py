"""The one table from a status and a body to an error class, which decides money and retries."""

import re
from typing import NamedTuple

from schemas.codes import Code
from workers.providers.documents import parse
from workers.providers.protocol import ErrorClass, Failure
from workers.providers.waits import retry_after_s
from workers.transports.errors import AnswerTooLarge, NotSent, TransportError
from workers.transports.protocol import Reply

MESSAGE_CHARACTERS = 500
Verdict = tuple[ErrorClass, Code]

THROTTLED: Verdict = (ErrorClass.THROTTLED, Code.RATE_LIMITED)
REFUSED: Verdict = (ErrorClass.CREDENTIAL, Code.CREDENTIAL_REFUSED)
NO_CREDIT: Verdict = (ErrorClass.CREDENTIAL, Code.PROVIDER_QUOTA)
FAILED: Verdict = (ErrorClass.FAILED, Code.PROVIDER_ERROR)
REJECTED: Verdict = (ErrorClass.REJECTED, Code.PROVIDER_REJECTED)
NO_MODEL: Verdict = (ErrorClass.REJECTED, Code.MODEL_NOT_FOUND)
TOO_LONG: Verdict = (ErrorClass.REJECTED, Code.CONTEXT_TOO_LONG)

BY_STATUS: dict[int, Verdict] = {
    401: REFUSED,
    402: NO_CREDIT,
    403: REFUSED,
    # The provider gave up on us (408), on its own lock (409), or did not begin (421, 425); 424 and 499 are a gateway's
    # word for a failure behind it. The request itself is not refused, so another attempt may do.
    408: FAILED,
    409: FAILED,
    421: FAILED,
    424: FAILED,
    425: FAILED,
    429: THROTTLED,
    499: FAILED,
    503: THROTTLED,
    529: THROTTLED,
}
"""What is not here: other 4xx are rejected, everything else (5xx, redirects, half answers) has failed."""

BY_WORD: dict[str, Verdict] = {
    "insufficient_quota": NO_CREDIT,
    "billing_hard_limit_reached": NO_CREDIT,
    "billing_not_active": NO_CREDIT,
    "account_deactivated": REFUSED,
    "invalid_api_key": REFUSED,
    "api_key_invalid": REFUSED,
    "authentication_error": REFUSED,
    "permission_error": REFUSED,
    "model_not_found": NO_MODEL,
    "deploymentnotfound": NO_MODEL,
    "context_length_exceeded": TOO_LONG,
    "string_above_max_length": TOO_LONG,
    "content_policy_violation": REJECTED,
    "content_filter": REJECTED,
    "rate_limit_exceeded": THROTTLED,
    "rate_limit_error": THROTTLED,
    "overloaded_error": THROTTLED,
    "server_error": FAILED,
    "internal_error": FAILED,
    "invalid_request_error": REJECTED,
    "invalid_prompt": REJECTED,
}
"""Codes and types of error bodies; they win over the status only where `BINDING` says, and stand in where there is none."""

BINDING: dict[int, frozenset[Verdict]] = {
    400: frozenset({NO_CREDIT, REFUSED, NO_MODEL, TOO_LONG}),
    403: frozenset({NO_CREDIT, NO_MODEL, REJECTED}),
    404: frozenset({NO_MODEL}),
    413: frozenset({TOO_LONG}),
    422: frozenset({TOO_LONG, NO_MODEL}),
    429: frozenset({NO_CREDIT, REFUSED}),
}
TOO_LONG_WORDS = re.compile(r"maximum context length|context window|prompt is too long|too many tokens", re.IGNORECASE)
NO_CREDIT_WORDS = re.compile(r"exceeded your current quota.{0,80}billing|credit balance is too low", re.IGNORECASE)
TOO_LARGE_FOR_THE_LIMIT = re.compile(r"^request too large for\b", re.IGNORECASE)
SECRETS = re.compile(r"\b(?:sk|pk|rk|gsk|xai)-[\w*-]{6,}|\bAIza[\w-]{10,}|(?<=earer )\S+")


class Words(NamedTuple):
    """What an error body says: its codes and types in lower case, its sentence, its durations, a status of its own."""

    names: tuple[str, ...] = ()
    message: str = ""
    waits: tuple[str, ...] = ()
    status: int | None = None


def mapping(value: object) -> dict[str, object]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def words_of(document: object) -> Words:
    """The words of a parsed error body: OpenAI's, and what those who speak like it make of that."""
    if isinstance(document, list) and document:
        document = document[0]
    outer = mapping(document)
    error = outer.get("error")
    inner = mapping(error) or outer
    said = error if isinstance(error, str) else inner.get("message") or inner.get("detail")
    if isinstance(said, list):  # FastAPI's: one entry a field
        said = "; ".join(f"{entry['msg']:s}" for entry in map(mapping, said) if isinstance(entry.get("msg"), str))
    details = inner.get("details")
    entries = [mapping(entry) for entry in details] if isinstance(details, list) else []
    names = [inner.get("code"), inner.get("type"), inner.get("status"), *(entry.get("reason") for entry in entries)]
    waits = [entry.get("retryDelay") for entry in entries]
    return Words(
        tuple(name.lower() for name in names if isinstance(name, str)),
        said if isinstance(said, str) else "",
        tuple(wait for wait in waits if isinstance(wait, str)),
        code if isinstance(code := inner.get("code"), int) and 400 <= code < 600 else None,
    )


def words_in(body: bytes) -> Words:
    """The words of an error body; of one that is no JSON, its first characters."""
    try:
        return words_of(parse(body)[0])
    except ValueError:
        return Words(message=body[: 4 * MESSAGE_CHARACTERS].decode(errors="replace"))


def named(words: Words) -> Verdict | None:
    """What the body's code or type says, before any look at the status."""
    for name in words.names:
        if name in BY_WORD:
            return BY_WORD[name]
    return None


def verdict(status: int, words: Words) -> Verdict:
    """The error class and code of a reply that is no answer."""
    by_status = BY_STATUS.get(status, REJECTED if 400 <= status < 500 else FAILED)
    by_word = named(words)
    if by_word is not None and by_word in BINDING.get(status, ()):
        return by_word
    if status == 429 and NO_CREDIT_WORDS.search(words.message):
        return NO_CREDIT
    if status == 429 and TOO_LARGE_FOR_THE_LIMIT.search(words.message):
        return REJECTED  # more tokens than the limit ever has: waiting would not help
    if by_status is REJECTED and TOO_LONG_WORDS.search(words.message):
        return TOO_LONG
    return by_status


def sentence(words: Words, status: int) -> str:
    """The provider's own words: without keys and control characters, cut to 500 characters."""
    said = SECRETS.sub("***", " ".join(words.message.split()))
    said = "".join(character for character in said if character.isprintable())
    if len(said) > MESSAGE_CHARACTERS:
        said = said[: MESSAGE_CHARACTERS - 1] + "…"
    return f"The provider answered {status}: {said}" if said else f"The provider answered {status} without a word."


def failure_of(reply: Reply, now: float) -> Failure:
    """The failure that a reply with a bad status stands for; `now` is Unix time in seconds."""
    words = words_in(reply.body)
    return refusal(verdict(reply.status, words), words, reply, now)


def failure_within(reply: Reply, now: float) -> Failure:
    """The failure that a good status hides: the body's error object has a status or a code, else it has just failed."""
    words = words_in(reply.body)
    judged = named(words) or FAILED if words.status is None else verdict(words.status, words)
    return refusal(judged, words, reply, now)


def refusal(judged: Verdict, words: Words, reply: Reply, now: float) -> Failure:
    """The failure of a reply that was judged."""
    error_class, code = judged
    return Failure(
        error_class,
        code,
        sentence(words, reply.status),
        retry_after_s=retry_after_s(reply.headers, words.waits, words.message, now),
        status=reply.status,
        request_id=reply.headers.get("x-request-id"),
        final=error_class is ErrorClass.REJECTED,
    )


def failure_without_reply(error: TransportError) -> Failure:
    """The failure that a call without a reply stands for."""
    if isinstance(error, NotSent):
        return Failure(ErrorClass.NOT_SENT, Code.NOT_SENT, str(error))
    if isinstance(error, AnswerTooLarge):
        return Failure(ErrorClass.FAILED, Code.ANSWER_TOO_LARGE, str(error), final=True, spent=True)
    return Failure(ErrorClass.SENT_UNKNOWN, Code.OUTCOME_UNKNOWN, str(error), spent=True)
