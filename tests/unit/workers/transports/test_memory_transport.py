"""The transport without a network behaves as one with."""

import pytest

from workers.transports.errors import AnswerTooLarge, NotSent, SentUnknown
from workers.transports.memory import MemoryTransport
from workers.transports.protocol import Call, Reply

CALL = Call("http://provider/v1", (), b"{}", 1.0)


async def test_it_replies_with_what_the_function_makes_of_the_call() -> None:
    transport = MemoryTransport(lambda call: Reply(200, {}, call.body))
    assert (await transport.send(CALL)).body == b"{}"
    assert transport.calls == [CALL]


async def test_the_function_may_wait() -> None:
    async def answer(call: Call) -> Reply:
        return Reply(200, {}, call.body)

    assert (await MemoryTransport(answer).send(CALL)).status == 200


async def test_an_error_that_the_function_returns_is_raised() -> None:
    with pytest.raises(SentUnknown, match="cut"):
        await MemoryTransport(lambda _: SentUnknown("cut")).send(CALL)


async def test_an_answer_over_the_limit_is_not_kept() -> None:
    transport = MemoryTransport(lambda _: Reply(200, {}, b"1234"), answer_limit_bytes=3)
    with pytest.raises(AnswerTooLarge):
        await transport.send(CALL)


async def test_a_closed_one_sends_nothing() -> None:
    transport = MemoryTransport(lambda _: Reply(200, {}, b""))
    await transport.aclose()
    with pytest.raises(NotSent):
        await transport.send(CALL)
    assert transport.calls == []
