"""The chain finds texts wherever OpenAI's shapes have them, and never stumbles over a shape that is another one."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.result import GuardFinding
from workers.guards.chain import LONG_BYTES, Chain
from workers.guards.pii import Pii
from workers.guards.protocol import Action, Found

PII = Pii()
ADDRESS = "a@b.de"


class Word:
    """A guard that finds one word."""

    def __init__(self, word: str, replacement: str) -> None:
        self.name = word
        self._word, self._replacement = word, replacement

    def check(self, text: str) -> Found | None:
        """Find the word."""
        times = text.count(self._word)
        return Found({"word": times}, text.replace(self._word, self._replacement)) if times else None


def chain(action: Action) -> Chain:
    return Chain(action, action, [PII])


def chat(content: object, **more: object) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content, **more}]}


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("chat", chat(ADDRESS)),
    ("chat", chat([{"type": "text", "text": ADDRESS}, {"type": "image_url", "image_url": {"url": "https://x"}}])),
    (
        "chat",
        chat(
            None,
            tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"to": "a@b.de"}'}}],
        ),
    ),
    ("embeddings", {"model": "m", "input": ADDRESS}),
    ("embeddings", {"model": "m", "input": ["x", ADDRESS]}),
    ("moderations", {"input": [{"type": "text", "text": ADDRESS}]}),
    ("responses", {"model": "m", "input": ADDRESS}),
    ("responses", {"model": "m", "instructions": ADDRESS, "input": "x"}),
    ("responses", {"model": "m", "input": [{"role": "user", "content": ADDRESS}]}),
    ("responses", {"model": "m", "input": [{"role": "user", "content": [{"type": "input_text", "text": ADDRESS}]}]}),
    ("responses", {"model": "m", "input": [{"type": "function_call_output", "call_id": "1", "output": ADDRESS}]}),
]
ANSWERS: list[tuple[str, dict[str, Any]]] = [
    ("chat", {"choices": [{"index": 0, "message": {"role": "assistant", "content": ADDRESS}}]}),
    ("chat", {"choices": [{"index": 0, "message": {"role": "assistant", "content": None, "refusal": ADDRESS}}]}),
    (
        "responses",
        {"output": [{"type": "message", "content": [{"type": "output_text", "text": ADDRESS, "annotations": []}]}]},
    ),
    ("responses", {"output": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": ADDRESS}]}]}),
    ("responses", {"output": [{"type": "function_call", "name": "f", "arguments": ADDRESS}]}),
]


@pytest.mark.parametrize(("operation", "body"), REQUESTS)
def test_a_text_is_found_wherever_a_request_has_one(operation: str, body: dict[str, Any]) -> None:
    before = copy.deepcopy(body)
    verdict = chain("redact").check_request(operation, body)
    assert verdict.action == "redact"
    assert verdict.findings == [{"guard": "pii", "direction": "input", "action": "redact", "found": {"email": 1}}]
    assert str(verdict.body) == str(before).replace(ADDRESS, "[email]")
    assert body == before


@pytest.mark.parametrize(("operation", "output"), ANSWERS)
def test_a_text_is_found_wherever_an_answer_has_one(operation: str, output: dict[str, Any]) -> None:
    verdict = chain("redact").check_answer(operation, output)
    assert verdict.findings[0]["direction"] == "output"
    assert str(verdict.body) == str(output).replace(ADDRESS, "[email]")


@pytest.mark.parametrize("action", ["flag", "block"])
def test_a_flag_and_a_block_leave_the_body_as_it_is(action: Action) -> None:
    body = chat(ADDRESS)
    verdict = chain(action).check_request("chat", body)
    assert (verdict.action, verdict.body is body) == (action, True)
    GuardFinding.model_validate(verdict.findings[0])


def test_what_is_allowed_is_not_even_scanned() -> None:
    class Exploding(Word):
        def check(self, text: str) -> Found | None:
            raise AssertionError(text)

    verdict = Chain("allow", "allow", [Exploding("x", "y")]).check_request("chat", chat("x"))
    assert (verdict.action, verdict.findings) == ("allow", [])


def test_nothing_found_is_the_same_body_without_findings() -> None:
    body = chat("nothing to see")
    verdict = chain("redact").check_request("chat", body)
    assert (verdict.action, verdict.findings, verdict.body is body) == ("allow", [], True)


def test_only_what_changes_is_copied() -> None:
    body = chat(ADDRESS)
    body["messages"].append({"role": "user", "content": "fine"})
    changed = chain("redact").check_request("chat", body).body
    assert changed["messages"][1] is body["messages"][1]
    assert changed["messages"][0] is not body["messages"][0]


def test_finds_of_several_texts_are_added_up() -> None:
    verdict = chain("flag").check_request("embeddings", {"input": [f"{ADDRESS} {ADDRESS}", "x", ADDRESS]})
    assert verdict.findings[0]["found"] == {"email": 3}


def test_a_later_guard_sees_what_an_earlier_one_redacted() -> None:
    guards = [Word("one", "two"), Word("two", "three")]
    verdict = Chain("redact", "allow", guards).check_request("chat", chat("one"))
    assert verdict.body["messages"][0]["content"] == "three"
    assert [finding["guard"] for finding in verdict.findings] == ["one", "two"]


known_keys = st.sampled_from(
    [
        "messages",
        "content",
        "input",
        "text",
        "choices",
        "message",
        "tool_calls",
        "function",
        "arguments",
        "output",
        "summary",
    ]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(ADDRESS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | known_keys, inner, max_size=4),
    max_leaves=20,
)
bodies = st.dictionaries(known_keys, json_values, max_size=5)
operations = st.sampled_from(["chat", "responses", "embeddings", "moderations", "images", "another"])


@given(operations, bodies)
def test_no_body_makes_it_raise_and_a_redacted_one_has_no_finding(operation: str, body: dict[str, Any]) -> None:
    redact = chain("redact")
    for check in (redact.check_request, redact.check_answer):
        verdict = check(operation, body)
        assert check(operation, verdict.body).findings == []


async def test_a_long_body_is_checked_the_same_in_a_thread() -> None:
    body, output = chat("x" * LONG_BYTES + f" {ADDRESS}"), ANSWERS[0][1]
    redact = chain("redact")
    long = LONG_BYTES + 1
    assert await redact.check_long_request("chat", body, long) == redact.check_request("chat", body)
    assert await redact.check_long_answer("chat", output, long) == redact.check_answer("chat", output)


@pytest.mark.parametrize(
    "message", [{"content": "x", "refusal": ADDRESS}, {"role": "user", "content": "x", "refusal": ADDRESS}]
)
def test_a_short_message_is_looked_at_whole(message: dict[str, Any]) -> None:
    assert chain("flag").check_request("chat", {"messages": [message]}).findings
