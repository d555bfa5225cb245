"""Finds ids that a file holds twice, in 16 bytes an id up to a bound: OpenAI wants each `custom_id` once in its file."""

import hashlib
from array import array

_FIRST_SLOTS = 1 << 16
_MOST_SLOTS = 1 << 22  # 32 MB; of a file of more than two million lines only the first two million are remembered


class Seen:
    """A set of ids by 64 bits of their hash; it never forgets, and stops to grow at its bound."""

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * _FIRST_SLOTS))
        self._used = 0

    def add(self, key: str) -> bool:
        """Whether the key is new; a false alarm has a chance below one in ten million for a file of a million."""
        number = _number(key)
        place = self._place(number)
        if self._slots[place] == number:
            return False
        if 2 * self._used >= len(self._slots):
            if len(self._slots) >= _MOST_SLOTS:
                return True
            self._grow()
            place = self._place(number)
        self._slots[place] = number
        self._used += 1
        return True

    def holds(self, key: str) -> bool:
        """Whether the key was added."""
        number = _number(key)
        return self._slots[self._place(number)] == number

    def _place(self, number: int) -> int:
        """The slot that holds the number, or the free one where it would be."""
        mask = len(self._slots) - 1
        place = number & mask
        while self._slots[place] not in (0, number):
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        old = self._slots
        self._slots = array("Q", bytes(16 * len(old)))
        for number in old:
            if number:
                self._slots[self._place(number)] = number


def _number(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") or 1
