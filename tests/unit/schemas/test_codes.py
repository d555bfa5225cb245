"""Every code is explained once, in a sentence that says what to change."""

import re

import pytest

from schemas.codes import MEANING, Code


@pytest.mark.parametrize("code", Code)
def test_a_code_has_a_sentence(code: Code) -> None:
    assert re.fullmatch(r"[A-Z`].+\.", MEANING[code])
    assert "|" not in MEANING[code]


@pytest.mark.parametrize("code", Code)
def test_a_code_is_a_word_that_never_needs_quoting(code: Code) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
    assert code.name.lower() == code.value
