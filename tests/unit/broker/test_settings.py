"""Settings: one file, the environment over it, and a sentence for every mistake."""

from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from broker.errors import SettingsError
from broker.settings import FILE_VARIABLE, Provider, Settings, effective, load

SHIPPED = yaml.safe_load(resources.files("deploy").joinpath("settings.yaml").read_text(encoding="utf-8"))

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a settings file."""

    def written(text: str) -> Path:
        file = tmp_path / "aibroker.yaml"
        file.write_text(text, encoding="utf-8")
        return file

    return written


def problem(environment: dict[str, str], file: Path | None = None) -> str:
    with pytest.raises(SettingsError) as wrong:
        load(environment, file)
    return str(wrong.value)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings file of a developer gets in the way."""
    monkeypatch.chdir(tmp_path)


def test_without_a_file_and_an_environment_there_are_the_defaults() -> None:
    assert load({}) == Settings()


def test_a_file_in_the_current_folder_is_read(write: Write) -> None:
    write("kafka: broker:9092\nworker:\n  slots: 7\n")
    settings = load({})
    assert (settings.kafka, settings.worker.slots, settings.worker.ready) == ("broker:9092", 7, 4_000)


def test_the_environment_names_another_file(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("prefix: eu\n", encoding="utf-8")
    assert load({FILE_VARIABLE: str(tmp_path / "other.yaml")}).prefix == "eu"


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_says_nothing(write: Write, text: str) -> None:
    assert load({}, write(text)) == Settings()


def test_the_environment_goes_before_the_file(write: Write) -> None:
    file = write(
        "kafka: of-the-file:9092\nlease_s: 60\nworker: {slots: 7, ready: 8}\nproviders: {main: {base_url: http://file}}\n"
    )
    settings = load(
        {
            "AIBROKER_KAFKA": "of-the-environment:9092",
            "AIBROKER_WORKER_SLOTS": "9",
            "AIBROKER_PROVIDERS_MAIN_API_KEY": "sk-1",
            "AIBROKER_PROVIDERS_OTHER_BASE_URL": "https://other/v1/",
            "AIBROKER_GUARDS_PII_INPUT": "redact",
            "AIBROKER_TELEMETRY_SAMPLED_SHARE": "0.5",
            "PATH": "/bin",
        },
        file,
    )
    assert (settings.kafka, settings.lease_s) == ("of-the-environment:9092", 60)
    assert (settings.worker.slots, settings.worker.ready) == (9, 8)
    assert settings.providers["main"].base_url == "http://file"
    assert settings.providers["main"].api_key.get_secret_value() == "sk-1"
    assert settings.providers["other"].base_url == "https://other/v1"
    assert settings.guards.pii_input == "redact"
    assert settings.telemetry.sampled_share == 0.5


@pytest.mark.parametrize(
    ("variable", "value", "read"),
    [
        ("AIBROKER_KAFKA", "a:1,b:2", lambda s: s.kafka == "a:1,b:2"),
        ("AIBROKER_MONGO", "mongodb://x", lambda s: s.mongo.get_secret_value() == "mongodb://x"),
        ("AIBROKER_PREFIX", "eu-1", lambda s: s.prefix == "eu-1"),
        ("AIBROKER_SESSION_TIMEOUT_S", "6", lambda s: s.session_timeout_s == 6),
        ("AIBROKER_LEASE_S", "6", lambda s: s.lease_s == 6),
        ("AIBROKER_FAIL_AT", "after_call:3", lambda s: s.fail_at == "after_call:3"),
    ],
)
def test_the_names_that_outsiders_rely_on(variable: str, value: str, read: Callable[[Settings], bool]) -> None:
    assert read(load({variable: value}))


@pytest.mark.parametrize(
    "variable",
    [
        "AIBROKER_KAFAK",
        "AIBROKER_WORKER",
        "AIBROKER_WORKER_SLOT",
        "AIBROKER_ROUTES",
        "AIBROKER_TENANTS",
        "AIBROKER_PROVIDERS_MAIN_KEY",
        "AIBROKER_",
    ],
)
def test_a_variable_that_is_no_setting_is_refused(variable: str) -> None:
    assert problem({variable: "x"}) == f"{variable}: there is no such setting; deploy/settings.yaml lists all"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "kafka: a:1\nlaese_s: 30\n",
            "{file}:2: laese_s: there is no such setting; deploy/settings.yaml says what is allowed",
        ),
        ("worker:\n  slots: 0\n", "{file}:2: worker.slots: Input should be greater than or equal to 1; "),
        ("worker: 5\n", "{file}:1: worker: Input should be a valid dictionary"),
        ("lease_s: soon\n", "{file}:1: lease_s: Input should be a valid number"),
        ("priorities: []\n", "{file}:1: priorities: Tuple should have at least 1 item"),
        (
            "quotas:\n  - tenant: acme\n    usd: 0.5\n",
            "{file}:3: quotas.0.usd: Value error, must be a string with a decimal number",
        ),
        (
            "providers:\n  main:\n    base_url: ftp://x\n",
            "{file}:2: providers.main: Value error, base_url must begin with http://",
        ),
        (
            "routes:\n  m:\n    - provider: nobody\n      model: m\n",
            "{file}:1: settings: Value error, routes.m names the provider 'nobody'",
        ),
        (
            "transport: httpx\nproviders: {main: {base_url: https://x, http2: true}}\n",
            "{file}:1: settings: Value error, providers.main.http2 needs `transport: rust`",
        ),
        (
            "tenants:\n  acme:\n    weight: 0\n",
            "{file}:3: tenants.acme.weight: Input should be greater than or equal to 0.001",
        ),
        ("tenants: {acme: {weight: .inf}}\n", "{file}:1: tenants.acme.weight: Input should be a finite number"),
        ("tenants:\n  acme:\n    weigth: 2\n", "{file}:3: tenants.acme.weigth: there is no such setting"),
        (
            "kafka: a:1\nprices:\n" + "".join(f"  - {{model: {model}, input: '1', output: '1'}}\n" for model in "mnm"),
            "{file}:5: prices.2: prices.0 and prices.2 are both of openai's m at one time; ",
        ),
        ("tenants:\n  Acme: {weight: 2}\n", "{file}:2: tenants.Acme.[key]: String should match pattern"),
        (
            "priorities:\n  - {name: a, weight: 2000, deadline_s: 1}\n",
            "{file}:2: priorities.0.weight: Input should be less than or equal to 1000",
        ),
        (
            "priorities:\n  - {name: a, weight: 1, deadline_s: 1}\n  - {name: a, weight: 1, deadline_s: 1}\n",
            "{file}:1: settings: Value error, priorities names 'a' twice",
        ),
        ("prefix: a.b\n", "{file}:1: prefix: String should match pattern"),
        ("- a\n", "{file}: must be a mapping of settings, such as `kafka: host:9092`"),
        ("a: [\n", "{file}: cannot be read as YAML: "),
    ],
)
def test_a_wrong_line_is_named_with_what_is_allowed(write: Write, text: str, sentence: str) -> None:
    file = write(text)
    found = problem({}, file)
    assert found.startswith(sentence.format(file=file)), found
    assert "\n" not in found or "YAML" in found


