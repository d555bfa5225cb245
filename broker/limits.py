"""Limits as the settings say them, what is wrong with them, and which of them apply to a job; pure."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple, Protocol
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from broker.section import Section
from broker.thresholds import USUAL, Thresholds
from broker.windows import END, Per, Window
from schemas.job import Tenant
from schemas.money import Usd

EVERYBODY = "*"
_SHADOW = "shadow-"
Scope = Literal["organisation", "tenant", "tag", "model", "batch", "job"]
AtLimit = Literal["wait", "reject", "cheaper_model", "lower_priority"]


def _known_zone(name: str) -> str:
    if name not in _zones():
        near = get_close_matches(name, _zones(), 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"there is no time zone {name[:40]!r}; {hint}allowed are IANA's names, such as Europe/Berlin")
    return name


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


Amount = Annotated[int, Field(ge=0, le=10**15)]
"""Requests or tokens; above it somebody made a mistake."""
TimeZone = Annotated[str, AfterValidator(_known_zone)]
"""A name of IANA's time zone database."""


class Limit(Section):
    """The most that somebody may use in a window; `of` says whose limit it is, "*" gives each one its own."""

    scope: Scope
    of: Annotated[str, Field(min_length=1, max_length=400)] = EVERYBODY
    tenant: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9._-]{0,62}|\*)$")] | None = None
    per: Per
    time_zone: TimeZone | None = None
    requests: Amount | None = None
    tokens: Amount | None = None
    usd: Usd | None = None
    mode: Literal["hard", "soft", "shadow"] = "hard"
    at_limit: AtLimit = "wait"
    cheaper_model: str | None = None
    alerts: Thresholds = USUAL

    @model_validator(mode="after")
    def _whole(self) -> "Limit":
        if self.requests is None and self.tokens is None and self.usd is None:
            raise ValueError("a limit names at least one of requests, tokens and usd")
        if (self.at_limit == "cheaper_model") != (self.cheaper_model is not None):
            raise ValueError("cheaper_model names a model where at_limit is cheaper_model, and nowhere else")
        if self.mode == "soft" and self.at_limit != "wait":
            raise ValueError(
                "a soft limit lets everything pass; at_limit is for mode hard, and for what mode shadow tries"
            )
        if self.scope == "tag" and not (self.of.partition("=")[0] and self.of.partition("=")[2]):
            raise ValueError('a limit of scope tag says of which one: "team=red", or "team=*" for each value')
        if self.scope == "job" and (self.of, self.per, self.at_limit, self.mode) != _OF_A_JOB:
            raise ValueError('a limit of scope job is for each job: of "*", per lifetime, at_limit reject, mode hard')
        if self.scope in {"organisation", "tenant"} and self.tenant is not None:
            raise ValueError(f"a limit of scope {self.scope} says in `of` whose it is, not in `tenant`")
        return self

    @property
    def place(self) -> tuple[str, ...]:
        """What no two limits may have in common: whose it is, and for how long. A shadow may stand beside the one that it would replace."""
        return (self.scope, self.of, self.tenant or "", self.per, "shadow" if self.mode == "shadow" else "")

    @property
    def particular(self) -> tuple[bool, int]:
        """Of limits that would count in the same book, the greatest alone applies: who names the owner, then who names the tenant."""
        return not self.of.endswith(EVERYBODY), (None, EVERYBODY, self.tenant).index(self.tenant)

    def counts(self, tenant: str) -> bool:
        """Whether jobs of this tenant are counted, if they are of the owner."""
        return self.tenant in {None, EVERYBODY, tenant}

    @property
    def amounts(self) -> str:
        """The amounts as a person writes them."""
        usd = None if self.usd is None else f"{self.usd.normalize():f}"
        units = ((self.requests, "requests"), (self.tokens, "tokens"), (usd, "dollars"))
        return ", ".join(f"{amount} {unit}" for amount, unit in units if amount is not None)


_OF_A_JOB = (EVERYBODY, "lifetime", "reject", "hard")


