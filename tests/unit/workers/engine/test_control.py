"""What a control record asks for, which records ask for nothing, and what is done."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.codec import NotAJob, Place
from schemas.codes import MEANING, Code
from schemas.control import Action, Control
from tests.virtual_time import run
from workers.engine.control import Controller, read_control
from workers.engine.dead_letters import DeadLetters
from workers.engine.halts import Halting
from workers.engine.homing import Homing
from workers.engine.inlet import Inlet
from workers.engine.record import Record
from workers.engine.topics import Topics
from workers.stores.control import HaltKind
from workers.stores.memory import MemoryDatabase, MemoryStore
from workers.stores.protocol import Address, Finish, NewJob


@pytest.mark.parametrize(
    ("value", "headers", "code"),
    [
        (None, (), Code.UNDECODABLE),
        (b"", (), Code.UNDECODABLE),
        (b"cancel", (), Code.UNDECODABLE),
        (b"[]", (), Code.INVALID_CONTROL),
        (b'{"action": "explode"}', (), Code.INVALID_CONTROL),
        (b'{"action": "cancel"}', (), Code.INVALID_CONTROL),
        (b'{"action": "cancel", "job_id": "a", "when": "now"}', (), Code.INVALID_CONTROL),
        (b'{"action": "pause"}', (), Code.INVALID_CONTROL),
        (b'{"action": "cancel", "job_id": "a", "max_errors": 0}', (), Code.INVALID_CONTROL),
        (b'{"action": "seal", "batch_id": "b", "total": 1, "max_cost_usd": 5}', (), Code.INVALID_CONTROL),
        (b'{"action": "seal", "batch_id": "b", "total": 9223372036854775807}', (), Code.INVALID_CONTROL),
        (
            b'{"action": "seal", "batch_id": "b", "total": 1, "max_errors": 9223372036854775807}',
            (),
            Code.INVALID_CONTROL,
        ),
        (b'{"action": "cancel", "job_id": "a"}', [("ce_type", b"aibroker.job.v1")], Code.UNKNOWN_VERSION),
    ],
)
def test_what_asks_for_nothing_has_a_code(value: bytes | None, headers: Any, code: Code) -> None:  # noqa: ANN401 headers of any kind
    read = read_control(value, headers)
    assert isinstance(read, NotAJob)
    assert read.code == code


@pytest.mark.parametrize(
    "headers", [(), [("ce_type", b"aibroker.control.v1")], [("ce_type", b"")], [("ce_type", None)], [("x", None)]]
)
def test_headers_are_optional(headers: Any) -> None:  # noqa: ANN401 headers of any kind
    read = read_control(b'{"action": "cancel", "job_id": "a"}', headers)
    assert read == Control(action=Action.CANCEL, job_id="a")


@given(st.binary(max_size=100), st.lists(st.tuples(st.just("ce_type"), st.none() | st.binary(max_size=30)), max_size=2))
def test_whatever_comes_is_read_or_is_not(value: bytes, headers: Any) -> None:  # noqa: ANN401 headers of any kind
    read_control(value, headers)


# -- what is done --------------------------------------------------------------------------------------------------------


class Letters:
    """Stands where dead letters are kept."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    async def keep(self, record: Record, why: NotAJob) -> None:
        """Keep why."""
        del record
        assert why.message == MEANING[why.code] or why.code not in {Code.ALREADY_ENDED, Code.TOTAL_TOO_SMALL}
        self.codes.append(why.code)


@dataclass
class Desk:
    """A controller on a store in memory, and what it hands on."""

    letters: Letters = field(default_factory=Letters)
    hurried: list[str] = field(default_factory=list)
    stirred: int = 0
    sealed: int = 0
    offset: int = 0

    def __post_init__(self) -> None:
        self.store = MemoryStore(MemoryDatabase(), "us")
        letters, nothing = cast("DeadLetters", self.letters), cast("Any", None)
        inlet = Inlet(self.store, nothing, letters, Topics(self._topics))
        halting = cast("Halting", self)
        self.controller = Controller(inlet, cast("Homing", self), dispatcher=nothing, halting=halting, sealed=self.look)

    async def moved(self, record: Record, key: str) -> bool:
        """All messages lie where they belong."""
        return not (record and key)

    def hurry(self, scope: str) -> None:
        """Keep what documents have to be told of."""
        self.hurried.append(scope)

    def stir(self) -> None:
        """Count."""
        self.stirred += 1

    def look(self) -> None:
        """Count."""
        self.sealed += 1

    async def _topics(self) -> dict[str, int]:
        return {"results": 8}

    async def asked(self, message: bytes, offset: int | None = None) -> None:
        """Handle one message."""
        self.offset = self.offset + 1 if offset is None else offset
        place = Place("", "jobs.control", 0, self.offset, datetime.now(UTC))
        await self.controller.handle(Record(place, None, message, ()))

    async def job(self, name: str, state: str | None = None) -> None:
        """A job that runs, or has ended so."""
        now = datetime.now(UTC)
        new = NewJob(
            f"default/{name}", name, "default", name, "normal", b"{}", b"", Address("results"), now, batch_id="b"
        )
        await self.store.insert([new])
        if state is not None:
            result = {"status": state}
            await self.store.finish(
                [Finish(new.id, 1, state, result, None, keep_payload=state != "succeeded")], "token"
            )


