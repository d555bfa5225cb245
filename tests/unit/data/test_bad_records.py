"""The list of bad records says what the codec says, so that a wrong list is seen without starting anything."""

from datetime import UTC, datetime

import pytest

from broker.codec import Decoded, NotAJob, Place, decode
from schemas.codes import Code
from tests.data.bad_records import ALL, FINE, NOT_JOBS, REFUSED, BadRecord

PLACE = Place("cluster", "jobs.normal", 0, 7, datetime(2026, 12, 1, 8, tzinfo=UTC))
LATER = {Code.SCHEDULED_TOO_LATE, Code.UNKNOWN_MODEL, Code.REPLY_UNKNOWN, Code.COST_LIMIT, Code.PROVIDER_REJECTED}
"""Codes that need settings, routes, topics, prices or a provider."""


def named(record: BadRecord) -> str:
    return record.name


def decoded(record: BadRecord) -> Decoded | NotAJob:
    headers = [(name, value) for name, value in record.headers]
    return decode(record.value, headers, PLACE)  # type: ignore[arg-type] # a header may have no value


def test_names_and_ids_are_their_own() -> None:
    assert len({record.name for record in ALL}) == len(ALL) >= 25
    assert len({record.key for record in ALL if record.job_id}) == sum(1 for record in ALL if record.job_id)


@pytest.mark.parametrize("record", [record for record in NOT_JOBS if record.first is None], ids=named)
def test_what_is_no_job_has_the_code_of_the_list(record: BadRecord) -> None:
    found = decoded(record)
    assert isinstance(found, NotAJob)
    assert found.code == record.code


@pytest.mark.parametrize("record", REFUSED + FINE, ids=named)
def test_what_is_a_job_has_the_id_and_the_code_of_the_list(record: BadRecord) -> None:
    found = decoded(record)
    assert isinstance(found, Decoded)
    assert found.key == record.key
    refusal = found.parsed.refusal
    expected = None if record.code in LATER else record.code
    assert (refusal.code if refusal else None) == expected


@pytest.mark.parametrize("record", [record for record in NOT_JOBS if record.first is not None], ids=named)
def test_a_conflict_is_another_job_under_the_same_id(record: BadRecord) -> None:
    other, first = decoded(record), decode(record.first, (), PLACE)
    assert isinstance(other, Decoded)
    assert isinstance(first, Decoded)
    assert other.key == first.key
    assert other.digest != first.digest
