"""The fair rule over a day's traffic and over whatever Hypothesis thinks of, in virtual time: slots that are busy, jobs whose estimates are wrong."""

import heapq
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.engine.fair import FairQueue

HOUR_S = 3_600.0
WEIGHTS = {"interactive": 8.0, "normal": 4.0, "batch": 1.0}
TENANTS = {"gold": 3.0, "silver": 2.0, "bronze": 1.0}


@dataclass(slots=True)
class Arrival:
    """A job: when it comes, what it is thought to cost, what it costs, and how long its call takes."""

    at: float
    priority: str
    tenant: str
    estimate: float
    cost: float
    seconds: float
    deadline: float
    started: float = math.nan
    ended: float = math.nan


@dataclass
class Day:
    """Slots, some of them kept for the first priority, on a fair queue; the clock jumps from event to event."""

    slots: int
    reserved: int
    weight: Callable[[str], float] = lambda _: 1.0
    running: list[tuple[float, int, Arrival]] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.fair: FairQueue[Arrival] = FairQueue(WEIGHTS, self.weight)
        self.numbers = itertools.count()

    def live(self, arrivals: Iterable[Arrival], until: float = math.inf) -> None:
        """Let all of these come, and serve until nothing is left or the time is over."""
        coming = sorted(arrivals, key=lambda one: one.at)
        number = 0
        while self.now < until and (number < len(coming) or self.running or len(self.fair)):
            next_in = coming[number].at if number < len(coming) else math.inf
            next_out = self.running[0][0] if self.running else math.inf
            self.now = min(next_in, next_out)
            while self.running and self.running[0][0] <= self.now:
                self._end(heapq.heappop(self.running)[2])
            while number < len(coming) and coming[number].at <= self.now:
                one = coming[number]
                self.fair.push(one, one.priority, one.tenant, cost=one.estimate, deadline=one.deadline)
                number += 1
            self._start()

    def _end(self, one: Arrival) -> None:
        one.ended = self.now
        self.fair.correct(one.priority, one.tenant, one.cost - one.estimate)

    def _start(self) -> None:
        while len(self.running) < self.slots:
            one = self.fair.pop("interactive" if len(self.running) >= self.slots - self.reserved else None)
            if one is None:
                return
            one.started = self.now
            heapq.heappush(self.running, (self.now + one.seconds, next(self.numbers), one))


def traffic(chance: Random) -> list[Arrival]:
    """24 hours: people who ask by day, a service that asks all the time, and three batches of the night that come at once."""
    jobs: list[Arrival] = []
    for second in range(24 * 3_600):
        by_day = 0.16 * max(math.sin(math.pi * (second / HOUR_S - 7) / 14), 0.0)
        for priority, tenants, rate in (("interactive", ("shop", "desk"), by_day), ("normal", ("mail",), 0.15)):
            if chance.random() < rate:
                jobs.append(arrival(chance, float(second), priority, chance.choice(tenants), 600.0))
    for tenant, count, size in (("bronze", 9_000, 0.5), ("silver", 9_000, 1.0), ("gold", 9_000, 2.0)):
        jobs += [arrival(chance, 0.0, "batch", tenant, 86_400.0, size) for _ in range(count)]
    return jobs


def arrival(  # noqa: PLR0917 what a job is
    chance: Random, at: float, priority: str, tenant: str, patience_s: float, size: float = 1.0
) -> Arrival:
    """A job whose estimate knows nothing of its true output."""
    output = chance.lognormvariate(5.0, 0.7) * size
    return Arrival(
        at,
        priority,
        tenant,
        estimate=300.0 + 4 * 256,
        cost=300.0 + 4 * output,
        seconds=1.0 + output / 50,
        deadline=at + patience_s * chance.uniform(0.5, 1.0),
    )


@pytest.fixture(scope="module")
def day() -> list[Arrival]:
    """A day that was lived, with what became of each job."""
    jobs = traffic(Random(11))
    Day(slots=6, reserved=1, weight=lambda tenant: TENANTS.get(tenant, 1.0)).live(jobs)
    return jobs


