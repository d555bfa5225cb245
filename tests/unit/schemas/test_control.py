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
        {"action": "resume", "everything": True},
        {"action": "pause", "batch_id": "b", "tenant": "acme"},
        {"action": "cancel", "batch_id": "b"},
        {"action": "rerun", "job_id": "a"},
    ],
)
def test_what_is_complete_is_read(message: dict[str, object]) -> None:
    control = Control.model_validate(message)
    assert control.action is Action(str(message["action"]))


@pytest.mark.parametrize(
    ("message", "missing"),
    [
        ({"action": "cancel"}, "cancel needs a job_id"),
        ({"action": "cancel", "batch_id": "b", "job_id": "a"}, "cancel needs a job_id or a batch_id, not both"),
        ({"action": "cancel", "tenant": "acme"}, "cancel needs a job_id or a batch_id, not both"),
        ({"action": "rerun", "batch_id": "b"}, "rerun needs a job_id and no batch_id"),
        ({"action": "pause"}, "pause needs a batch_id, a tenant or everything"),
        ({"action": "pause", "tenant": "acme", "everything": True}, "pause needs a batch_id, a tenant or everything"),
        ({"action": "pause", "job_id": "a"}, "pause needs a batch_id, a tenant or everything"),
        ({"action": "cancel", "job_id": "a", "total": 3}, "total belongs to a seal"),
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


@pytest.mark.parametrize(
    ("message", "key", "scope"),
    [
        ({"action": "cancel", "job_id": "a"}, "a", "default"),
        ({"action": "pause", "batch_id": "b", "tenant": "acme"}, "b", "acme/b"),
        ({"action": "pause", "tenant": "acme"}, "acme", "acme"),
        ({"action": "pause", "everything": True}, "*", "*"),
    ],
)
def test_messages_about_the_same_have_the_same_key(message: dict[str, object], key: str, scope: str) -> None:
    control = Control.model_validate(message)
    assert (control.key, control.scope) == (key, scope)