def test_every_wrong_line_is_named_at_once(write: Write) -> None:
    found = problem({"AIBROKER_LEASE_S": "1"}, write("kafak: x\nworker:\n  slots: -1\n"))
    assert [line.split(":")[-3].strip() for line in found.splitlines()]
    assert len(found.splitlines()) == 3
    assert "AIBROKER_LEASE_S: lease_s: Input should be greater than or equal to 3" in found


def test_a_file_that_is_not_there_is_named() -> None:
    assert problem({FILE_VARIABLE: "nowhere.yaml"}).startswith("nowhere.yaml: there is no such settings file")
    assert problem({}, Path("nowhere.yaml")).startswith("nowhere.yaml: there is no such settings file")


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    assert "cannot be read as YAML" in problem({}, tmp_path)


def test_what_is_missing_beside_a_variable_names_the_variable() -> None:
    found = problem({"AIBROKER_PROVIDERS_MAIN_API_KEY": "sk-1"})
    assert found.startswith("AIBROKER_PROVIDERS_MAIN_API_KEY: providers.main.base_url: Field required")


def test_a_wrong_line_is_named_whatever_the_environment_says_of_others(write: Write) -> None:
    file = write("lease_s: soon\nworker: {slots: 0}\n")
    found = problem({"AIBROKER_KAFKA": "x", "AIBROKER_WORKER_READY": "1"}, file)
    assert [line.split(" ")[0] for line in found.splitlines()] == [f"{file}:1:", f"{file}:2:"]


