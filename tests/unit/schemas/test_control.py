"""A control message says what it means, or is refused."""

import pytest
from pydantic import ValidationError

from schemas.control import Action, Control


@pytest.mark.parametrize(
    "message",
    [
        {"action": "cancel", "job_id": "a"},
        {"action": "reply", "job_id": "a", "reply_to": "results"},
        {"action": "seal", "batch_id": "b", "total": 0},
        {"action": "pause", "tenant": "acme"},
    ],
)
def test_what_is_complete_is_read(message: dict[str, object]) -> None:
    control = Control.model_validate(message)
    assert control.action is Action(str(message["action"]))


@pytest.mark.parametrize(
    ("message", "missing"),
    [
        ({"action": "cancel"}, "cancel needs a job_id"),
        ({"action": "cancel", "batch_id": "b"}, "cancel needs a job_id"),
        ({"action": "reply", "job_id": "a"}, "reply needs a reply_to"),
        ({"action": "reply", "reply_to": "results"}, "reply needs a job_id"),
        ({"action": "seal", "batch_id": "b"}, "seal needs a batch_id and a total"),
        ({"action": "explode"}, "must be one of cancel, pause, resume, rerun, seal, reply"),
        ({}, "Field required"),
    ],
)
def test_what_is_not_is_refused_with_what_is_missing(message: dict[str, object], missing: str) -> None:
    with pytest.raises(ValidationError, match=missing):
        Control.model_validate(message)
