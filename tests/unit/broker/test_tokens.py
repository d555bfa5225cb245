"""Tokens are counted from the shipped tables, in pieces, and never bring a worker down; ratios are learned."""

import time
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiktoken_ext import openai_public

from broker import tokens
from broker.tokens import CL100K, O200K, Ratios, count, count_long, table_of


def test_tokens_are_counted_as_openai_documents_them() -> None:
    assert count("tiktoken is great!", "gpt-4") == 6
    assert count("antidisestablishmentarianism", "gpt-4o") == 6
    assert count("お誕生日おめでとう", "gpt-4") == 9
    assert count("お誕生日おめでとう", "gpt-4o") == 8
    assert count("", "gpt-4o") == 0


@pytest.mark.parametrize(("table", "name"), [(CL100K, "cl100k_base"), (O200K, "o200k_base")])
def test_the_tables_are_those_of_tiktoken(table: tokens.Table, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def fake_load(url: str, expected_hash: str) -> dict[bytes, int]:
        asked.update(url=url, sha256=expected_hash)
        return {}

    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", fake_load)
    theirs = openai_public.ENCODING_CONSTRUCTORS[name]()
    assert theirs["pat_str"] == table.pattern
    assert asked["sha256"] == table.sha256


def test_a_damaged_table_is_refused() -> None:
    with pytest.raises(ValueError, match="damaged"):
        tokens._encoding(tokens.Table(CL100K.file, "0" * 64, CL100K.pattern))


@pytest.mark.parametrize(
    ("model", "table"),
    [
        ("gpt-4o-mini-2024-07-18", O200K),
        ("gpt-4", CL100K),
        ("text-embedding-3-small", CL100K),
        ("gpt-oss-20b", O200K),
        ("claude-9", O200K),
    ],
)
def test_each_model_has_its_table_and_an_unknown_one_the_newest(model: str, table: tokens.Table) -> None:
    assert table_of(model) is table


@pytest.mark.parametrize("unit", [" ", "a", "\n", "\t ", "é", "ab", "=", "😀"])
def test_a_million_of_the_same_character_take_no_more_than_linear_time(unit: str) -> None:
    def cpu_s(characters: int) -> float:
        began = time.process_time()
        assert count(unit * (characters // len(unit)), "gpt-4o") > 0
        return time.process_time() - began

    assert cpu_s(1_000_000) < 10 * cpu_s(250_000) + 0.1  # four times the text; a square would be 16 times


def test_special_tokens_in_a_users_text_are_text() -> None:
    assert count("<|endoftext|>", "gpt-4o") > 1


def test_a_panic_of_the_tokenizer_becomes_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    class Panicking:
        def encode_ordinary(self, _text: str) -> list[int]:
            raise PanicException

    class Interrupted(Panicking):
        def encode_ordinary(self, _text: str) -> list[int]:
            raise KeyboardInterrupt

    monkeypatch.setattr(tokens, "_encoding", lambda _table: Panicking())
    assert count("x" * 400, "gpt-4o") == 100
    monkeypatch.setattr(tokens, "_encoding", lambda _table: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        count("x", "gpt-4o")


@given(st.text(alphabet=st.characters(codec=None), max_size=300))
def test_any_text_can_be_counted(text: str) -> None:
    assert count(text, "gpt-4o") <= 2 * len(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("seed", range(5))
def test_cutting_before_a_space_changes_no_count(seed: int) -> None:
    text = " ".join(Random(seed).choices(["the", "quick", "brown", "fox", "42,", "jumps"], k=8_000))
    assert count(text, "gpt-4o") == len(tokens._encoding(O200K).encode_ordinary(text))


async def test_a_long_text_counts_the_same_in_a_thread() -> None:
    text = "to be or not to be, " * 4_000
    assert await count_long(text, "gpt-4o") == count(text, "gpt-4o")
    assert await count_long("short", "gpt-4o") == 1


def test_a_ratio_begins_with_a_quarter_and_follows_what_is_reported() -> None:
    ratios = Ratios()
    assert ratios.estimate("m", "acme", 1_000) == 250
    for _ in range(200):
        ratios.learn("m", "acme", 1_000, 500)
    assert 480 <= ratios.estimate("m", "acme", 1_000) <= 500


def test_a_new_tenant_begins_with_the_ratio_of_the_model() -> None:
    ratios = Ratios()
    for _ in range(1_000):
        ratios.learn("m", "acme", 1_000, 400)
    assert 390 <= ratios.estimate("m", "other", 1_000) <= 400
    assert ratios.estimate("another", "acme", 1_000) == 250


def test_a_ratio_forgets_what_was_long_ago() -> None:
    ratios = Ratios()
    for tokens_reported in [100] * 20_000 + [300] * 20_000:
        ratios.learn("m", "acme", 1_000, tokens_reported)
    assert 285 <= ratios.estimate("m", "acme", 1_000) <= 300


def test_what_says_nothing_teaches_nothing() -> None:
    ratios = Ratios()
    ratios.learn("m", "acme", 0, 10)
    ratios.learn("m", "acme", 10, 0)
    assert ratios.estimate("m", "acme", 1_000) == 250


def test_the_number_of_remembered_ratios_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_MOST_RATIOS", 10)
    ratios = Ratios()
    for number in range(100):
        ratios.learn("m", f"t{number}", 1_000, 300)
    assert len(ratios._seen) <= 10
