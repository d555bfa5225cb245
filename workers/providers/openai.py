"""Everything that speaks OpenAI's API: an address and a key."""

from dataclasses import replace
from typing import Any

from pydantic import SecretStr

from broker.json_values import written
from schemas.codes import Code
from workers.providers.documents import parse_object
from workers.providers.errors import failure_of, failure_within
from workers.providers.protocol import Answer, CannotBuild, ErrorClass, Failure, Request, Tokens
from workers.providers.usage import read_usage
from workers.transports.protocol import Call, Reply

PATHS = {
    "chat": "/chat/completions",
    "embeddings": "/embeddings",
    "responses": "/responses",
    "moderations": "/moderations",
}
CONTENT = {"chat": "choices", "embeddings": "data", "responses": "output", "moderations": "results"}
"""The list without which an answer of the operation is none."""
MAY_BE_EMPTY = frozenset({"responses"})
"""A response that was cut at its limit while it still reasoned has no output, and was paid for."""
ENDED = frozenset({"completed", "incomplete"})


class OpenAI:
    """A provider at `base_url` (with its version, such as `https://api.openai.com/v1`); without a key none is sent."""

    operations = frozenset(PATHS)

    def __init__(
        self, base_url: str, api_key: SecretStr, *, service_tier: str | None = None, http2: bool = False
    ) -> None:
        base_url = base_url.rstrip("/")
        self._urls = {operation: base_url + path for operation, path in PATHS.items()}
        self._key = api_key
        self._service_tier = service_tier
        self._http2 = http2
        secret = api_key.get_secret_value()
        credential = (("authorization", f"Bearer {secret}"),) if secret else ()
        self._headers = (("content-type", "application/json"), *credential)

    def build(self, request: Request, timeout_s: float) -> Call:
        """Put the request on the wire; see `Provider.build`."""
        url = self._urls.get(request.operation)
        if url is None:
            raise CannotBuild(
                Code.UNSUPPORTED_OPERATION, f"{request.operation} is not an operation of OpenAI's API here."
            )
        body = {**request.body, "model": request.model}
        if self._service_tier and request.operation in {"chat", "responses"}:
            body.setdefault("service_tier", self._service_tier)
        try:
            content = written(body)
        except TypeError as error:
            raise CannotBuild(Code.INVALID_JOB, f"The body cannot be written as JSON: {error}.") from error
        headers = (*self._headers, ("x-client-request-id", request.request_id))
        return Call(url, headers, content, timeout_s, self._http2)

    def read(self, operation: str, reply: Reply, now: float) -> Answer | Failure:
        """Read the reply; see `Provider.read`."""
        if not 200 <= reply.status < 300:
            return failure_of(self._masked(reply), now)
        try:
            document, storable = parse_object(reply.body)
            usage = read_usage(document.get("usage"))
        except ValueError as error:
            return malformed(reply, str(error))
        lack = missing(operation, document)
        if lack is None:
            return answer_of(operation, document, reply, (storable, usage))
        if document.get("error"):
            return replace(failure_within(self._masked(reply), now), usage=usage)
        return malformed(reply, lack, usage)

    def _masked(self, reply: Reply) -> Reply:
        secret = self._key.get_secret_value().encode()
        return reply._replace(body=reply.body.replace(secret, b"***")) if secret else reply


def answer_of(operation: str, document: dict[str, Any], reply: Reply, read: tuple[bool, Tokens | None]) -> Answer:
    """The answer of a document that lacks nothing; `read` is whether it is storable, and its usage."""
    storable, usage = read
    return Answer(
        reply.body,
        document,
        storable,
        usage,
        text(document.get("model")),
        text(document.get("id")),
        reply.headers.get("x-request-id"),
        finish_reasons(operation, document),
        text(document.get("service_tier")),
    )


def text(value: object) -> str | None:
    """The value if it is a string that a ledger row holds: printable, and cut to 256 characters."""
    return value[:256] if isinstance(value, str) and value.isprintable() else None


def malformed(reply: Reply, why: str, usage: Tokens | None = None) -> Failure:
    """The failure of an answer that cannot be read: it was paid for, most likely."""
    return Failure(
        ErrorClass.FAILED,
        Code.ANSWER_MALFORMED,
        f"The provider's answer cannot be used: {why}.",
        status=reply.status,
        usage=usage,
        request_id=reply.headers.get("x-request-id"),
        spent=usage is None,
    )


def missing(operation: str, document: dict[str, Any]) -> str | None:
    """What the answer lacks to be one, in words, or None."""
    if operation == "responses" and text(document.get("status", "completed")) not in ENDED:
        return f"its status is {text(document['status'])!r}"
    content = document.get(CONTENT[operation])
    if not isinstance(content, list) or not (content or operation in MAY_BE_EMPTY):
        return f"there is no {CONTENT[operation]}"
    return None if all(isinstance(part, dict) for part in content) else f"its {CONTENT[operation]} are no objects"


def finish_reasons(operation: str, document: dict[str, Any]) -> tuple[str, ...]:
    """Why the model stopped, per choice; for responses, the reason of an incomplete one, else the status."""
    if operation == "chat":
        reasons = [text(choice.get("finish_reason")) for choice in document["choices"]]
        return tuple([reason for reason in reasons if reason is not None])
    if operation != "responses":
        return ()
    details = document.get("incomplete_details")
    reason = text(details.get("reason") if isinstance(details, dict) else document.get("status"))
    return () if reason is None else (reason,)
