"""Personal data in a text: e-mail addresses, telephone numbers and payment cards, by RE2 and Luhn's checksum.

One scan by a set of all patterns says whether there may be something; only then single patterns look for the places. RE2 reads the UTF-8 bytes
as bytes, so that no text is refused and time is linear; every pattern begins and ends at ASCII or at whole letters.
"""

from collections.abc import Iterator
from typing import Any

import re2

from workers.guards.protocol import Found

# Letters of an address are those of Latin scripts: in a Chinese sentence no space stands between the text and the address.
_LATIN = r"(?:[A-Za-z0-9]|[\xc3-\xc9][\x80-\xbf])"
EMAIL = rf"(?:{_LATIN}|[._%+\-])+@(?:(?:{_LATIN}|-)+\.)+(?:[A-Za-z]|[\xc3-\xc9][\x80-\xbf]){{2,}}"
DIGITS = r"\b[0-9](?:[ \-]?[0-9]){12,}\b"
PHONES = (
    r"(?:\+|\b00)[1-9](?:[ ().\-/]{0,2}[0-9]){6,13}\b",  # international
    r"(?:\(|\b)[2-9][0-9]{2}(?:\) ?|[ .\-])[0-9]{3}[ .\-][0-9]{4}\b",  # North America
    r"(?:\(|\b)0[1-9][0-9]{1,4}(?:\) ?| ?/ ?|[ \-])[0-9]{3,5}(?:[ \-]?[0-9]{2,4}){1,3}\b",  # national, with the area
    r"\b0[1-9](?:[ .\-][0-9]{2}){4}\b",  # national, in pairs
    r"\b0[1-9][0-9]{8,9}\b",  # national, in one
)

_MOST_ROUNDS = 8
_ISSUERS = b"23456"
_SMALLEST_GROUP = 3
_CARD_DIGITS = range(13, 20)
_TO_DASH = bytes.maketrans(b" ", b"-")
_DOUBLED = bytes((2 * digit) // 10 + (2 * digit) % 10 for digit in range(10))


def _options() -> Any:  # noqa: ANN401 re2 publishes no types
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.max_mem = 1 << 26
    return options


class Pii:
    """The guard for personal data; kinds: `email`, `card`, `phone`, replaced by `[email]`, `[card]`, `[phone]`."""

    name = "pii"

    def __init__(self) -> None:
        options = _options()
        self._any = re2.Set.SearchSet(options)
        for pattern in (EMAIL, DIGITS, *PHONES):
            self._any.Add(pattern.encode())
        self._any.Compile()
        self._email = re2.compile(EMAIL.encode(), options)
        self._digits = re2.compile(DIGITS.encode(), options)
        self._phone = re2.compile("|".join(PHONES).encode(), options)
        self._rest = re2.compile(b"[0-9@]", options)

    def check(self, text: str) -> Found | None:
        """Return what is in the text, None if nothing is."""
        try:
            content = text.encode()
        except UnicodeEncodeError:
            content = text.encode("utf-8", "surrogatepass")
        if not self._any.Match(content):
            return None
        kinds: dict[str, int] = {}
        for _ in range(_MOST_ROUNDS):
            before = len(kinds), sum(kinds.values())
            content = self._redact(content, kinds)
            if (len(kinds), sum(kinds.values())) == before:
                break
        else:  # each change laid bare another one: somebody plays with us
            content = self._rest.sub(b"*", content)
        return Found(kinds, content.decode("utf-8", "surrogatepass")) if kinds else None

    def _redact(self, content: bytes, kinds: dict[str, int]) -> bytes:
        """Replace what is found and count it; cards before telephones, which parts of their digits may look like."""
        content = _replace(content, "email", (match.span() for match in self._email.finditer(content)), kinds)
        cards = (span for match in self._digits.finditer(content) for span in _cards(content, *match.span()))
        content = _replace(content, "card", cards, kinds)
        return _replace(content, "phone", (match.span() for match in self._phone.finditer(content)), kinds)


def _replace(content: bytes, kind: str, spans: Iterator[tuple[int, int]], kinds: dict[str, int]) -> bytes:
    pieces: list[bytes] = []
    end = 0
    for start, stop in spans:
        pieces += (content[end:start], b"[%b]" % kind.encode())
        end = stop
    if not pieces:
        return content
    kinds[kind] = kinds.get(kind, 0) + len(pieces) // 2
    return b"".join((*pieces, content[end:]))


def _cards(content: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Find the cards in a run of digits, whose groups may be other numbers too: neighbouring groups that pass Luhn's checksum."""
    spans: list[tuple[int, int]] = []
    at = start
    for group in content[start:end].translate(_TO_DASH).split(b"-"):
        spans.append((at, at + len(group)))
        at += len(group) + 1
    first = 0
    while first < len(spans):
        last = _last_of_card(content, spans, first)
        if last is None:
            first += 1
        else:
            yield spans[first][0], spans[last][1]
            first = last + 1


def _last_of_card(content: bytes, spans: list[tuple[int, int]], first: int) -> int | None:
    """Return the last group of the longest card that begins with group `first`, None if no card does."""
    if content[spans[first][0]] not in _ISSUERS:
        return None
    digits = b""
    found = None
    for index in range(first, len(spans)):
        group = content[slice(*spans[index])]
        digits += group
        if len(group) < _SMALLEST_GROUP or len(digits) >= _CARD_DIGITS.stop:
            break
        if len(digits) in _CARD_DIGITS and passes_luhn(digits):
            found = index
    return found


def passes_luhn(digits: bytes) -> bool:
    """Whether ASCII digits pass Luhn's checksum."""
    values = [digit - 48 for digit in reversed(digits)]
    return (sum(values[::2]) + sum(_DOUBLED[value] for value in values[1::2])) % 10 == 0
