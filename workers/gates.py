"""When a target may be called again: cooldowns after throttling, a breaker per credential, a retry budget per target. Pure: time comes in.

A cooldown is the longer of what stands and what is new. A credential that was refused keeps its jobs waiting and is tried by one call at a time.
"""

from dataclasses import dataclass, field
from random import Random

from schemas.codes import Code

FIRST_BREAK_S = 15.0
LONGEST_BREAK_S = 600.0
PROBE_S = 60.0
LOOK_AGAIN_S = 3.0
RETRY_SHARE = 0.2
"""Retries of failed calls, as a share of calls."""
RETRY_BURST = 10.0
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 60.0


@dataclass(slots=True)
class Gate:
    """What stands in the way of one (credential, model)."""

    cooldown_until: float = 0.0
    retries: float = RETRY_BURST

    def cool(self, until: float) -> None:
        """Let nothing through before `until`."""
        self.cooldown_until = max(self.cooldown_until, until)

    def called(self) -> None:
        """A first call earns a share of a retry."""
        self.retries = min(self.retries + RETRY_SHARE, RETRY_BURST)

    def may_retry(self) -> bool:
        """Whether the budget has a retry left; takes it."""
        if self.retries < 1:
            return False
        self.retries -= 1
        return True


@dataclass(slots=True)
class Breaker:
    """What stands in the way of one credential after the provider refused it."""

    open_until: float = 0.0
    break_s: float = 0.0
    probe_until: float = 0.0  # a probe is under way, and given up by then
    code: Code = Code.CREDENTIAL_REFUSED  # what the provider said last

    def blocked(self, now: float) -> float | None:
        """Until when nothing goes through; None: go. The first to go through after a break probes for all."""
        if not self.break_s:
            return None
        if now < self.open_until:
            return self.open_until
        if now < self.probe_until:
            return min(self.probe_until, now + LOOK_AGAIN_S)
        self.probe_until = now + PROBE_S
        return None

    def refused(self, now: float, code: Code = Code.CREDENTIAL_REFUSED) -> float:
        """The credential was refused; return until when it rests. Calls that were under way when the break began do not prolong it."""
        self.code = code
        if now < self.open_until:
            return self.open_until
        self.break_s = min(self.break_s * 2, LONGEST_BREAK_S) or FIRST_BREAK_S
        self.open_until = now + self.break_s
        self.probe_until = 0.0
        return self.open_until

    def accepted(self) -> bool:
        """The credential works; True if it had not before."""
        was_open = self.break_s > 0
        self.break_s, self.probe_until = 0.0, 0.0
        return was_open

    def gave_up(self) -> None:
        """A call ended without saying anything about the credential."""
        self.probe_until = 0.0


@dataclass(slots=True)
class Gates:
    """All gates of one process, by name."""

    chance: Random
    gates: dict[tuple[str, str], Gate] = field(default_factory=dict)
    breakers: dict[str, Breaker] = field(default_factory=dict)

    def gate(self, credential: str, model: str) -> Gate:
        """The gate of a credential's model."""
        found = self.gates.get((credential, model))
        if found is None:
            found = self.gates[credential, model] = Gate()
        return found

    def breaker(self, credential: str) -> Breaker:
        """The breaker of a credential."""
        found = self.breakers.get(credential)
        if found is None:
            found = self.breakers[credential] = Breaker()
        return found

    def backoff_s(self, attempt: int) -> float:
        """Exponential with full jitter (Brooker, AWS Architecture Blog, 2015); `attempt` counts from 1."""
        most = min(FIRST_BACKOFF_S * 2 ** min(attempt, 20), LONGEST_BACKOFF_S)
        return self.chance.uniform(0, most)

    def jitter_s(self, seconds: float) -> float:
        """Something between nothing and a quarter of `seconds`, so that what waits for one moment does not come all at once."""
        return self.chance.uniform(0, max(seconds, 0.2) / 4)
