"""What becomes of a request, without a line to send it over."""

import json
from typing import Any

import pytest

from broker.local.simulator.asks import read_ask
from broker.local.simulator.behaviour import read_behaviour
from broker.local.simulator.decisions import Charge, Decision, Desk, Request
from broker.local.simulator.refusals import Refused
from broker.local.simulator.usage import CHAT, EMBEDDINGS, MODERATIONS, RESPONSES, text_tokens

MESSAGES = [{"role": "user", "content": "How much is it?"}]


def chat(**more: object) -> bytes:
    return json.dumps({"model": "gpt-4o-mini", "messages": MESSAGES, **more}).encode()


def desk(**default: object) -> Desk:
    return Desk(read_behaviour(json.dumps({"default": default}).encode()))


def decide(at: Desk, content: bytes | None = None, *, client_request_id: str | None = None, key: str = "k") -> Decision:
    request = Request("id-1", key, client_request_id, content or chat())
    return at.decide(request, read_ask(CHAT, request.content), 0.0)


def answer(decision: Decision) -> dict[str, Any]:
    return json.loads(b"".join(decision.delivery.pieces).partition(b"\r\n\r\n")[2])


def test_the_first_calls_of_each_job_fail_whatever_attempt_they_are() -> None:
    at = desk(fail_first={"calls": 2, "fault": "503"})
    ids = ["a/1/1.1", "a/1/1.2", "b/1/1.1", "a/1/2.1", "a/2/1.1"]
    assert [decide(at, client_request_id=i).status for i in ids] == [503, 503, 503, 200, 503]


def test_without_a_request_id_the_body_names_the_job() -> None:
    at = desk(fail_first={"calls": 1, "fault": "500"})
    assert [decide(at, content).status for content in (chat(), chat(), chat(user="u"))] == [500, 200, 500]


def test_faults_strike_the_share_of_calls_that_was_asked_for() -> None:
    at = desk(faults={"500": 0.2, "stall": 0.3})
    struck = [decide(at).fault for _ in range(4000)]
    assert struck.count("500") == pytest.approx(800, rel=0.15)
    assert struck.count("stall") == pytest.approx(1200, rel=0.15)


def test_the_same_seed_draws_the_same() -> None:
    def drawn() -> list[tuple[float, Charge | None]]:
        at = desk(answer={"output_tokens": [1, 1000]}, latency={"kind": "lognormal", "median_ms": 50})
        return [(decision.latency_s, decision.charge) for decision in (decide(at) for _ in range(20))]

    assert drawn() == drawn()
    assert len(set(drawn())) > 10


def test_asking_again_counts_the_same_tokens() -> None:
    assert decide(desk()).charge == decide(desk()).charge


def test_an_answer_never_exceeds_the_requests_limit() -> None:
    decision = decide(desk(answer={"output_tokens": 80, "reasoning_tokens": 30}), chat(max_tokens=100))
    usage = answer(decision)["usage"]
    assert answer(decision)["choices"][0]["finish_reason"] == "length"
    assert (usage["completion_tokens"], usage["completion_tokens_details"]["reasoning_tokens"]) == (100, 30)


def test_cached_tokens_are_at_most_the_prompt() -> None:
    counts = decide(desk(answer={"cached_tokens": 10_000})).charge.counts
    assert counts.cached == counts.prompt


def test_only_answers_that_can_be_read_are_charged() -> None:
    for fault in ("500", "stall", "cut_before", "cut_middle", "length_over", "length_under", "malformed", "garbage"):
        assert decide(desk(faults={fault: 1})).charge is None, fault
    assert decide(desk(faults={"drip": 1})).charge == decide(desk()).charge


def test_limits_are_kept_for_each_key_and_model() -> None:
    at = desk(limits={"rpm": 1})
    assert [decide(at, key=key).status for key in ("a", "a", "b")] == [200, 429, 200]
    assert decide(at, chat(model="gpt-4o"), key="a").status == 200


def test_a_key_without_quota_gets_openais_429() -> None:
    at = Desk(read_behaviour(b"keys: {no_quota: [poor]}"))
    decision = decide(at, key="poor")
    assert (decision.status, answer(decision)["error"]["code"]) == (429, "insufficient_quota")


def test_an_unknown_model_is_not_found_unless_any_is_allowed() -> None:
    with pytest.raises(Refused) as refused:
        decide(desk(), chat(model="nope"))
    assert (refused.value.status, refused.value.code) == (404, "model_not_found")
    assert decide(Desk(read_behaviour(b"any_model: true")), chat(model="nope")).charge.pico == 0


def test_a_price_of_its_own_replaces_the_tables() -> None:
    price = {"input": 0, "cached_input": 0, "output": 7}
    assert decide(desk(price=price, answer={"output_tokens": 6})).charge.pico == 42


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, b"{", None),
        (CHAT, b"[]", None),
        (CHAT, b'{"messages": []}', "model"),
        (CHAT, b'{"model": "m", "messages": []}', "messages"),
        (CHAT, b'{"model": "m", "messages": ["x"]}', "messages[0]"),
        (CHAT, b'{"model": "m", "messages": [{"content": "x"}]}', "messages[0].role"),
        (CHAT, b'{"model": "m", "messages": [{"role": "user", "content": 5}]}', "messages[0].content"),
        (CHAT, b'{"model": "m", "messages": [{"role": "user", "content": [5]}]}', "input"),
        (CHAT, b'{"model": "m", "messages": [{"role": "user"}], "max_tokens": -1}', "max_tokens"),
        (EMBEDDINGS, b'{"model": "m", "input": []}', "input"),
        (EMBEDDINGS, b'{"model": "m", "input": ["a", ""]}', "input"),
        (RESPONSES, b'{"model": "m"}', "input"),
        (MODERATIONS, b'{"input": 5}', "input"),
    ],
)
def test_what_openai_would_refuse_is_refused_with_the_parameter(path: str, body: bytes, param: str | None) -> None:
    with pytest.raises(Refused) as refused:
        read_ask(path, body)
    error = json.loads(refused.value.body())["error"]
    assert (refused.value.status, error["type"]) == (400, "invalid_request_error")
    assert error["param"] == param


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("äöüß", 2), ("\ud800", 1)])
def test_four_bytes_are_a_token(text: str, tokens: int) -> None:
    assert text_tokens(text) == tokens


def test_token_numbers_count_as_tokens() -> None:
    assert read_ask(EMBEDDINGS, b'{"model": "m", "input": [1, 2, 3]}').prompt_tokens == 3
