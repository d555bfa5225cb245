"""Which tags the jobs of a tenant may carry: charge-back is only as good as its names and values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

Allowed = Mapping[str, Sequence[str]]
"""Names, each with its values; no value named: any."""

_SHOWN = 10


@dataclass(slots=True, frozen=True)
class Tagging:
    """What each tenant's jobs may carry; "*" is each tenant that is not named. Of whom nothing is said, any tags are allowed."""

    tenants: Mapping[str, Allowed | None] = field(default_factory=dict)

    def refusal(self, tenant: str, tags: Mapping[str, str]) -> str | None:
        """Why a job with these tags must not run, None where it may: the tag, and what is allowed in its place."""
        allowed = self.tenants[tenant] if tenant in self.tenants else self.tenants.get("*")
        if allowed is None:
            return None
        for name, value in tags.items():
            values = allowed.get(name)
            if values is None:
                return f"tags.{name}: the tenant {tenant} has no such tag; {_instead(name, list(allowed))}"
            if values and value not in values:
                return f"tags.{name}: {value[:80]!r} is no value of this tag; {_instead(value, values)}"
        return None


def _instead(given: str, allowed: Sequence[str]) -> str:
    if not allowed:
        return "it may carry none"
    near = get_close_matches(given, allowed, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    more = f" and {len(allowed) - _SHOWN} more" if len(allowed) > _SHOWN else ""
    return f"{hint}allowed are {', '.join(allowed[:_SHOWN])}{more}"
