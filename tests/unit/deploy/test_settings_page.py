"""The page of all settings is complete and true."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from broker.settings import Settings, load

PAGE = Path(__file__).parents[3] / "deploy" / "settings.yaml"


def models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models(inner)


def unnamed(model: type[BaseModel], page: Any) -> Iterator[str]:  # noqa: ANN401 whatever YAML holds
    """Fields of a model that the page does not name; lists and tables show their first entry."""
    for name, field in model.model_fields.items():
        if name not in page:
            yield name
            continue
        shown = page[name]
        for inner in models(field.annotation):
            entry = next(iter(shown)) if isinstance(shown, list) else shown
            while isinstance(entry, dict) and not set(inner.model_fields) & set(entry):
                entry = next(iter(entry.values()))
                entry = entry[0] if isinstance(entry, list) else entry
            yield from (f"{name}.{field}" for field in unnamed(inner, entry))


def test_the_page_names_every_setting() -> None:
    assert list(unnamed(Settings, yaml.safe_load(PAGE.read_text()))) == []


def test_the_page_can_be_read_as_a_settings_file() -> None:
    assert load({}, PAGE).providers["openai"].base_url == "https://api.openai.com/v1"


def test_the_page_shows_the_defaults() -> None:
    shown, default = load({}, PAGE), Settings()
    for name in Settings.model_fields.keys() - {"providers", "routes", "quotas", "limits", "prices"}:
        assert getattr(shown, name) == getattr(default, name), name
