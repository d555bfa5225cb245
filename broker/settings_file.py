"""The settings file as YAML, with the line of each of its fields for errors to name, and what is wrong in it as sentences."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from broker.errors import SettingsError

Place = tuple[str, ...]
"""Where a setting stands: the names that lead to it."""


def read(path: Path) -> tuple[dict[str, Any], dict[Place, int]]:
    """Return the file's mapping and the line of each of its fields.

    Raises:
        SettingsError: It is no YAML, or no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node, data = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read as YAML: {error}") from None
    if data is None or node is None:
        return {}, {}
    if not isinstance(data, dict):
        raise SettingsError(f"{path}: must be a mapping of settings, such as `kafka: host:9092`")
    return data, dict(_lines(node, ()))


def written(document: Mapping[str, Any]) -> str:
    """The text of such a file."""
    text: str = yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True)
    return text


def sentences(
    error: ValidationError, path: Path, lines: Mapping[Place, int], sources: Mapping[Place, str]
) -> Iterator[str]:
    """What is wrong, each with its place: a line of the file, or the variable of `sources`."""
    problems = error.errors(include_url=False)
    inner = {problem["loc"][:-2] for problem in problems}
    for problem in problems:
        if problem["type"] == "too_short" and problem["loc"] in inner:
            continue  # pydantic does not count the wrong entries that it has just named
        place = tuple(str(part) for part in problem.get("ctx", {}).get("place", problem["loc"]))
        known = next((place[:n] for n in range(len(place), 0, -1) if place[:n] in lines), ())
        siblings = [variable for other, variable in sources.items() if other[:-1] == place[:-1]]
        beside = siblings[0] if siblings and len(known) < len(place) - 1 else None
        where = sources.get(place) or beside or f"{path}:{lines.get(known, 1)}"
        reason = "there is no such setting" if problem["type"] == "extra_forbidden" else problem["msg"]
        yield f"{where}: {'.'.join(place) or 'settings'}: {reason}; deploy/settings.yaml says what is allowed"


def places(text: str) -> dict[Place, int]:
    """The line of every field of a text in YAML, which JSON is, too; none where it is neither."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return {}
    return {} if node is None else dict(_lines(node, ()))


def _lines(node: yaml.Node, place: Place) -> Iterator[tuple[Place, int]]:
    yield place, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*place, str(key.value)), key.start_mark.line + 1
            yield from ((p, n) for p, n in _lines(value, (*place, str(key.value))) if p != (*place, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, (*place, str(index)))
