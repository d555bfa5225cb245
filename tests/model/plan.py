"""What is checked: scenarios, in which every property holds, and mutations, of which each breaks the property that it names."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scenario:
    """A configuration, `docs/protocol/<name>.cfg`, of a module."""

    module: str
    name: str


@dataclass(frozen=True)
class Mutation:
    """A rule that is left out of a scenario, and the property that breaks."""

    rule: str
    scenario: str
    breaks: str


SCENARIOS: Sequence[Scenario] = tuple(
    Scenario(module, f"{module.lower()}-{name}")
    for module, names in {
        "Jobs": (
            *("crashes", "retries", "pauses", "outages", "slow-audits", "deaths", "starts", "duplicates", "rebalances"),
            *("control", "cancels", "replies", "reruns", "at-most-once"),
            *("ends-crashes", "ends-lates", "ends-pauses", "ends-outages", "ends-duplicates", "ends-control"),
            *("halts", "ends-halts", "ends-late-halts", "ends-stops", "ends-deadlines", "ends-tenants", "ends-drains"),
        ),
        "Quotas": (
            *("losses", "crashes", "pauses", "estimates", "returns", "quiet"),
            *("alone", "passes", "changes", "lates", "sums"),
        ),
    }.items()
    for name in names
)

MUTATIONS: Sequence[Mutation] = (
    # 1, 3: who sets an owner raises the fence; ids are registered; the audit takes up by comparing
    Mutation("take raises the fence", "jobs-retries", "CallsAreBounded"),
    Mutation("an insert is registered", "jobs-crashes", "CallsAreBounded"),
    Mutation("a take is registered", "jobs-crashes", "CallsAreBounded"),
    Mutation("an adoption compares the fence", "jobs-slow-audits", "CallsAreBounded"),
    Mutation("an audit", "jobs-ends-crashes", "EveryJobEnds"),
    # 2, 12: unknown is no answer
    Mutation("an unknown insert is sent again", "jobs-crashes", "NothingIsLost"),
    Mutation("an unknown mark is sent again", "jobs-at-most-once", "AtMostOnceIsOnce"),
    # 4, 5: an outcome is frozen, and what a row says was known before
    Mutation("an outcome is frozen", "jobs-ends-control", "SpendIsKept"),
    Mutation("a mismatch is read again", "jobs-crashes", "ClearedIsTold"),
    Mutation("billed once the finish is known", "jobs-pauses", "BilledOnce"),
    # 6 and the outbox
    Mutation("clear compares the token", "jobs-cancels", "ClearedIsTold"),
    Mutation("clear compares the replies", "jobs-replies", "ClearedIsTold"),
    Mutation("clear awaits the ledger", "jobs-crashes", "ClearedIsTold"),
    Mutation("clear awaits the topic", "jobs-crashes", "ClearedIsTold"),
    Mutation("outboxes of the dead are published", "jobs-ends-crashes", "EveryJobEnds"),
    # 7, 8: death
    Mutation("a gap forbids to declare", "jobs-outages", "LivingIsNotFenced"),
    Mutation("the gap is looked at again", "jobs-outages", "LivingIsNotFenced"),
    Mutation("fencing compares until", "jobs-deaths", "OnlyTheExpiredAreFenced"),
    Mutation("owners are read before leases", "jobs-starts", "OnlyTheHurtAreSwept"),
    Mutation("the lease comes before claims", "jobs-starts", "OnlyTheHurtAreSwept"),
    Mutation("the sweep goes on", "jobs-ends-lates", "EveryJobEnds"),
    # 9: nothing under a lease in doubt
    Mutation("a call needs the lease", "jobs-pauses", "TheDeadDoNotCall"),
    Mutation("a take needs the lease", "jobs-pauses", "DeadIsEarned"),
    Mutation("a renewal counts from its sending", "jobs-pauses", "TheDeadDoNotCall"),
    # 10, 11: control
    Mutation("control compares the offset", "jobs-cancels", "CancelEndsItsGeneration"),
    Mutation("a stub is no job", "jobs-cancels", "NothingIsLost"),
    Mutation("wait spares a cancelled job", "jobs-cancels", "CancelledDoesNotWait"),
    Mutation("a cancel makes due", "jobs-cancels", "CancelledDoesNotWait"),
    Mutation("rerun awaits the outbox", "jobs-cancels", "ClearedIsTold"),
    Mutation("rerun needs the payload", "jobs-reruns", "NothingIsLost"),
    Mutation("rerun keeps the fence", "jobs-cancels", "CancelEndsItsGeneration"),
    Mutation("rerun takes marks off", "jobs-cancels", "CancelEndsItsGeneration"),
    Mutation("rerun stays the expiry", "jobs-cancels", "NothingExpiresEarly"),
    Mutation("a new reply stays the expiry", "jobs-replies", "NothingExpiresEarly"),
    Mutation("an adopted job gets its reply", "jobs-duplicates", "NothingIsLost"),
    # halts, deadlines, drains
    Mutation("a call looks at the halts", "jobs-halts", "NoCallUnderAHalt"),
    Mutation("a halt compares the offset", "jobs-ends-late-halts", "EveryJobEnds"),
    Mutation("the parked are looked for", "jobs-ends-halts", "EveryJobEnds"),
    Mutation("who comes into a stopped batch ends", "jobs-ends-stops", "EveryJobEnds"),
    Mutation("what is to end is taken under a pause", "jobs-ends-tenants", "EveryJobEnds"),
    Mutation("a pause lets the overdue end", "jobs-ends-deadlines", "TheOverdueDoNotWait"),
    Mutation("overdue makes due", "jobs-ends-deadlines", "EveryJobEnds"),
    Mutation("a call looks at the deadline", "jobs-ends-deadlines", "NoCallAfterTheDeadline"),
    Mutation("a call looks at the drain", "jobs-ends-drains", "NoCallUnderAHalt"),
    Mutation("who drains hands back", "jobs-ends-drains", "OnlyTheHurtAreSwept"),
    # `execution: at_most_once`
    Mutation("at most once is marked", "jobs-at-most-once", "AtMostOnceIsOnce"),
    Mutation("a hand-back keeps called", "jobs-at-most-once", "AtMostOnceIsOnce"),
    # quota holds: 1 grant, 2 return, 4 close, 5 reconcile, 6 an expired lease is over
    Mutation("a swap compares the revision", "quotas-losses", "SpendIsBounded"),
    Mutation("an unknown grant is none", "quotas-losses", "SpendIsBounded"),
    Mutation("a doubt is remembered", "quotas-quiet", "TheBookComesRight"),
    Mutation("a return is lowered here first", "quotas-returns", "SpendIsBounded"),
    Mutation("a close awaits claims", "quotas-pauses", "SpendIsBounded"),
    Mutation("a close awaits outboxes", "quotas-crashes", "SpendIsBounded"),
    Mutation("claims are looked at first", "quotas-pauses", "SpendIsBounded"),
    Mutation("closed is what the ledger says", "quotas-crashes", "SpendIsBounded"),
    Mutation("closed is no chunk", "quotas-crashes", "NothingIsCountedTwice"),
    Mutation("closed leaves out entries", "quotas-crashes", "NothingIsCountedTwice"),
    Mutation("a sum is for those who had no entry", "quotas-sums", "SpendIsBounded"),
    Mutation("only the fenced are closed", "quotas-pauses", "SpendIsBounded"),
    Mutation("a hold needs the lease", "quotas-pauses", "SpendIsBounded"),
    # holds without a chunk
    Mutation("who begins a book leaves out its own rows", "quotas-alone", "NothingIsCountedTwice"),
    Mutation("an entry comes before what passes", "quotas-passes", "TheBookComesRight"),
    Mutation("who enters late looks again", "quotas-changes", "NothingIsCountedTwice"),
    Mutation("who may have entered late looks again", "quotas-lates", "NothingIsCountedTwice"),
    Mutation("a second look awaits the own entry", "quotas-lates", "NothingIsCountedTwice"),
)

NOT_MISSED: Sequence[tuple[str, str]] = (
    ("Jobs", "adopt raises the fence"),
    ("Jobs", "an adoption needs the lease"),
    ("Jobs", "a claimed insert needs the lease"),
    ("Quotas", "who was closed gets no entry"),
)
"""Rules without which no scenario breaks: another one covers for them, as `docs/protocol/README.md` says."""
