"""The fair rule: work conserving, nobody starves, and who has work gets a share near the weight."""

import itertools
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from workers.engine.fair import FairQueue, Shares

WEIGHTS = {"interactive": 8.0, "normal": 4.0, "batch": 1.0}
COSTS = st.floats(1, 1_000)


def queue(**tenant_weights: float) -> FairQueue[str]:
    return FairQueue(WEIGHTS, lambda tenant: tenant_weights.get(tenant, 1.0))


def fill(
    fair: FairQueue[str], tenant: str, count: int, *, priority: str = "normal", cost: float = 1.0, late: float = 0.0
) -> None:
    for number in range(count):
        fair.push(f"{tenant}{number}", priority, tenant, cost=cost, deadline=late)


def served(fair: FairQueue[str], count: int) -> list[str]:
    """The first letters of the next jobs."""
    return [job[0] for job in (fair.pop() for _ in range(count)) if job is not None]


def test_within_a_tenant_the_earliest_deadline_is_first_and_then_the_first_to_arrive() -> None:
    fair = queue()
    for name, deadline in [("late", 9.0), ("soon", 1.0), ("later", 9.0), ("sooner", 0.5)]:
        fair.push(name, "normal", "acme", cost=1, deadline=deadline)
    assert fair.drain() == ["sooner", "soon", "late", "later"]


def test_what_is_withdrawn_is_gone_and_the_rest_is_served_as_if_it_had_never_been_there() -> None:
    fair = queue()
    fill(fair, "a", 3)
    fill(fair, "b", 2)
    fill(fair, "c", 2, priority="batch")
    assert sorted(fair.withdraw(lambda job: job in {"a1", "b0", "b1", "c0", "c1"})) == ["a1", "b0", "b1", "c0", "c1"]
    assert (len(fair), fair.size("normal"), fair.size("batch"), fair.peek("batch")) == (2, 2, 0, None)
    fill(fair, "b", 1)
    assert served(fair, 9).count("b") == 1
    assert fair.withdraw(lambda _: True) == []
    assert fair.pop() is None


def test_what_is_wanted_no_longer_when_it_is_asked_again_is_withdrawn_all_the_same_and_counted() -> None:
    fair = queue()
    fill(fair, "a", 3)
    asked: list[str] = []

    def unwanted(job: str) -> bool:
        asked.append(job)
        return asked.count(job) == 1 and job != "a2"

    assert fair.withdraw(unwanted) == ["a0", "a1"]
    assert (len(fair), fair.size("normal"), fair.held("normal", "a")) == (1, 1, 1)
    assert fair.drain() == ["a2"]


def test_what_is_overdue_is_taken_out_of_its_turn_and_charged_until_it_is_settled() -> None:
    fair = queue()
    for number, deadline in enumerate((5.0, 1.0, 9.0)):
        fair.push(f"a{number}", "normal", "a", cost=1, deadline=deadline)
        fair.push(f"b{number}", "batch", "b", cost=1, deadline=deadline)
    assert sorted(fair.overdue(5.0)) == ["a0", "a1", "b0", "b1"]
    assert (len(fair), fair.size("normal"), fair.held("batch", "b"), fair.overdue(5.0)) == (2, 1, 1, [])
    assert fair.drain() == ["a2", "b2"]


def test_a_quiet_tenant_is_next_behind_a_noisy_ones_thousand() -> None:
    fair = queue()
    fill(fair, "noisy", 1_000)
    served(fair, 500)
    fill(fair, "quiet", 1)
    assert "q" in served(fair, 2)


def test_who_was_idle_brings_no_credit_along() -> None:
    fair = queue()
    fill(fair, "a", 200)
    served(fair, 100)
    fill(fair, "b", 100)
    assert served(fair, 20).count("b") <= 11


def test_tenants_with_the_same_weight_take_turns() -> None:
    fair = queue()
    fill(fair, "a", 50)
    fill(fair, "b", 50)
    assert served(fair, 40).count("a") == 20


def test_a_tenant_with_three_times_the_weight_is_served_three_times_as_much() -> None:
    fair = queue(a=3.0)
    fill(fair, "a", 90)
    fill(fair, "b", 90)
    assert served(fair, 80).count("a") == pytest.approx(60, abs=1)


def test_large_jobs_count_for_what_they_cost() -> None:
    fair = queue()
    fill(fair, "a", 90, cost=3)
    fill(fair, "b", 90, cost=1)
    assert served(fair, 80).count("a") == pytest.approx(20, abs=1)