def waits(jobs: Iterable[Arrival]) -> list[float]:
    return sorted(one.started - one.at for one in jobs)


def test_every_job_of_the_day_is_served_though_more_urgent_ones_come_all_the_time(day: list[Arrival]) -> None:
    assert len(day) > 35_000
    assert not [one for one in day if math.isnan(one.ended)]


def test_people_who_ask_do_not_notice_the_night_batches(day: list[Arrival]) -> None:
    longest_call_s = max(one.seconds for one in day)
    asked = waits(one for one in day if one.priority == "interactive")
    assert asked[len(asked) // 2] < 0.1
    assert asked[len(asked) * 99 // 100] < longest_call_s / 3
    served = waits(one for one in day if one.priority == "normal")
    assert served[len(served) * 99 // 100] < 2 * longest_call_s


def test_no_shared_slot_is_free_while_a_job_waits(day: list[Arrival]) -> None:
    steps: list[tuple[float, int, int]] = []  # when, change of running, change of waiting
    for one in day:
        steps += [(one.at, 0, 1), (one.started, 1, -1), (one.ended, -1, 0)]
    running = waiting = 0
    for _, group in itertools.groupby(sorted(steps), key=lambda step: step[0]):
        for _, runs, waits_ in group:
            running, waiting = running + runs, waiting + waits_
        assert running <= 6
        assert waiting == 0 or running >= 5


def test_tenants_share_each_hour_in_which_all_have_work_by_their_weights(day: list[Arrival]) -> None:
    first_to_end = min(max(one.started for one in day if one.tenant == tenant) for tenant in TENANTS)
    hours = int(first_to_end // HOUR_S)
    assert hours >= 4
    served: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for one in day:
        if one.priority == "batch":
            served[int(one.ended // HOUR_S)][one.tenant] += one.cost
    for hour in range(hours):
        shares = {tenant: served[hour][tenant] / weight for tenant, weight in TENANTS.items()}
        fair = sum(shares.values()) / len(shares)
        assert shares == {tenant: pytest.approx(fair, rel=0.05) for tenant in TENANTS}, f"hour {hour}"


def test_within_a_tenant_nothing_overtakes_an_earlier_deadline(day: list[Arrival]) -> None:
    batch = [one for one in day if one.tenant == "gold"]  # all of them were there from the beginning
    started = [one.deadline for one in sorted(batch, key=lambda one: one.started)]
    drops = sum(one > other for one, other in itertools.pairwise(started))
    assert drops <= 6 * 2  # those that start in the same moment have no order


@settings(max_examples=25, deadline=None)
@given(
    weights=st.lists(st.floats(0.5, 4), min_size=2, max_size=4),
    slots=st.integers(1, 3),
    seed=st.integers(0, 2**32),
    wrong=st.floats(0.25, 4),
)
def test_who_always_has_work_is_served_by_weight_within_five_percent_whatever_the_estimates_were(
    weights: list[float], slots: int, seed: int, wrong: float
) -> None:
    chance, by_tenant = Random(seed), {str(number): weight for number, weight in enumerate(weights)}
    largest = 4.0 * max(wrong, 1.0)
    enough = 20 * (slots + 2) * largest / min(weights)  # what one job too many is then less than a twentieth of
    jobs = [
        Arrival(0.0, "batch", tenant, estimate=cost * wrong, cost=cost, seconds=cost, deadline=0.0)
        for tenant, weight in by_tenant.items()
        for cost in (chance.uniform(1, 4) for _ in range(int(1.3 * enough * weight) + 10))
    ]
    until = enough * sum(weights) / slots
    Day(slots, 0, by_tenant.__getitem__).live(jobs, until)
    served: dict[str, float] = defaultdict(float)
    for one in jobs:
        served[one.tenant] += one.cost if one.ended <= until else 0.0
    shares = {tenant: served[tenant] / weight for tenant, weight in by_tenant.items()}
    fair = sum(shares.values()) / len(shares)
    assert shares == {tenant: pytest.approx(fair, rel=0.05) for tenant in shares}
