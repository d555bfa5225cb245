"""A job's envelope is strict; its body stays what it was."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from schemas.job import Job, Operation, instant

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def job(**fields: object) -> Job:
    return Job.model_validate({"body": BODY, **fields})


def test_the_smallest_job_is_a_body() -> None:
    smallest = job()
    assert (smallest.tenant, smallest.operation, smallest.reply_to) == ("default", Operation.CHAT, "results")
    assert (smallest.execution, smallest.max_attempts, smallest.id) == ("at_least_once", 5, None)
    assert smallest.model == "m"


def test_a_body_is_passed_on_untouched() -> None:
    body = {"model": "m", "a_field_of_the_future": {"deep": [1, 2.5, None, "x"]}}
    assert job(body=body).body == body


@pytest.mark.parametrize("body", [{}, {"model": None}, {"model": 4}])
def test_a_body_that_names_no_model_has_none(body: dict[str, object]) -> None:
    assert job(body=body).model == ""


@pytest.mark.parametrize("field", ["dedline", "priority", "model", "ID"])
def test_an_unknown_field_is_refused(field: str) -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        job(**{field: "x"})


@pytest.mark.parametrize("id_", ["a", "a" * 256, "row 7/{x}", "~"])
def test_an_id_is_printable_ascii(id_: str) -> None:
    assert job(id=id_).id == id_


@pytest.mark.parametrize("id_", ["", "a" * 257, "a\n", "a\x7f", "größe", 7])
def test_another_id_is_refused(id_: object) -> None:
    with pytest.raises(ValidationError):
        job(id=id_)


@pytest.mark.parametrize("tenant", ["a", "acme", "0-a_b.c", "a" * 63])
def test_a_tenant_is_a_lower_case_name(tenant: str) -> None:
    assert job(tenant=tenant).tenant == tenant


@pytest.mark.parametrize("tenant", ["", "Acme", "a/b", "-a", "a" * 64, "acme\n", 7, None])
def test_another_tenant_is_refused(tenant: object) -> None:
    with pytest.raises(ValidationError):
        job(tenant=tenant)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-12-01T08:00:00Z", datetime(2026, 12, 1, 8, tzinfo=UTC)),
        ("2026-12-01t08:00:00z", datetime(2026, 12, 1, 8, tzinfo=UTC)),
        ("2026-12-01 09:00:00.5+01:00", datetime(2026, 12, 1, 8, 0, 0, 500_000, UTC)),
        ("2026-12-01T08:00:00.123456789Z", datetime(2026, 12, 1, 8, 0, 0, 123_456, UTC)),
    ],
)
def test_an_instant_is_rfc_3339(text: str, moment: datetime) -> None:
    assert instant(text) == moment


@pytest.mark.parametrize(
    "value",
    [
        "2026-12-01T08:00:00",
        "2026-12-01",
        "tomorrow",
        "2026-13-01T08:00:00Z",
        "2026-12-01T25:00:00Z",
        1_900_000_000,
        "",
    ],
)
def test_what_is_no_instant_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        job(deadline=value)


@pytest.mark.parametrize("number", [0, 21, "5", 5.0, True, None])
def test_the_number_of_attempts_is_an_integer_of_1_to_20(number: object) -> None:
    with pytest.raises(ValidationError):
        job(max_attempts=number)
