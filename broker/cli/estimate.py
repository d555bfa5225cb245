"""`aibroker submit --estimate`: tokens and cost of a file's jobs per model before anything is sent, and whether the limits have room for them.

Input is counted as the model's tokenizer does. Output is what the latest answers of the same tenant, model and tag had: `p50` takes the middle length
for each job, `p90` a length that one in ten passes; so the sum of a large file is nearer to `p50`, and rarely above `p90`. Each job is priced
as a call of its own.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from broker import mongo
from broker.cli import database, screen
from broker.cli.limit_rows import declared
from broker.limits import Applied, Facts, Rulebook, book_id, units
from broker.outputs import WITHOUT_OUTPUT, Outputs, choices, likely_output, output_limit
from broker.prices import Price, Prices
from broker.routes import places
from broker.settings import Settings
from broker.tokens import count_input
from broker.windows import window
from schemas.money import plain
from schemas.usage import Usage

PERCENTILES = (50, 90)
LATEST = 1_000
"""Of so many answers of a tenant and model the lengths are looked at."""


class Kind(NamedTuple):
    """What jobs have in common that are estimated alike."""

    tenant: str
    model: str
    batch_id: str | None
    tags: tuple[tuple[str, str], ...]

    @property
    def facts(self) -> Facts:
        """What limits look at."""
        return Facts(self.tenant, self.model, self.batch_id, dict(self.tags))


@dataclass(slots=True)
class Sums:
    """Jobs of one kind: how many bring in so many tokens, and ask for answers of at most so many (None: without a bound), and how many answers."""

    sizes: Counter[tuple[int, int | None, int]] = field(default_factory=Counter)

    def likely(self, known: int | None) -> Iterator[tuple[int, Usage]]:
        """How many jobs each use what, where an answer has so many tokens as are known of others, or its bound."""
        for (input_tokens, cap, answers), jobs in self.sizes.items():
            yield jobs, Usage(input_tokens=input_tokens, output_tokens=likely_output(cap, answers, known))


def summed(records: Iterable[bytes], rules: Rulebook, tag: str | None) -> dict[Kind, Sums]:
    """Count the records of jobs."""
    names = {*rules.tags, *([tag] if tag else [])}
    found: dict[Kind, Sums] = {}
    for record in records:
        job = orjson.loads(record)
        body, model = job["body"], str(job["body"]["model"])
        tags = tuple(sorted((name, value) for name, value in (job.get("tags") or {}).items() if name in names))
        sums = found.setdefault(Kind(job["tenant"], model, job.get("batch_id"), tags), Sums())
        cap = 0 if job.get("operation", "chat") in WITHOUT_OUTPUT else output_limit(body)
        sums.sizes[_input_tokens(body, model), cap, choices(body)] += 1
    return found


def _input_tokens(body: Mapping[str, Any], model: str) -> int:
    asked = [body.get(name) for name in ("messages", "input", "instructions", "prompt")]
    return count_input(body, _texts(asked), model)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in {"role", "type"}:
                yield from _texts(inner)


class Target(NamedTuple):
    """Who would answer first: the model's name there, and its price."""

    model: str
    price: Price | None


def first_target(settings: Settings, prices: Prices, model: str) -> Target:
    """The first target that a worker would call: of the model's route, or of the providers that serve it; one without a price is not called."""
    for provider_name, name in places(settings, model):
        provider = settings.providers[provider_name]
        price = prices.resolve(provider.priced_as, name, provider.service_tier)
        if price is not None:
            return Target(name, price)
    return Target(model, None)


async def learned(opened: mongo.Database, kinds: Iterable[tuple[str, str]], tag: str | None) -> Outputs:
    """The lengths of the latest answers, by tenant and model, from the ledger."""
    outputs = Outputs()
    for tenant, model in kinds:
        query = {"tenant": tenant, "request_model": model, "billed": True, "estimated": False}
        fields = {"output_tokens": 1, "tags": 1}
        rows = opened["usage"].find(query, fields, sort=[("at", -1)], limit=LATEST, hint="tenant")
        for row in await rows.to_list(None):
            value = (row.get("tags") or {}).get(tag, "") if tag else ""
            outputs.learn(tenant, model, value, row["output_tokens"])
    return outputs


def estimates(
    found: Mapping[Kind, Sums], settings: Settings, outputs: Outputs
) -> Iterator[tuple[Kind, dict[str, Any]]]:
    """What each kind will probably use and cost."""
    prices = Prices(settings.prices)
    for kind, sums in found.items():
        target = first_target(settings, prices, kind.model)
        row: dict[str, Any] = {"tenant": kind.tenant, "model": kind.model, "jobs": sums.sizes.total()}
        for percent in PERCENTILES:
            known = _known_output(kind, target, settings, outputs, percent=percent)
            used = list(sums.likely(known))
            row["input_tokens"] = sum(jobs * tokens.input_tokens for jobs, tokens in used)
            row[f"output_tokens_p{percent}"] = sum(jobs * tokens.output_tokens for jobs, tokens in used)
            row[f"cost_usd_p{percent}"] = None if target.price is None else _cost(target.price, used)
            row["output_is"] = "assumed" if known is None else "learned"
        yield kind, row


def _known_output(kind: Kind, target: Target, settings: Settings, outputs: Outputs, *, percent: int) -> int | None:
    tag = dict(kind.tags).get(settings.estimates.tag or "", "")
    return outputs.estimate(kind.tenant, target.model, tag, percent)


def _cost(price: Price, used: Iterable[tuple[int, Usage]]) -> Decimal:
    return price.dollars(sum(jobs * price.amount(tokens) for jobs, tokens in used))


