"""A book stays small, whatever comes and goes."""

from decimal import Decimal

from workers.quota.book import CLOSED, MOST_SHUT, NOTHING, Amounts, Book, Told

USED = Amounts(1, 10, Decimal("0.01"))


def test_a_book_of_a_lifetime_does_not_grow_with_each_worker_that_dies() -> None:
    book = Book()
    for number in range(2 * MOST_SHUT):
        book = book.granting(f"w{number}", USED, Told(USED, passed_over=3)).closing([f"w{number}"], NOTHING)
    assert (len(book.shut), book.shut[-1]) == (MOST_SHUT, f"w{2 * MOST_SHUT - 1}")
    assert (book.grants, book.told) == ({}, {CLOSED: Told(passed_over=6 * MOST_SHUT)})
    assert book.granting(book.shut[0], USED) is book
