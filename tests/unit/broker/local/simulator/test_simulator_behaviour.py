"""The behaviour file: what it means, and the sentence for what is wrong in it."""

import re
from pathlib import Path

import pytest
import yaml

import broker.local.simulator
from broker.local.simulator.behaviour import FAULTS, Behaviour, BehaviourError, FixedLatency, read_behaviour


def test_an_empty_file_is_the_default() -> None:
    assert read_behaviour(b"") == Behaviour()


def test_yaml_and_json_say_the_same() -> None:
    as_yaml = b"models: {gpt-4o: {faults: {500: 0.5}, latency: {ms: 3}}}"
    as_json = b'{"models": {"gpt-4o": {"faults": {"500": 0.5}, "latency": {"kind": "fixed", "ms": 3}}}}'
    assert read_behaviour(as_yaml) == read_behaviour(as_json)


def test_a_model_replaces_whole_sections_of_the_default() -> None:
    behaviour = read_behaviour(
        b"default: {latency: {ms: 5}, answer: {text_bytes: 9, cached_tokens: 2}}\nmodels: {m: {answer: {text_bytes: 1}}}"
    )
    own = behaviour.of("m")
    assert own.latency == FixedLatency(ms=5)
    assert (own.answer.text_bytes, own.answer.cached_tokens) == (1, 0)
    assert behaviour.of("another") == behaviour.default


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"defualt: {}", "defualt: there is no such field; did you mean default?"),
        (b"models: {m: {latncy: {}}}", "models.m.latncy: there is no such field; did you mean latency?"),
        (b"default: {limits: {rpm: 0}}", "default.limits.rpm: Input should be greater than 0"),
        (b"default: {faults: {stal: 0.1}}", "default.faults: 'stal' is no fault; did you mean stall?"),
        (
            b"default: {faults: {stall: 0.6, '500': 0.6}}",
            "default: the rates of all faults together must not be above 1",
        ),
        (b"default: {answer: {text_bytes: [5, 1]}}", "the first of two bounds must not be above the second"),
        (b"default: {latency: {kind: gauss}}", "default.latency"),
        (b"default: {latency: {kind: uniform, low_ms: 2, high_ms: 1}}", "low_ms must not be above high_ms"),
        (b"default: {fail_first: {calls: 1, fault: 999}}", "'999' is no fault"),
        (b"- 1", "must be a mapping of fields, not list"),
        (b"a: b: c", "neither YAML nor JSON"),
        (b"\xff\xfe\xff", "neither YAML nor JSON"),
    ],
)
def test_a_wrong_behaviour_gets_one_sentence_that_names_the_field(content: bytes, sentence: str) -> None:
    with pytest.raises(BehaviourError, match=re.escape(sentence)) as caught:
        read_behaviour(content)
    assert "\n" not in str(caught.value)


def test_the_documented_behaviour_is_the_default() -> None:
    text = re.sub(r" or\n +# \{kind: uniform.*\n +# \{kind: lognormal.*\n", "\n", broker.local.simulator.__doc__)
    documented = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    del documented["models"]
    documented["default"]["price"] = None
    assert Behaviour.model_validate(documented) == Behaviour()
    written = documented["default"]
    assert written.keys() == Behaviour().default.model_dump().keys()
    for section in ("answer", "limits", "fail_first", "drip"):
        assert written[section].keys() == Behaviour().default.model_dump()[section].keys()


def test_every_fault_is_documented() -> None:
    documented = broker.local.simulator.__doc__.rpartition("Faults:")[2]
    assert {fault for fault in FAULTS if not re.search(rf"\b{fault}\b", documented)} == set()


def test_the_simulator_imports_nothing_else_of_the_product() -> None:
    for path in Path(broker.local.simulator.__file__).parent.glob("*.py"):
        ours = re.findall(r"^\s*(?:from|import) ((?:broker|schemas|workers)\S*)", path.read_text(), re.MULTILINE)
        assert all(name.startswith("broker.local.simulator") for name in ours), path
