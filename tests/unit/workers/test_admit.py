"""May a job run, now and as it is."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.tags import Tagging
from schemas.codes import MEANING, Code
from schemas.result import Status
from tests.builders import BODY, a_ready
from workers.admit import MAX_TAKEOVERS, Admission
from workers.engine.topics import Topics
from workers.guards.chain import Chain
from workers.guards.pii import Pii
from workers.guards.protocol import Action
from workers.outcome import Ended, Postponed

MAIL = [{"role": "user", "content": "write to jane.doe@example.com"}]


async def topics() -> dict[str, int]:
    return {"results": 8, "results.mine": 1}


def admission(action: Action = "flag") -> Admission:
    return Admission(Chain(action, action, [Pii()]), Topics(topics))


async def refusal(action: Action = "flag", **fields: Any) -> Ended:  # noqa: ANN401 as `a_claim`
    with pytest.raises(Ended) as ended:
        await admission(action).admit(a_ready(**fields))
    return ended.value


async def test_a_good_job_runs_as_it_is() -> None:
    ready = a_ready(attempts=2)
    running = await admission().admit(ready)
    assert running.job is ready.parsed.job
    assert (running.attempts, running.calls, running.sent, running.findings) == (2, 0, False, [])


@pytest.mark.parametrize(
    ("fields", "status", "code", "message"),
    [
        ({"cancel": "a typing error"}, Status.CANCELLED, Code.CANCELLED, "a typing error"),
        ({"cancel": ""}, Status.CANCELLED, Code.CANCELLED, "The job was cancelled."),
        ({"takeovers": MAX_TAKEOVERS}, Status.DEAD, Code.WORKERS_LOST, "Ten workers in a row"),
        ({"dedline": "x"}, Status.REJECTED, Code.UNKNOWN_FIELD, "dedline: did you mean deadline?"),
        (
            {"called": True, "execution": "at_most_once"},
            Status.FAILED,
            Code.OUTCOME_UNKNOWN,
            "The call was cut after sending",
        ),
        ({"reply_to": "results.nobody"}, Status.REJECTED, Code.REPLY_UNKNOWN, "reply_to: there is no results.nobody; "),
        (
            {"reply_partition": 99},
            Status.REJECTED,
            Code.REPLY_UNKNOWN,
            "reply_to: there is no results, partition 99; ",
        ),
    ],
)
async def test_what_cannot_run_ends_with_its_code(
    fields: dict[str, Any], status: Status, code: Code, message: str
) -> None:
    ended = await refusal(**fields)
    assert (ended.status, ended.code, ended.message[: len(message)]) == (status, code, message)


async def test_one_takeover_less_runs() -> None:
    assert await admission().admit(a_ready(takeovers=MAX_TAKEOVERS - 1))


async def test_a_call_that_may_have_started_is_repeated_where_that_does_no_harm() -> None:
    assert await admission().admit(a_ready(called=True))


async def test_a_call_that_must_not_be_repeated_and_was_not_made_is_made() -> None:
    assert await admission().admit(a_ready(execution="at_most_once"))


@pytest.mark.parametrize(
    ("last_failure", "code"),
    [(None, Code.EXPIRED), ("not_sent", Code.NOT_SENT), ("a newer worker's", Code.EXPIRED)],
)
async def test_after_its_deadline_a_job_expires_with_what_stood_in_its_way(
    last_failure: str | None, code: Code
) -> None:
    ready = a_ready(last_failure=last_failure)
    ready.deadline = (datetime.now(UTC) - timedelta(milliseconds=1)).timestamp()
    with pytest.raises(Ended) as ended:
        await admission().admit(ready)
    assert (ended.value.status, ended.value.code) == (Status.EXPIRED, code)
    assert ended.value.message.endswith(MEANING[code])


async def test_a_cancel_goes_before_everything_else() -> None:
    ready = a_ready(cancel="no", takeovers=99, dedline="x")
    ready.deadline = (datetime.now(UTC) - timedelta(days=1)).timestamp()
    with pytest.raises(Ended) as ended:
        await admission().admit(ready)
    assert ended.value.status == Status.CANCELLED


async def test_a_scheduled_job_waits() -> None:
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    with pytest.raises(Postponed) as postponed:
        await admission().admit(a_ready(not_before=later.isoformat()))
    assert (postponed.value.until, postponed.value.why) == (later, "scheduled")


async def test_a_stream_is_asked_for_whole() -> None:
    ready = a_ready(body={**BODY, "stream": True, "stream_options": {"include_usage": True}})
    running = await admission().admit(ready)
    assert running.job.body == BODY
    assert ready.parsed.job is not None
    assert ready.parsed.job.body["stream"] is True


async def test_a_guard_that_flags_leaves_the_job_as_it_is() -> None:
    running = await admission("flag").admit(a_ready(body={**BODY, "messages": MAIL}))
    assert running.job.body["messages"] == MAIL
    assert running.findings == [{"guard": "pii", "direction": "input", "action": "flag", "found": {"email": 1}}]


async def test_a_guard_that_redacts_changes_what_is_sent_but_not_what_is_kept() -> None:
    ready = a_ready(body={**BODY, "messages": MAIL})
    running = await admission("redact").admit(ready)
    assert "jane.doe" not in str(running.job.body)
    assert b"jane.doe" in ready.claim.payload


async def test_a_guard_that_blocks_ends_the_job() -> None:
    ended = await refusal("block", body={**BODY, "messages": MAIL})
    assert (ended.status, ended.code) == (Status.REJECTED, Code.BLOCKED)
    assert ended.message.startswith("pii found {'email': 1}; ")


async def test_a_tag_that_the_tenant_may_not_use_is_refused_with_what_it_may() -> None:
    tagging = Tagging({"acme": {"team": ("red",)}})
    stage = Admission(Chain("flag", "flag", [Pii()]), Topics(topics), tagging)
    with pytest.raises(Ended) as ended:
        await stage.admit(a_ready(tenant="acme", tags={"team": "blue"}))
    assert (ended.value.status, ended.value.code) == (Status.REJECTED, Code.TAG_NOT_ALLOWED)
    assert "allowed are red" in ended.value.message
    running = await stage.admit(a_ready(tenant="acme", tags={"team": "red"}))
    assert running.job.tags == {"team": "red"}
