"""A provider that holds each call for `HOLD_S` seconds, answers like the simulator, and counts; granian serves it over HTTP/2 and HTTP/1.1.

It runs in one process, so plain counts do. `GET` of any path gives them.
"""

import asyncio
import json
import os
from typing import Any

HOLD_S = float(os.environ.get("HOLD_S", "0"))
HEADERS = [("content-type", "application/json")]
MESSAGE = {"role": "assistant", "content": "word " * 40, "refusal": None}
ANSWER = json.dumps(
    {
        "id": "chatcmpl-held",
        "object": "chat.completion",
        "created": 1_767_225_600,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": MESSAGE, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 250, "completion_tokens": 40, "total_tokens": 290},
        "service_tier": "default",
    }
).encode()
COUNTS = {"open": 0, "calls": 0, "answered": 0, "over_http2": 0}


async def app(scope: Any, protocol: Any) -> None:  # noqa: ANN401 granian's, which is not installed here
    """One request, in granian's own interface."""
    if scope.method == "GET":
        protocol.response_bytes(200, HEADERS, json.dumps(COUNTS).encode())
        return
    await protocol()
    COUNTS["calls"] += 1
    COUNTS["over_http2"] += scope.http_version == "2"
    COUNTS["open"] += 1
    try:
        await asyncio.sleep(HOLD_S)
    finally:
        COUNTS["open"] -= 1
    protocol.response_bytes(200, HEADERS, ANSWER)
    COUNTS["answered"] += 1
