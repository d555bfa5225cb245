"""Which targets may answer a job: a pure look-up of its model; a model without a price is not routed, because its ledger could not be right."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from broker.outputs import choices, output_limit
from broker.own_prices import BATCH_TIER
from broker.prices import Price, Prices
from broker.routes import places
from broker.settings import Provider, Settings
from schemas.codes import MEANING, Code
from schemas.job import Job
from schemas.result import Status
from workers.outcome import Ended
from workers.providers.protocol import Tokens

SUGGESTED = 5
DEFAULT_TIER = "default"
"""What OpenAI calls the tier of who asks for none."""
KNOWN_TIERS = frozenset({"auto", "default", "flex", "priority", "scale"})
"""The service tiers that providers know, as bodies name them."""
KNOWN_S = 60
"""So long, in seconds, targets are kept with their prices."""


@dataclass(slots=True, frozen=True)
class Target:
    """A provider, a model, a credential and a service tier, and what they cost."""

    credential: str  # the provider's name in the settings: one key each
    provider: str  # as in the ledger: OpenTelemetry's values
    model: str
    price: Price
    region: str | None
    service_tier: str | None
    timeout_s: float


class Router:
    """The table of models to targets, in the order in which they are tried.

    Args:
        settings: Routes and providers.
        prices: What models cost.
    """

    def __init__(self, settings: Settings, prices: Prices, clock: Callable[[], float] = time.monotonic) -> None:
        self._providers: Mapping[str, Provider] = settings.providers
        self._settings = settings
        self._tiers = KNOWN_TIERS.union(price.service_tier for price in settings.prices if price.service_tier) - {
            BATCH_TIER
        }
        self._prices = prices
        self._clock = clock
        self._known: dict[tuple[str, str | None], tuple[Target, ...]] = {}
        self._until = 0.0

    def targets(self, job: Job) -> tuple[Target, ...]:
        """The targets of a job, at least one.

        Raises:
            Ended: `unknown_model`, with the models that are known.
        """
        if (now := self._clock()) >= self._until:  # prices may hold for a time only
            self._known.clear()
            self._until = now + KNOWN_S
        tier = job.body.get("service_tier")
        asked = (job.model, tier if isinstance(tier, str) and tier in self._tiers else None)
        found = self._known.get(asked)
        if found is None:
            found = self._find(*asked)
            if found:  # unknown names are not kept: there is no end to them
                self._known[asked] = found
        if not found:
            known = sorted(
                {*self._settings.routes, *(model for provider in self._providers.values() for model in provider.models)}
            )
            hint = f"; configured are {', '.join(known[:SUGGESTED])}" if known else ""
            raise Ended(
                Status.REJECTED,
                Code.UNKNOWN_MODEL,
                f"body.model: no route for {job.model[:80]!r}{hint}; add a route and a price",
            )
        return found

    def affordable(self, job: Job, targets: Sequence[Target], input_tokens: int) -> Sequence[Target]:
        """The targets at which a job cannot cost more than it allows: counted input and `max_tokens` at the target's price.

        Raises:
            Ended: `cost_limit`, where it may at each.
        """
        if job.max_cost_usd is None:
            return targets
        costs = [most_cost(job, target, input_tokens) for target in targets]
        found = [
            target for target, most in zip(targets, costs, strict=True) if most is not None and most <= job.max_cost_usd
        ]
        if not found:
            asked = "the body names no max_tokens" if costs[0] is None else f"it may cost {costs[0]:f} dollars"
            raise Ended(Status.REJECTED, Code.COST_LIMIT, f"max_cost_usd: {asked}; {MEANING[Code.COST_LIMIT]}")
        return found

    def _find(self, model: str, tier: str | None) -> tuple[Target, ...]:
        targets = (self._target(name, target_model, tier) for name, target_model in places(self._settings, model))
        return tuple(target for target in targets if target is not None)

    def _target(self, name: str, model: str, asked_tier: str | None) -> Target | None:
        """`asked_tier` is what the body says: it goes to the provider before the settings' own."""
        provider = self._providers[name]
        tier = asked_tier or provider.service_tier
        price = self._prices.resolve(provider.priced_as, model, tier)
        if price is None:
            return None
        return Target(name, provider.priced_as, model, price, provider.region, tier, provider.timeout_s)


def at_tier(target: Target, tier: str, prices: Prices) -> Target:
    """The same target with the price of the service tier at which it answered: that is on the invoice. Its own where that has none.

    Of the batch tier no answer tells: it stays what the settings say.
    """
    if target.service_tier == BATCH_TIER:
        return target
    price = prices.resolve(target.provider, target.model, tier) or target.price
    return replace(target, price=price, service_tier=tier)


def most_cost(job: Job, target: Target, input_tokens: int) -> Decimal | None:
    """The most that one call may cost, in dollars; None where the body sets no limit to its output."""
    if job.operation in {"embeddings", "moderations"}:
        return target.price.cost(Tokens(input_tokens))
    limit = output_limit(job.body)
    if limit is None or not isinstance(job.body.get("n", 1), int):
        return None
    return target.price.cost(Tokens(input_tokens, output_tokens=limit * choices(job.body)))