def test_priorities_share_by_their_weights_and_the_last_one_is_served_too() -> None:
    fair = queue()
    for priority in WEIGHTS:
        fill(fair, priority, 200, priority=priority)
    first = served(fair, 130)
    assert [first.count(letter) for letter in "inb"] == pytest.approx([80, 40, 10], abs=2)


def test_one_priority_alone_can_be_asked_for_and_is_charged_for_it() -> None:
    fair = queue()
    fill(fair, "x", 20, priority="interactive")
    fill(fair, "y", 20, priority="batch")
    assert {fair.pop("interactive") for _ in range(16)} == {f"x{number}" for number in range(16)}
    assert fair.pop("normal") is None
    assert served(fair, 2).count("y") == 2


def test_an_estimate_that_was_too_low_is_paid_back() -> None:
    fair = queue()
    fill(fair, "a", 50)
    fill(fair, "b", 50)
    served(fair, 2)
    fair.correct("normal", "a", 10.0)
    assert served(fair, 10).count("a") == 0


def test_an_estimate_that_was_too_high_is_given_back() -> None:
    fair = queue()
    fill(fair, "a", 50, cost=10)
    fill(fair, "b", 50, cost=10)
    served(fair, 2)
    fair.correct("normal", "a", -9.0)
    assert served(fair, 1) == ["a"]


def test_who_comes_anew_is_next_though_others_were_charged_too_much_before() -> None:
    fair = queue()
    fill(fair, "a", 50, cost=10)
    assert served(fair, 20) == ["a"] * 20
    for number in range(15):
        fair.correct("normal", "a", -8.0)
        fill(fair, f"z{number}", 1, cost=10)
        assert served(fair, 1) == ["z"]


def test_the_order_of_tenants_is_that_of_their_times_and_unknown_ones_join_now() -> None:
    fair = queue()
    fill(fair, "a", 5)
    fill(fair, "b", 5, cost=3)
    served(fair, 4)
    assert fair.order("normal", ["b", "a", "new"]) == ["new", "a", "b"]


def test_a_tenant_alone_may_fill_a_quarter_and_one_who_comes_anew_always_finds_room() -> None:
    fair = queue()
    fill(fair, "noisy", fair.room("batch", "noisy", 64), priority="batch")
    assert (len(fair), fair.room("batch", "noisy", 64)) == (16, 0)
    assert fair.room("batch", "quiet", 64) == 8
    assert fair.room("interactive", "quiet", 64) == 12


@settings(max_examples=60)
@given(
    limit=st.integers(1, 200),
    comers=st.lists(st.tuples(st.sampled_from(list(WEIGHTS)), st.sampled_from("abcdefgh")), max_size=80),
)
def test_the_queue_is_not_filled_beyond_its_limit_and_a_priority_that_has_nothing_there_gets_the_last_place(
    limit: int, comers: list[tuple[str, str]]
) -> None:
    fair = queue()
    for priority, tenant in comers:
        room = fair.room(priority, tenant, limit)
        assert room > 0 or fair.size(priority) or len(fair) == limit
        fill(fair, tenant, room, priority=priority)
        assert len(fair) <= limit


@pytest.mark.parametrize("weights", [{}, {"normal": 0.0}, {"normal": 1.0, "batch": -1.0}])
def test_a_weight_that_would_starve_a_priority_is_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="weight above zero"):
        FairQueue[str](weights)


def test_an_unknown_priority_is_an_error() -> None:
    with pytest.raises(KeyError):
        queue().push("job", "urgent", "acme", cost=1, deadline=0)


@settings(max_examples=60)
@given(
    costs=st.lists(st.tuples(COSTS, COSTS), min_size=30, max_size=80),
    weights=st.tuples(st.sampled_from([0.5, 1, 2, 7]), st.sampled_from([0.5, 1, 2, 7])),
)
def test_two_that_always_have_work_never_differ_by_more_than_a_job_of_each(
    costs: list[tuple[float, float]], weights: tuple[float, float]
) -> None:
    """The bound of start-time fair queueing: |W(a)/w(a) - W(b)/w(b)| <= l(a)/w(a) + l(b)/w(b)."""
    fair = FairQueue[tuple[str, float]]({"normal": 1.0}, dict(zip("ab", weights, strict=True)).__getitem__)
    for pair in costs:
        for tenant, cost in zip("ab", pair, strict=True):
            fair.push((tenant, cost), "normal", tenant, cost=cost, deadline=0)
    weight = dict(zip("ab", weights, strict=True))
    bound = sum(max(pair[index] for pair in costs) / weights[index] for index in (0, 1))
    work, left = {"a": 0.0, "b": 0.0}, {"a": len(costs), "b": len(costs)}
    while min(left.values()) > 0:
        job = fair.pop()
        assert job is not None
        tenant, cost = job
        work[tenant] += cost
        left[tenant] -= 1
        assert abs(work["a"] / weight["a"] - work["b"] / weight["b"]) <= bound * (1 + 1e-9)


