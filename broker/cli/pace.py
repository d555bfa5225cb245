"""How fast jobs end and how long the rest will take, from looks at their number; pure."""

from collections import deque
from dataclasses import dataclass, field

_WINDOW_S = 60.0
_MINUTE_S = 60
_HOUR_S = 3_600
_DAY_S = 86_400


@dataclass(slots=True)
class Pace:
    """The rate of the last minute: an average since the beginning would tell of a time that is over."""

    _looks: deque[tuple[float, int]] = field(default_factory=deque)

    def look(self, at_s: float, ended: int) -> None:
        """So many have ended at this time of a clock that never goes back."""
        self._looks.append((at_s, ended))
        while len(self._looks) > 2 and self._looks[1][0] <= at_s - _WINDOW_S:
            self._looks.popleft()

    @property
    def rate(self) -> float:
        """Jobs a second; 0 where none has ended, or nobody looked twice."""
        if not self._looks:
            return 0.0
        (first_s, before), (last_s, now) = self._looks[0], self._looks[-1]
        return max(0, now - before) / (last_s - first_s) if last_s > first_s else 0.0

    def left_s(self, left: int) -> float | None:
        """How long so many jobs will take at this rate; None where it is not known."""
        rate = self.rate
        return left / rate if rate else None

    def told(self, left: int) -> str:
        """Rate and rest for people: "350/s, about 47 min left"."""
        left_s = self.left_s(left)
        rate = f"{self.rate:,.0f}/s" if self.rate >= 1 or not self.rate else f"{self.rate:.2f}/s"
        return rate if left_s is None else f"{rate}, about {roughly(left_s)} left"


def roughly(seconds: float) -> str:
    """A time as people say it: 40 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if seconds < 2 * _MINUTE_S:
        return f"{seconds:.0f} s"
    minutes = round(seconds / _MINUTE_S)
    if seconds < 2 * _HOUR_S:
        return f"{minutes} min"
    if seconds < 2 * _DAY_S:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / _HOUR_S)
    return f"{hours // 24} d {hours % 24} h"