def test_no_secret_prints() -> None:
    settings = load(
        {
            "AIBROKER_MONGO": "mongodb://user:p@ss@host/?replicaSet=r",
            "AIBROKER_PROVIDERS_MAIN_BASE_URL": "http://x",
            "AIBROKER_PROVIDERS_MAIN_API_KEY": "sk-1",
        }
    )
    shown = effective(settings)
    assert shown["mongo"] == "mongodb://***@host/?replicaSet=r"
    for text in (repr(settings), str(settings), str(shown), settings.model_dump_json()):
        assert "sk-1" not in text
        assert "p@ss" not in text


def test_a_mistake_does_not_print_the_secret_beside_it() -> None:
    found = problem({"AIBROKER_PROVIDERS_MAIN_BASE_URL": "x", "AIBROKER_PROVIDERS_MAIN_API_KEY": "sk-1"})
    assert "sk-1" not in found


def test_a_database_without_credentials_is_shown_as_it_is() -> None:
    assert effective(Settings())["mongo"] == "mongodb://127.0.0.1:27017/?replicaSet=aibroker"


def test_a_prefix_goes_before_topics_groups_and_the_database() -> None:
    with_prefix, without = Settings(prefix="eu"), Settings()
    assert (with_prefix.topic("usage"), without.topic("usage")) == ("eu.usage", "usage")
    assert (with_prefix.group("batch"), without.group("batch")) == ("eu.batch", "aibroker.batch")
    assert (with_prefix.database, without.database) == ("eu", "aibroker")
    assert (with_prefix.source, without.source) == ("urn:aibroker:eu", "urn:aibroker:aibroker")


def test_a_tenant_has_its_own_weight_or_that_of_all_others_or_one(write: Write) -> None:
    settings = load({}, write("tenants:\n  acme: {weight: 3}\n  beta: {}\n  '*': {weight: 0.5}\n"))
    assert [settings.tenant_weight(tenant) for tenant in ("acme", "beta", "somebody")] == [3, 1, 0.5]
    assert Settings().tenant_weight("somebody") == 1


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().kafka = "x"  # type: ignore[misc] # the point


def fields_of(model: type[BaseModel], place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each scalar setting's place and default."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from fields_of(inner, (*place, name))
        else:
            yield (*place, name), field.get_default(call_default_factory=True)


@pytest.mark.parametrize(("place", "default"), [*fields_of(Settings)], ids=lambda value: str(value)[:40])
def test_every_setting_is_in_the_shipped_file_with_its_default(place: tuple[str, ...], default: object) -> None:
    shipped = SHIPPED
    for name in place:
        assert name in shipped, f"{'.'.join(place)} is not in deploy/settings.yaml"
        shipped = shipped[name]
    if isinstance(default, str | int | float):
        assert shipped == default


def test_the_shipped_file_can_be_read() -> None:
    settings = Settings.model_validate(SHIPPED)
    assert settings.priorities == Settings().priorities
    assert set(SHIPPED["providers"]["openai"]) == set(Provider.model_fields)