def by_model(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows summed by tenant and model."""
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        into = merged.setdefault((row["tenant"], row["model"]), {**row, **dict.fromkeys(_ADDED, 0)})
        for name in _ADDED:
            into[name] = None if into[name] is None or row[name] is None else into[name] + row[name]
        if row["output_is"] == "assumed":
            into["output_is"] = "assumed"
    return list(merged.values())


_ADDED = (
    "jobs",
    "input_tokens",
    *(f"{name}_p{percent}" for percent in PERCENTILES for name in ("output_tokens", "cost_usd")),
)


async def rooms(
    opened: mongo.Database, rules: Rulebook, needs: Iterable[tuple[Kind, dict[str, Any]]], now: datetime
) -> list[dict[str, Any]]:
    """For each limit that applies: what it has left now, what the file needs of it by `p90`, and whether that fits."""
    needed: dict[tuple[str, str], tuple[Applied, dict[str, Any]]] = {}
    for kind, row in needs:
        for applied in rules.applying(kind.facts):
            _, sums = needed.setdefault(
                (applied.subject, applied.limit.per),
                (applied, dict.fromkeys(("requests", "tokens", "usd"), Decimal(0))),
            )
            sums["requests"] += row["jobs"]
            sums["tokens"] += row["input_tokens"] + row["output_tokens_p90"]
            sums["usd"] += row["cost_usd_p90"] or 0
    return [room for applied, sums in needed.values() for room in await _room(opened, applied, sums, now)]


async def _room(
    opened: mongo.Database, applied: Applied, sums: Mapping[str, Any], now: datetime
) -> list[dict[str, Any]]:
    limit = applied.limit
    if limit.per == "concurrent":
        return []  # it says how many run at once, not how many may run
    current = window(limit.per, applied.zone, now)
    book = await opened["quotas"].find_one({"_id": book_id(applied.subject, limit.per, current)}) or {}
    entries = [entry for entry in (book.get("closed"), *book.get("grants", {}).values()) if entry]
    found = []
    for unit, most in units(limit):
        used = sum((_decimal(entry[unit]) for entry in entries), Decimal(0))
        left = max(Decimal(most) - used, Decimal(0))
        room = {"limit_of": applied.subject, "per": limit.per, "mode": limit.mode, "unit": unit, "limit": Decimal(most)}
        found.append({**room, "left": left, "needed_p90": Decimal(sums[unit]), "fits": Decimal(sums[unit]) <= left})
    return found


class _Need(NamedTuple):
    """What each of so many jobs of a tenant will use."""

    tenant: str
    jobs: int
    requests: int
    tokens: int
    usd: Decimal


def rooms_of_jobs(
    rules: Rulebook, found: Mapping[Kind, Sums], settings: Settings, outputs: Outputs
) -> list[dict[str, Any]]:
    """For each limit of a single job that applies: what the largest job needs by `p90`, and how many jobs are above it."""
    if not rules.of_jobs:
        return []
    needs, rooms = list(_needs(found, settings, outputs)), []
    for limit in rules.of_jobs:
        theirs = [need for need in needs if limit.counts(need.tenant)]
        for unit, most in units(limit) if theirs else ():
            largest = max(getattr(need, unit) for need in theirs)
            above = sum(need.jobs for need in theirs if getattr(need, unit) > most)
            room = {"limit_of": declared(limit), "per": limit.per, "mode": limit.mode, "unit": unit}
            amounts = {"limit": Decimal(most), "left": Decimal(most), "needed_p90": Decimal(largest)}
            rooms.append({**room, **amounts, "fits": not above, "jobs_above": above})
    return rooms


def _needs(found: Mapping[Kind, Sums], settings: Settings, outputs: Outputs) -> Iterator[_Need]:
    prices = Prices(settings.prices)
    for kind, sums in found.items():
        target = first_target(settings, prices, kind.model)
        known = _known_output(kind, target, settings, outputs, percent=90)
        for jobs, used in sums.likely(known):
            usd = Decimal(0) if target.price is None else target.price.cost(used)
            yield _Need(kind.tenant, jobs, 1, used.input_tokens + used.output_tokens, usd)


def _decimal(value: object) -> Decimal:
    amount = screen.decimal(value)
    return Decimal(str(value)) if amount is None else amount


async def estimate(settings: Settings, records: Iterable[bytes], *, as_json: bool) -> bool:
    """Write what the jobs will probably use and cost, and say whether every limit that holds has room for them now."""
    tag, prices = settings.estimates.tag, Prices(settings.prices)
    async with database.opened(settings) as opened:
        rules = settings.rulebook(await database.limits(opened))
        found = summed(records, rules, tag)
        kinds = {(kind.tenant, first_target(settings, prices, kind.model).model) for kind in found}
        outputs = await learned(opened, sorted(kinds), tag)
        rows = list(estimates(found, settings, outputs))
        limits = await rooms(opened, rules, rows, datetime.now(UTC))
    _show("estimate", "Estimate", by_model(row for _, row in rows), as_json=as_json)
    _show("limit", "Limits", limits, as_json=as_json)
    of_jobs = rooms_of_jobs(rules, found, settings, outputs)
    _show("limit", "Limits of each job", of_jobs, as_json=as_json)
    return all(row["fits"] for row in (*limits, *of_jobs) if row["mode"] == "hard")


def _show(event: str, title: str, rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        for row in rows:
            screen.write_json({"event": event, **{name: _told(value) for name, value in row.items()}})
    elif rows:
        columns = list(rows[0])
        screen.write_table(
            title,
            [name.replace("_", " ") for name in columns],
            ([_told(row[name]) for name in columns] for row in rows),
        )


def _told(value: object) -> object:
    return plain(value) if isinstance(value, Decimal) else value
