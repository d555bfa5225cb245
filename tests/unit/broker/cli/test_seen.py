"""Ids that a file holds twice."""

from broker.cli.seen import Seen


def test_an_id_is_new_once_however_many_there_are() -> None:
    seen = Seen()
    ids = [f"b/{number}" for number in range(100_000)]
    assert all(seen.add(each) for each in ids)
    assert not any(seen.add(each) for each in ids)
    assert seen.add("another")


def test_what_was_added_is_held_and_nothing_else() -> None:
    seen = Seen()
    assert not seen.holds("a")
    seen.add("a")
    assert seen.holds("a")
    assert not seen.holds("b")
