"""What the benchmarks say of many measured times."""

import math
from collections.abc import Iterable


def percentile(values: Iterable[float], percent: float) -> float:
    """The nearest-rank percentile: a value that was measured."""
    ordered = sorted(values)
    if not ordered:
        raise RuntimeError("nothing was measured")
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


def jains_index(shares: Iterable[float]) -> float:
    """1 where all have the same, 1/n where one of n has everything (Jain, Chiu, Hawe, DEC-TR-301, 1984)."""
    values = list(shares)
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 0.0
