"""A provider with the simplest wire there is, for tests of what stands above it and as the second of the contract suite."""

from dataclasses import replace

import orjson

from schemas.codes import Code
from workers.providers.documents import parse_object
from workers.providers.errors import failure_of, failure_within
from workers.providers.protocol import Answer, CannotBuild, ErrorClass, Failure, Request, Tokens
from workers.transports.protocol import Call, Reply


class MemoryProvider:
    """Calls `memory://provider/<operation>`; a good reply is `{"output": {...}, "tokens": [five counts]}`."""

    operations = frozenset({"chat", "embeddings", "responses", "moderations"})

    def build(self, request: Request, timeout_s: float) -> Call:
        """Write the body with the target's model; see `Provider.build`."""
        if request.operation not in self.operations:
            raise CannotBuild(Code.UNSUPPORTED_OPERATION, f"{request.operation} is not an operation.")
        try:
            content = orjson.dumps({**request.body, "model": request.model})
        except TypeError as error:
            raise CannotBuild(Code.INVALID_JOB, f"The body cannot be written as JSON: {error}.") from error
        headers = (("authorization", "Bearer memory"), ("x-client-request-id", request.request_id))
        return Call(f"memory://provider/{request.operation}", headers, content, timeout_s)

    def read(self, operation: str, reply: Reply, now: float) -> Answer | Failure:  # noqa: ARG002 - one wire for all
        """Take output and counts; see `Provider.read`."""
        if reply.status != 200:
            return failure_of(reply, now)
        try:
            wire, storable = parse_object(reply.body)
        except ValueError:
            return malformed(reply)
        tokens = tokens_of(wire.get("tokens"))
        if wire.get("error"):
            return replace(failure_within(reply, now), usage=tokens)
        output = wire.get("output")
        if not isinstance(output, dict) or (tokens is None and "tokens" in wire):
            return malformed(reply)
        content = orjson.dumps(output) if storable else reply.body
        request_id = reply.headers.get("x-request-id")
        tier = wire.get("service_tier")
        tier = tier if isinstance(tier, str) else None
        return Answer(content, output, storable, tokens, "memory", "memory-1", request_id, ("stop",), tier)


def tokens_of(counts: object) -> Tokens | None:
    """The five counts, or None where they are not five integers of at least zero."""
    if not isinstance(counts, list) or len(counts) != len(Tokens._fields):
        return None
    if not all(type(count) is int and 0 <= count <= 10**9 for count in counts):
        return None
    return Tokens(*counts)


def malformed(reply: Reply) -> Failure:
    """The failure of an answer that cannot be read."""
    said = "The provider's answer could not be read."
    return Failure(ErrorClass.FAILED, Code.ANSWER_MALFORMED, said, status=reply.status, spent=True)
