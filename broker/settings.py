"""All settings: one file, read once into frozen models, its scalars overridden by the environment.

The file is `aibroker.yaml`, or what `AIBROKER_SETTINGS` names. The environment overrides top-level scalars as `AIBROKER_<NAME>` and a section's
as `AIBROKER_<SECTION>_<NAME>`; a provider's as `AIBROKER_PROVIDERS_<NAME>_BASE_URL`. Durations name their unit. Every setting with unit and
meaning: `deploy/settings.yaml`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator

from broker.errors import SettingsError
from broker.limit_versions import LimitVersion, of_quotas
from broker.limits import Limit, Quota, Rulebook, Tenancy, TimeZone, check_overlaps
from broker.own_prices import Price, check_prices
from broker.section import Section
from broker.settings_file import Place, read, sentences
from broker.tags import Tagging
from schemas.job import TagName, TagValue

FILE_VARIABLE = "AIBROKER_SETTINGS"
DEFAULT_FILE = "aibroker.yaml"

Seconds = Annotated[float, Field(gt=0, le=604_800)]
Milliseconds = Annotated[int, Field(ge=0, le=600_000)]
Weight = Annotated[float, Field(ge=0.001, le=1_000, allow_inf_nan=False)]
"""A share of the service, relative to the others': so far from zero and from infinity that nothing starves and no sum overflows."""

TenantOrAny = Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9._-]{0,62}|\*)$")]
"""A tenant, or "*" for each that is not named."""


class Priority(Section):
    """One priority; the list's order is theirs."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,30}$")]
    weight: Weight
    deadline_s: Seconds


class TenantShare(Section):
    """What a tenant is given while others have work, too; whose it is, and in which time zone its days and months are."""

    weight: Weight = 1.0
    organisation: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] | None = None
    time_zone: TimeZone = "UTC"
    tags: dict[TagName, tuple[TagValue, ...]] | None = None
    """The tags that its jobs may carry, each with its values (none named: any); null: any tags."""


class Worker(Section):
    """How one worker process works."""

    slots: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    ready: Annotated[int, Field(ge=1, le=1_000_000)] = 4_000
    payload_mb: Annotated[int, Field(ge=2, le=100_000)] = 128
    read_records: Annotated[int, Field(ge=1, le=10_000)] = 500
    read_mb: Annotated[int, Field(ge=1, le=1_000)] = 16
    waiting_documents: Annotated[int, Field(ge=1)] = 1_000_000
    waiting_mb: Annotated[int, Field(ge=1)] = 10_000
    reserved_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    grace_s: Seconds = 30.0
    watchdog_s: Seconds = 30.0


class Provider(Section):
    """One provider: an address, a key, and what it serves."""

    kind: Literal["openai"] = "openai"
    base_url: str
    api_key: SecretStr = SecretStr("")
    models: tuple[str, ...] = ()
    """The models that it serves; none named: all that have a price."""
    priced_as: str = "openai"
    """The provider's name in the price table and in the ledger (OpenTelemetry's values)."""
    region: str | None = None
    service_tier: str | None = None
    timeout_s: Seconds = 600.0
    http2: bool = False
    """Many calls share a connection: agreed upon in the handshake of an https:// address, from the first byte on of an http:// one."""

    @model_validator(mode="before")
    @classmethod
    def _trimmed(cls, data: Any) -> Any:  # noqa: ANN401 pydantic hands over whatever stood there
        if isinstance(data, dict) and isinstance(data.get("base_url"), str):
            url = data["base_url"].rstrip("/")
            if not url.startswith(("http://", "https://")):
                raise ValueError("base_url must begin with http:// or https://")
            return {**data, "base_url": url}
        return data


class RouteTarget(Section):
    """One target of a route: a provider of `providers` and the model's name there."""

    provider: str
    model: str


