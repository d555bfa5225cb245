"""What the simulator is told to do: the behaviour file as frozen models, and the sentences for what is wrong in one."""

import difflib
from collections.abc import Mapping
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from broker.local.simulator.prices import Price
from broker.local.simulator.refusals import PLANNED

LINE_FAULTS = frozenset(
    {
        "stall",
        "cut_before",
        "cut_middle",
        "length_over",
        "length_under",
        "drip",
        "malformed",
        "garbage",
        "wrong_shape",
        "oversized",
    }
)
"""Faults of the line and of the body; the others are the error answers of `PLANNED`."""

FAULTS = LINE_FAULTS | PLANNED.keys()


class BehaviourError(ValueError):
    """A behaviour that cannot be used; the message is one sentence that names the field and what is allowed."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FixedLatency(_Strict):
    """Always the same."""

    kind: Literal["fixed"] = "fixed"
    ms: float = Field(default=0, ge=0, le=86_400_000)


class UniformLatency(_Strict):
    """Evenly between two bounds."""

    kind: Literal["uniform"]
    low_ms: float = Field(ge=0, le=86_400_000)
    high_ms: float = Field(ge=0, le=86_400_000)

    @model_validator(mode="after")
    def _ordered(self) -> "UniformLatency":
        if self.low_ms > self.high_ms:
            raise ValueError("low_ms must not be above high_ms")
        return self


class LognormalLatency(_Strict):
    """Many quick ones and a long tail: exp(N(ln median, sigma)), cut at `max_ms`."""

    kind: Literal["lognormal"]
    median_ms: float = Field(gt=0, le=86_400_000)
    sigma: float = Field(default=0.5, ge=0, le=5)
    max_ms: float = Field(default=600_000, gt=0, le=86_400_000)


Latency = Annotated[FixedLatency | UniformLatency | LognormalLatency, Field(discriminator="kind")]


def _range_or_number(value: object) -> object:
    if isinstance(value, list | tuple) and len(value) == 2 and value[0] > value[1]:
        raise ValueError("the first of two bounds must not be above the second")
    return value


_Count = Annotated[int, Field(ge=0, le=10_000_000)]
Amount = _Count | tuple[_Count, _Count]
"""A number, or two bounds between which one is drawn for each call."""


class Answer(_Strict):
    """What a good answer holds."""

    text: str | None = None
    text_bytes: Amount = 200
    output_tokens: Amount | None = None
    cached_tokens: Amount = 0
    reasoning_tokens: Amount = 0
    stream_chunk_bytes: int = Field(default=20, ge=1)
    stream_gap_ms: float = Field(default=0, ge=0)

    _ordered = field_validator("text_bytes", "output_tokens", "cached_tokens", "reasoning_tokens", mode="before")(
        _range_or_number
    )


RetryAfter = Literal["seconds", "date", "milliseconds", "none"]


class Limits(_Strict):
    """Calls and tokens a minute, for each key and model on its own; null is no limit."""

    rpm: float | None = Field(default=None, gt=0)
    tpm: float | None = Field(default=None, gt=0)
    burst_s: float = Field(default=60, gt=0)
    headers: Literal["always", "after_429", "never"] = "always"
    retry_after: RetryAfter = "seconds"
    count_refused: bool = False


class FailFirst(_Strict):
    """The first calls of each job meet this fault."""

    calls: int = Field(default=0, ge=0)
    fault: str = "500"

    @field_validator("fault", mode="before")
    @classmethod
    def _known(cls, value: object) -> str:
        return _fault_name(value)


class Drip(_Strict):
    """How a dripping body comes."""

    bytes: int = Field(default=1, ge=1)
    every_ms: float = Field(default=100, ge=0)


class Rates(_Strict):
    """A price that replaces the table's, in whole pico-dollars a token (a dollar a million tokens is 1,000,000)."""

    input: int = Field(ge=0, le=10**9)
    cached_input: int = Field(ge=0, le=10**9)
    output: int = Field(ge=0, le=10**9)

    def as_price(self) -> Price:
        """The same as the table writes it."""
        return Price(self.input, self.cached_input, self.output)


class ModelBehaviour(_Strict):
    """How one model behaves."""

    latency: Latency = FixedLatency()
    answer: Answer = Answer()
    limits: Limits = Limits()
    faults: Mapping[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    fail_first: FailFirst = FailFirst()
    fault_retry_after_s: float | None = Field(default=None, ge=0)
    drip: Drip = Drip()
    oversized_bytes: int = Field(default=32_000_000, ge=1, le=1_000_000_000)
    price: Rates | None = None

    @field_validator("latency", mode="before")
    @classmethod
    def _fixed_by_default(cls, value: object) -> object:
        return {"kind": "fixed", **value} if isinstance(value, dict) and "kind" not in value else value

    @field_validator("faults", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        return {_fault_name(name): rate for name, rate in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _at_most_all(self) -> "ModelBehaviour":
        if sum(self.faults.values()) > 1 + 1e-9:
            raise ValueError("the rates of all faults together must not be above 1")
        return self

    def over(self, default: "ModelBehaviour") -> "ModelBehaviour":
        """These sections where they are given, the default's where they are not."""
        return default.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})


class Keys(_Strict):
    """Bearer keys that are refused."""

    bad: frozenset[str] = frozenset()
    no_quota: frozenset[str] = frozenset()


class Behaviour(_Strict):
    """Everything that can be set; the package's docstring explains each field."""

    seed: int = 0
    any_model: bool = False
    keys: Keys = Keys()
    default: ModelBehaviour = ModelBehaviour()
    models: Mapping[str, ModelBehaviour] = Field(default_factory=dict)

    def of(self, model: str) -> ModelBehaviour:
        """How that model behaves: its own sections over the default's."""
        own = self.models.get(model)
        return own.over(self.default) if own else self.default


_SECTIONS = (
    Behaviour,
    ModelBehaviour,
    Answer,
    Limits,
    FailFirst,
    Drip,
    Rates,
    Keys,
    FixedLatency,
    UniformLatency,
    LognormalLatency,
)


def read_behaviour(content: bytes) -> Behaviour:
    """A behaviour from YAML or JSON (nothing at all is the default); raises `BehaviourError`."""
    try:
        tree = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BehaviourError(f"the behaviour is neither YAML nor JSON: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict | None):
        raise BehaviourError(f"the behaviour must be a mapping of fields, not {type(tree).__name__}")
    try:
        return Behaviour.model_validate(tree or {})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise BehaviourError(_sentence(first["type"], first["loc"], first["msg"])) from error


def _sentence(kind: str, where: tuple[int | str, ...], message: str) -> str:
    path = ".".join(str(part) for part in where)
    if kind != "extra_forbidden":
        return f"{path or 'behaviour'}: {message.removeprefix('Value error, ')}"
    known = {name for section in _SECTIONS for name in section.model_fields}
    near = difflib.get_close_matches(str(where[-1]), known, n=1)
    return f"{path}: there is no such field" + (f"; did you mean {near[0]}?" if near else "")


def _fault_name(value: object) -> str:
    name = str(value)
    if name not in FAULTS:
        near = difflib.get_close_matches(name, FAULTS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"{name!r} is no fault; {hint}There are: {', '.join(sorted(FAULTS))}")
    return name