class Quota(Section):
    """A limit for a tenant per day (UTC)."""

    tenant: Tenant | Literal["*"]
    requests: Amount | None = None
    tokens: Amount | None = None
    usd: Usd | None = None
    policy: Literal["wait", "reject"] = "wait"

    def limits(self) -> Iterator[Limit]:
        """The same as a limit; none where nothing is limited."""
        if (self.requests, self.tokens, self.usd) != (None, None, None):
            amounts = {"requests": self.requests, "tokens": self.tokens, "usd": self.usd}
            made = {"scope": "tenant", "of": self.tenant, "per": "day", "time_zone": "UTC", "at_limit": self.policy}
            yield Limit.model_validate({**made, **amounts})


def check_overlaps(quotas: Sequence[tuple[str, Limit]], limits: Sequence[Limit]) -> None:
    """Refuse two limits for the same; `quotas` are those that stand elsewhere, with their places.

    Raises:
        PydanticCustomError: It names both.
    """
    seen: dict[tuple[str, ...], str] = {}
    for place, limit in (*quotas, *((f"limits.{number}", limit) for number, limit in enumerate(limits))):
        other = seen.setdefault(limit.place, place)
        if other != place:
            what = f"{limit.scope} {limit.of} per {limit.per}"
            sentence = f"is for the same as {other} ({what}): leave one of them, or make the new one `mode: shadow`"
            raise PydanticCustomError("overlap", "{sentence}", {"sentence": sentence, "place": place.split(".")})


class Said(Protocol):
    """What limits look at in a job."""

    @property
    def tenant(self) -> str:
        """Who pays."""

    @property
    def model(self) -> str:
        """What it asks for."""

    @property
    def batch_id(self) -> str | None:
        """Its batch."""

    @property
    def tags(self) -> Mapping[str, str]:
        """For charge-back."""


class Facts(NamedTuple):
    """The same by itself."""

    tenant: str
    model: str
    batch_id: str | None = None
    tags: Mapping[str, str] = MappingProxyType({})


class Applied(NamedTuple):
    """A limit that applies to a job, whose it is then ("tenant:acme"), and the time zone in which its windows are."""

    limit: Limit
    subject: str
    zone: ZoneInfo


class Tenancy(NamedTuple):
    """What limits have to know of a tenant."""

    organisation: str | None = None
    time_zone: str = "UTC"


def book_id(subject: str, per: Per, window: Window) -> str:
    """The name of a limit's book in a window, "tenant:acme/day/2026-12-01T00:00Z"."""
    return f"{subject}/{per}" if window.end == END else f"{subject}/{per}/{window.start:%Y-%m-%dT%H:%MZ}"


def parts(subject: str) -> tuple[str, str, str]:
    """The scope of a limit's owner, the tenant whose jobs alone count ("": all), and the owner."""
    head, _, owner = subject.removeprefix(_SHADOW).partition(":")
    scope, _, tenant = head.partition("@")
    if scope in {"tenant", "batch"}:
        tenant = owner.partition("/")[0]
    return scope, tenant, owner