def test_what_cannot_be_done_is_kept_with_its_code() -> None:
    async def life() -> list[str]:
        desk = Desk()
        for name, state in (("runs", None), ("failed", "failed"), ("done", "succeeded")):
            await desk.job(name, state)
        for message in (
            b'{"action": "cancel", "job_id": "done"}',
            b'{"action": "rerun", "job_id": "done"}',
            b'{"action": "rerun", "job_id": "runs"}',
            b'{"action": "rerun", "job_id": "nobody"}',
            b'{"action": "rerun", "job_id": "failed", "tenant": "acme"}',
            b'{"action": "seal", "batch_id": "b", "total": 2}',
            b'{"action": "seal", "batch_id": "b", "total": 3, "reply_to": "results.nowhere"}',
            b'{"action": "explode"}',
            b"cancel everything",
        ):
            await desk.asked(message)
        return desk.letters.codes

    assert run(life()) == [
        Code.ALREADY_ENDED,
        Code.ALREADY_SUCCEEDED,
        Code.NOT_ENDED,
        Code.UNKNOWN_JOB,
        Code.UNKNOWN_JOB,
        Code.TOTAL_TOO_SMALL,
        Code.REPLY_UNKNOWN,
        Code.INVALID_CONTROL,
        Code.UNDECODABLE,
    ]


def test_what_is_asked_of_a_scope_is_kept_and_later_records_win() -> None:
    async def life() -> tuple[Desk, dict[str, HaltKind]]:
        desk = Desk()
        await desk.asked(b'{"action": "pause", "everything": true}', 5)
        await desk.asked(b'{"action": "pause", "tenant": "default"}', 5)
        await desk.asked(b'{"action": "pause", "batch_id": "b"}', 5)
        await desk.asked(b'{"action": "cancel", "batch_id": "c", "reason": "a mistake"}', 5)
        await desk.asked(b'{"action": "resume", "everything": true}', 4)
        await desk.asked(b'{"action": "resume", "tenant": "default"}', 6)
        return desk, {halt.scope: halt.kind for halt in await desk.store.halts()}

    desk, halts = run(life())
    assert halts == {"*": HaltKind.PAUSED, "default/b": HaltKind.PAUSED, "default/c": HaltKind.CANCELLED}
    assert desk.store.database.halts["default/c"]["reason"] == "the batch c was cancelled: a mistake"
    assert set(desk.hurried) == {"*", "default", "default/b", "default/c"}
    assert desk.letters.codes == []


def test_a_record_that_comes_twice_does_its_work_once_and_in_silence() -> None:
    async def life() -> tuple[list[str], int]:
        desk = Desk()
        await desk.job("failed", "failed")
        desk.store.database.jobs["default/failed"].pop("outbox")
        for _ in range(2):
            await desk.asked(b'{"action": "rerun", "job_id": "failed"}', 7)
        return desk.letters.codes, desk.store.database.jobs["default/failed"]["generation"]

    assert run(life()) == ([], 2)


def test_a_wish_to_run_again_has_it_looked_more_often_whether_results_are_out() -> None:
    async def life() -> Desk:
        desk = Desk()
        await desk.job("failed", "failed")
        await desk.asked(b'{"action": "rerun", "job_id": "failed"}')
        return desk

    assert run(life()).stirred == 1


def test_a_seal_keeps_its_limits_and_is_looked_at_at_once() -> None:
    async def life() -> Any:  # noqa: ANN401 what is stored
        desk = Desk()
        await desk.asked(
            b'{"action": "seal", "batch_id": "b", "total": 3, "max_cost_usd": "0.5", "max_errors": 1, "max_error_rate": 0.25}'
        )
        assert desk.sealed == 1
        return desk.store.database.batches["default/b"]["seal"]

    seal = run(life())
    assert (seal.total, seal.max_cost_usd, seal.max_errors, seal.max_error_rate) == (3, Decimal("0.5"), 1, 0.25)