def test_names_that_are_idle_and_owe_nothing_are_forgotten() -> None:
    shares = Shares()
    for number in range(1_000):
        name = str(number)
        shares.join(name)
        shares.charge(name, 1.0)
        shares.leave(name)
        assert shares.lowest() is None
    shares.join("last")
    shares.charge("last", 2.0)
    assert shares.lowest() == "last"
    shares.leave("last")
    shares.lowest()
    assert not shares._times


class _FairMachine(RuleBasedStateMachine):
    """Jobs come and go in any order, with estimates that were wrong."""

    tenants = st.sampled_from(["a", "b", "c", "d"])
    priorities = st.sampled_from(list(WEIGHTS))

    def __init__(self) -> None:
        super().__init__()
        self.fair = queue(a=2.0)
        self.here: dict[str, tuple[str, str, float, float, int]] = {}
        self.numbers = itertools.count()
        self.turns: dict[str, int] = defaultdict(int)
        self.largest = 1.0
        self.charged = 0.0

    @rule(priority=priorities, tenant=tenants, cost=COSTS, deadline=st.floats(0, 100))
    def push(self, priority: str, tenant: str, cost: float, deadline: float) -> None:
        number = next(self.numbers)
        self.fair.push(str(number), priority, tenant, cost=cost, deadline=deadline)
        self.here[str(number)] = (priority, tenant, deadline, cost, number)
        self.largest = max(self.largest, cost)
        self.charged += cost

    @rule(priority=priorities, tenant=tenants, difference=st.floats(-1_000, 1_000))
    def correct(self, priority: str, tenant: str, difference: float) -> None:
        self.fair.correct(priority, tenant, difference)
        self.charged += abs(difference)

    @rule(only=st.one_of(st.none(), priorities))
    def pop(self, only: str | None) -> None:
        job = self.fair.pop(only)
        candidates = {name: entry for name, entry in self.here.items() if only in {None, entry[0]}}
        assert (job is None) == (not candidates), "it is not work conserving"
        if job is None:
            return
        priority, tenant, deadline, _, number = self.here.pop(job)
        assert only in {None, priority}
        earlier = [
            name
            for name, entry in self.here.items()
            if entry[:2] == (priority, tenant) and (entry[2], entry[4]) < (deadline, number)
        ]
        assert not earlier, "deadline, then arrival"

    @precondition(lambda self: self.here)
    @rule(tenant=tenants)
    def nobody_starves(self, tenant: str) -> None:
        """However much comes in for others, what is here is served after a bounded amount of work."""
        waiting = [name for name, entry in self.here.items() if entry[1] == tenant]
        if not waiting:
            return
        wanted = min(waiting, key=lambda name: (self.here[name][2], self.here[name][4]))
        priority = self.here[wanted][0]
        # Nobody can be further ahead than by all that was ever charged at the lowest weights, and by a few of the largest jobs.
        budget = max(WEIGHTS.values()) * 2 * (2 * self.charged + 12 * self.largest)
        while wanted in self.here:
            other = "d" if tenant != "d" else "c"
            self.push("interactive", other, self.largest, 0.0)
            job = self.fair.pop()
            assert job is not None
            budget -= self.here.pop(job)[3]
            assert budget > 0, f"{tenant} starves in {priority}"

    @invariant()
    def sizes_are_right(self) -> None:
        assert len(self.fair) == len(self.here)
        for priority in WEIGHTS:
            assert self.fair.size(priority) == sum(entry[0] == priority for entry in self.here.values())

    def teardown(self) -> None:
        assert sorted(self.fair.drain()) == sorted(self.here)
        assert len(self.fair) == 0


TestFairMachine = _FairMachine.TestCase
TestFairMachine.settings = settings(max_examples=60, stateful_step_count=40)