class Estimates(Section):
    """How a job's output is estimated before its call: a percentile of what answers of its tenant, model and tag had."""

    percentile: Annotated[int, Field(ge=1, le=100)] = 90
    tag: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None


class Guards(Section):
    """What the guards do with what they find: allow it, flag it, redact it, or block the job."""

    pii_input: Literal["allow", "flag", "redact", "block"] = "flag"
    pii_output: Literal["allow", "flag", "redact", "block"] = "flag"


class Telemetry(Section):
    """What leaves for an OpenTelemetry collector."""

    exporter: Literal["none", "log", "otlp"] = "none"
    sampled_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    interval_s: Seconds = 10.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class Health(Section):
    """Where a worker answers who asks whether it lives and is ready; nowhere where no port is set."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] | None = None


def _priorities() -> tuple[Priority, ...]:
    return (
        Priority(name="interactive", weight=8, deadline_s=600),
        Priority(name="normal", weight=4, deadline_s=86_400),
        Priority(name="batch", weight=1, deadline_s=604_800),
    )


_USUAL_SHARE = TenantShare()


class Settings(Section):
    """Everything that can be set."""

    kafka: str = "127.0.0.1:9092"
    mongo: SecretStr = SecretStr("mongodb://127.0.0.1:27017/?replicaSet=aibroker")
    prefix: Annotated[str, Field(pattern=r"^([a-zA-Z0-9][a-zA-Z0-9_-]{0,30})?$")] = ""
    driver: Literal["pymongo", "motor"] = "pymongo"
    transport: Literal["rust", "httpx"] = "rust"
    session_timeout_s: Seconds = 45.0
    lease_s: Annotated[float, Field(ge=3, le=600)] = 30.0
    fail_at: Annotated[str, Field(pattern=r"^([a-z_]+(:\d+)?)?$")] = ""
    expire_s: Seconds = 604_800.0
    priorities: Annotated[tuple[Priority, ...], Field(min_length=1)] = Field(default_factory=_priorities)
    tenants: dict[TenantOrAny, TenantShare] = Field(default_factory=lambda: {"*": _USUAL_SHARE})
    worker: Worker = Worker()
    providers: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,30}$")], Provider] = Field(default_factory=dict)
    routes: dict[str, tuple[RouteTarget, ...]] = Field(default_factory=dict)
    quotas: tuple[Quota, ...] = ()
    limits: tuple[Limit, ...] = ()
    estimates: Estimates = Estimates()
    prices: tuple[Price, ...] = ()
    guards: Guards = Guards()
    telemetry: Telemetry = Telemetry()
    health: Health = Health()

    @model_validator(mode="after")
    def _routes_lead_somewhere(self) -> "Settings":
        for model, targets in self.routes.items():
            for target in targets:
                if target.provider not in self.providers:
                    known = ", ".join(self.providers) or "none"
                    raise ValueError(f"routes.{model} names the provider {target.provider!r}; configured: {known}")
        return self

    @model_validator(mode="after")
    def _http2_has_its_transport(self) -> "Settings":
        name = next((name for name, provider in self.providers.items() if provider.http2), None)
        if name is not None and self.transport != "rust":
            raise ValueError(
                f"providers.{name}.http2 needs `transport: rust`: {self.transport} speaks HTTP/1.1 alone here"
            )
        return self

    @model_validator(mode="after")
    def _priorities_differ(self) -> "Settings":
        names = [priority.name for priority in self.priorities]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"priorities names {twice!r} twice; each has one weight and one deadline")
        return self

    @model_validator(mode="after")
    def _limits_differ(self) -> "Settings":
        check_overlaps(of_quotas(self.quotas), self.limits)
        return self

    @model_validator(mode="after")
    def _prices_differ(self) -> "Settings":
        check_prices(self.prices)
        return self

    def rulebook(self, said: LimitVersion | None = None) -> Rulebook:
        """Which limits apply to a job: those that were set by command, or these here."""
        tenants = {name: Tenancy(share.organisation, share.time_zone) for name, share in self.tenants.items()}
        limits = said.limits if said is not None else None
        if limits is None:
            limits = (*(limit for _, limit in of_quotas(self.quotas)), *self.limits)
        return Rulebook(limits, tenants, said.version if said is not None else 0)

    def tagging(self) -> Tagging:
        """Which tags the jobs of a tenant may carry."""
        return Tagging({name: share.tags for name, share in self.tenants.items()})

    def tenant_weight(self, tenant: str) -> float:
        """A tenant's weight inside its priority: its own, else that of "*", else 1."""
        share = self.tenants.get(tenant) or self.tenants.get("*") or _USUAL_SHARE
        return share.weight

    def topic(self, name: str) -> str:
        """The topic's name in this deployment: `name` behind the prefix."""
        return f"{self.prefix}.{name}" if self.prefix else name

    def group(self, name: str) -> str:
        """The consumer group's name in this deployment."""
        return f"{self.prefix or 'aibroker'}.{name}"

    @property
    def database(self) -> str:
        """The database's name in this deployment."""
        return self.prefix or "aibroker"

    @property
    def source(self) -> str:
        """`ce_source` of everything that this deployment writes."""
        return f"urn:aibroker:{self.prefix or 'aibroker'}"


