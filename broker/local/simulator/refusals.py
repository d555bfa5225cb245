"""The errors that OpenAI answers with: status, sentence, type and code, as its JSON."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import orjson


class Refused(Exception):  # noqa: N818 - what happened to a request, not a fault of this program
    """A request that is answered with an error of OpenAI's shape instead of an answer."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> bytes:
        """The error as OpenAI's JSON."""
        return error_body(self.message, "invalid_request_error", self.param, self.code)


class Planned(NamedTuple):
    """What a planned error answers."""

    status: int
    message: str
    type: str
    code: str | None


_OVERLOADED = "The engine is currently overloaded, please try again later."
_SERVER = "The server had an error while processing your request. Sorry about that!"
NO_QUOTA = "insufficient_quota"

PLANNED: Mapping[str, Planned] = MappingProxyType(
    {
        "400": Planned(400, "The request was refused as invalid, as planned.", "invalid_request_error", None),
        "401": Planned(401, "Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
        "402": Planned(402, "Payment is required, as planned.", "billing_error", "billing_not_active"),
        "403": Planned(403, "You are not allowed to use this model.", "invalid_request_error", None),
        "404": Planned(404, "The model does not exist, as planned.", "invalid_request_error", "model_not_found"),
        "408": Planned(408, "The request timed out.", "server_error", None),
        "409": Planned(409, "The request conflicts with another one.", "invalid_request_error", None),
        "413": Planned(413, "The request is too large.", "invalid_request_error", None),
        "422": Planned(422, "The request could not be processed.", "invalid_request_error", None),
        "429": Planned(429, "Rate limit reached, as planned.", "requests", "rate_limit_exceeded"),
        "500": Planned(500, _SERVER, "server_error", None),
        "502": Planned(502, "Bad gateway.", "server_error", None),
        "503": Planned(503, _OVERLOADED, "service_unavailable", None),
        "504": Planned(504, "Gateway timeout.", "server_error", None),
        "529": Planned(529, "Overloaded", "overloaded_error", None),
        NO_QUOTA: Planned(
            429, "You exceeded your current quota, please check your plan and billing details.", NO_QUOTA, NO_QUOTA
        ),
    }
)
"""The error answers that a behaviour may ask for, by their names there."""

THROTTLING = frozenset({"429", "503", "529"})


def error_body(message: str, kind: str, param: str | None, code: str | None) -> bytes:
    """An error as OpenAI writes it."""
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def planned_body(planned: Planned) -> bytes:
    """A planned error as OpenAI writes it."""
    return error_body(planned.message, planned.type, None, planned.code)
