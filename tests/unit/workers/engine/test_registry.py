"""What is registered is in somebody's hands."""

from workers.engine.registry import Registry


def test_only_ids_that_were_new_are_the_callers_to_use() -> None:
    registry = Registry()
    assert registry.add(["a", "b", "a"]) == ["a", "b"]
    assert registry.add(iter(["b", "c"])) == ["c"]
    assert len(registry) == 3


def test_what_was_given_up_can_be_registered_again() -> None:
    registry = Registry()
    registry.add(["a", "b"])
    registry.discard(name for name in ("a", "unknown"))
    assert "a" not in registry
    assert "b" in registry
    assert registry.add(["a"]) == ["a"]
