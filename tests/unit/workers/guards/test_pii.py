"""Personal data is found where people write it, left alone where it is something else, and gone after redaction."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workers.guards.pii import DIGITS, EMAIL, PHONES, Pii, passes_luhn

PII = Pii()
tricky = st.text(alphabet="0123456789 -+().@/ab.é例[]\n_", max_size=120)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("write to bob.smith+news@mail.example.co.uk, please", "write to [email], please"),
        ("müller@exämple.de", "[email]"),
        ("連絡先はa@b.comです", "連絡先は[email]です"),
        ("a@b.de c@d.fr", "[email] [email]"),
        ("call +49 (0)30 123-4567 now", "call [phone] now"),
        ("(202) 555-0143 or 202-555-0143", "[phone] or [phone]"),
        ("06 12 34 56 78, 030/1234567, 020 7946 0958", "[phone], [phone], [phone]"),
        ("01711234567 and 00491711234567", "[phone] and [phone]"),
        ("pay with 4111 1111 1111 1111 today", "pay with [card] today"),
        ("no. 12 4111-1111-1111-1111 12", "no. 12 [card] 12"),
        ("378282246310005", "[card]"),
        ("é" * 50 + " 5555555555554444 " + "例" * 50, "é" * 50 + " [card] " + "例" * 50),
        ("\ud800 a@b.de", "\ud800 [email]"),
    ],
)
def test_personal_data_is_replaced_by_its_kind(text: str, redacted: str) -> None:
    found = PII.check(text)
    assert found is not None
    assert found.redacted == redacted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "on 2024-11-02 at 10:00:00, order 1234567890123, 01-02-2024",
        "1732262400 12345678",
        "192.168.100.200",
        "2024-01-01T00:00:00+01:00",
        "3.14159265358979",
        "ISBN 978-3-16-148410-0",
        "4111 1111 1111 1112",
        "550e8400-e29b-41d4-4716-446655440000",
        "@home, me@work, a@b.",
        "x = y@z + 1",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert PII.check(text) is None


def test_each_find_is_counted() -> None:
    found = PII.check("a@b.de, c@d.fr, +1 202 555 0143 and 4111111111111111")
    assert found is not None
    assert found.kinds == {"email": 2, "card": 1, "phone": 1}


@pytest.mark.parametrize(
    ("number", "passes"),
    [(b"4111111111111111", True), (b"4111111111111112", False), (b"378282246310005", True), (b"0", True)],
)
def test_luhns_checksum_is_the_bookkeepers(number: bytes, passes: bool) -> None:
    assert passes_luhn(number) is passes


@given(st.text(alphabet=st.characters(codec=None), max_size=200) | tricky)
@example("a@b.de4111111111111111+4915112345678")
@example("+4" * 30 + "0" * 40)
def test_redacted_text_has_no_finding_any_more(text: str) -> None:
    found = PII.check(text)
    if found is not None:
        assert PII.check(found.redacted) is None
        assert found.kinds


@given(tricky)
def test_the_set_misses_nothing_that_a_single_pattern_finds(text: str) -> None:
    content = text.encode()
    single = any(pattern.search(content) for pattern in (PII._email, PII._phone, PII._digits))
    assert single == bool(PII._any.Match(content))


@pytest.mark.parametrize(
    "unit",
    [
        "1 2 3 4 5 6 7 8 9 ",
        "4111 ",
        "a@",
        "+1",
        "1",
        "0171 ",
        "a@b.de ",
        "-1 (2.",
        "202-555-0143",
        "+123456789012345",
        "a.",
        "@a.",
    ],
)
def test_no_text_takes_more_than_linear_time(unit: str) -> None:
    def cpu_s(size: int) -> float:
        text = unit * (size // len(unit))
        began = time.process_time()
        PII.check(text)
        return time.process_time() - began

    assert cpu_s(400_000) < 10 * cpu_s(100_000) + 0.05  # four times the text; a square would be 16 times


def test_all_patterns_are_in_the_set() -> None:
    assert len({EMAIL, DIGITS, *PHONES}) == 2 + len(PHONES)
    assert sorted(PII._any.Match(b"a@b.de 4111111111111111")) == [0, 1]