class Rulebook:
    """All limits of a deployment.

    Args:
        limits: Checked ones.
        tenants: Their organisations and time zones; "*" is for those that are not named.
        version: Of the limits; 0: they are those of the settings.
    """

    def __init__(self, limits: Sequence[Limit], tenants: Mapping[str, Tenancy], version: int = 0) -> None:
        self.version = version
        self.of_jobs = tuple(limit for limit in limits if limit.scope == "job")
        self.limits = tuple(limit for limit in limits if limit.scope != "job")
        self._tenants = tenants
        scopes = {limit.scope for limit in self.limits}
        self._by_model, self._by_batch = "model" in scopes, "batch" in scopes
        self.tags = tuple(sorted({limit.of.partition("=")[0] for limit in self.limits if limit.scope == "tag"}))
        self._plain = not (self._by_model or self._by_batch or self.tags)

    def distinct(self, facts: Said) -> object:
        """What two jobs have in common to which the same limits apply; to be looked up by."""
        if self._plain:
            return facts.tenant
        return (
            facts.tenant,
            facts.model if self._by_model else None,
            facts.batch_id if self._by_batch else None,
            *(facts.tags.get(name) for name in self.tags),
        )

    def applying(self, facts: Said) -> list[Applied]:
        """The limits that apply to a job."""
        chosen: dict[tuple[str, Per], Limit] = {}
        for limit in self.limits:
            subject = self._subject(limit, facts)
            if subject is None:
                continue
            other = chosen.get((subject, limit.per))
            if other is None or limit.particular > other.particular:
                chosen[subject, limit.per] = limit
        return [Applied(limit, subject, self._zone(limit, facts.tenant)) for (subject, _), limit in chosen.items()]

    def _subject(self, limit: Limit, facts: Said) -> str | None:
        """Whose limit this is in a job's case; None: it does not apply."""
        if not limit.counts(facts.tenant):
            return None
        owner = self._owner(limit, facts)
        if owner is None or limit.of not in {owner, EVERYBODY, _any(owner)}:
            return None
        narrowed = limit.tenant is not None and limit.scope != "batch"  # a batch is its tenant's anyway
        return (
            f"{_SHADOW if limit.mode == 'shadow' else ''}{limit.scope}{f'@{facts.tenant}' if narrowed else ''}:{owner}"
        )

    def of(self, subject: str, per: Per) -> Applied | None:
        """The limit whose book this is; None: there is none any more."""
        scope, tenant, owner = parts(subject)
        facts = Facts(tenant, "")
        match scope:
            case "organisation":
                named = next((name for name, known in self._tenants.items() if known.organisation == owner), "")
                facts = facts._replace(tenant=named)
            case "model":
                facts = facts._replace(model=owner)
            case "batch":
                facts = facts._replace(batch_id=owner.partition("/")[2])
            case "tag":
                name, _, value = owner.partition("=")
                facts = facts._replace(tags={name: value})
        found = (applied for applied in self.applying(facts) if (applied.subject, applied.limit.per) == (subject, per))
        return next(found, None)

    def _owner(self, limit: Limit, facts: Said) -> str | None:
        match limit.scope:
            case "organisation":
                return self._tenancy(facts.tenant).organisation
            case "tenant":
                return facts.tenant
            case "model":
                return facts.model
            case "batch":
                return None if facts.batch_id is None else f"{facts.tenant}/{facts.batch_id}"
            case _:
                name = limit.of.partition("=")[0]
                value = facts.tags.get(name)
                return None if value is None else f"{name}={value}"

    def _zone(self, limit: Limit, tenant: str) -> ZoneInfo:
        if limit.time_zone is not None:
            return ZoneInfo(limit.time_zone)
        shared = limit.scope in {"organisation", "model", "tag"} and limit.tenant is None
        return ZoneInfo("UTC" if shared else self._tenancy(tenant).time_zone)

    def _tenancy(self, tenant: str) -> Tenancy:
        return self._tenants.get(tenant) or self._tenants.get(EVERYBODY) or Tenancy()


def _any(owner: str) -> str:
    name, sign, _ = owner.partition("=")
    return f"{name}=*" if sign else EVERYBODY


def never_fits(limit: Limit, tokens: int, usd: Decimal) -> str:
    """Why not even an unused limit has room for a hold; "" if it has."""
    if limit.requests == 0:
        return "there may be no request at all, the limit is 0"
    if limit.tokens is not None and tokens > limit.tokens:
        return f"the job may use {tokens} tokens, more than the {limit.tokens}"
    if limit.usd is not None and usd > limit.usd:
        return f"the job may cost {usd.normalize():f} dollars, more than the {limit.usd.normalize():f}"
    return ""


def units(limit: Limit) -> Iterator[tuple[str, int | Decimal]]:
    """What is limited, with the most of it."""
    for unit in ("requests", "tokens", "usd"):
        most = getattr(limit, unit)
        if most is not None:
            yield unit, most