def load(environment: Mapping[str, str], file: Path | None = None) -> Settings:
    """Read the settings file, if there is one, and what the environment overrides.

    Raises:
        SettingsError: With file, line, field and what is allowed.
    """
    path = file or Path(environment.get(FILE_VARIABLE, DEFAULT_FILE))
    data: dict[str, Any] = {}
    lines: dict[Place, int] = {}
    if path.exists():
        data, lines = read(path)
    elif file or FILE_VARIABLE in environment:
        raise SettingsError(f"{path}: there is no such settings file; make it or unset {FILE_VARIABLE}")
    sources = _override(data, environment)
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise SettingsError("\n".join(sentences(error, path, lines, sources))) from None


def _override(data: dict[str, Any], environment: Mapping[str, str]) -> dict[Place, str]:
    """Put what the environment says into `data`; return the variable of each place."""
    sources: dict[Place, str] = {}
    for variable, value in environment.items():
        place = _place(variable)
        if place is None:
            continue
        inner = data
        for name in place[:-1]:
            inner[name] = dict(inner[name]) if isinstance(inner.get(name), dict) else {}
            inner = inner[name]
        inner[place[-1]] = value
        sources[place] = variable
    return sources


def _place(variable: str) -> Place | None:
    """Return the place of the setting that an environment variable names, None if it names none."""
    name = variable.removeprefix("AIBROKER_").lower()
    if variable == FILE_VARIABLE or not variable.startswith("AIBROKER_"):
        return None
    if (
        name in Settings.model_fields
        and name not in _SECTIONS
        and name not in {"routes", "quotas", "limits", "prices", "priorities", "providers", "tenants"}
    ):
        return (name,)
    section, _, field = name.partition("_")
    if section in _SECTIONS and field in _SECTIONS[section].model_fields:
        return (section, field)
    provider, _, field = field.partition("_")
    if section == "providers" and field in Provider.model_fields:
        return (section, provider, field)
    raise SettingsError(f"{variable}: there is no such setting; deploy/settings.yaml lists all")


_SECTIONS: dict[str, type[Section]] = {
    "worker": Worker,
    "estimates": Estimates,
    "guards": Guards,
    "telemetry": Telemetry,
    "health": Health,
}


def effective(settings: Settings) -> dict[str, Any]:
    """The settings as they are, secrets masked, for the log line at the start of a process."""
    shown = settings.model_dump(mode="json")
    shown["mongo"] = _without_password(settings.mongo.get_secret_value())
    return shown


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    credentials, at, host = rest.rpartition("@")
    return f"{scheme}://***@{host}" if at and credentials else url
