"""Ids that a file holds twice."""

from broker.cli.seen import Seen


def test_an_id_is_new_once_however_many_there_are() -> None:
    seen = Seen()
    ids = [f"b/{number}" for number in range(100_000)]
    assert all(seen.add(each) for each in ids)
    assert not any(seen.add(each) for each in ids)
    assert seen.add("another")
