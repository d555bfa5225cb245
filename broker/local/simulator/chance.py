"""Everything that is drawn: latencies, amounts and faults; the caller owns the source of randomness and its seed."""

import math
from collections.abc import Mapping
from random import Random

from broker.local.simulator.behaviour import Amount, FixedLatency, Latency, UniformLatency


def latency_s(latency: Latency, random: Random) -> float:
    """Seconds until a call is answered."""
    if isinstance(latency, FixedLatency):
        return latency.ms / 1000
    if isinstance(latency, UniformLatency):
        return random.uniform(latency.low_ms, latency.high_ms) / 1000
    drawn = random.lognormvariate(math.log(latency.median_ms), latency.sigma)
    return min(drawn, latency.max_ms) / 1000


def amount(setting: Amount, random: Random) -> int:
    """The number itself, or one between the two bounds."""
    return setting if isinstance(setting, int) else random.randint(*setting)


def fault(rates: Mapping[str, float], random: Random) -> str | None:
    """Which fault strikes, if any; one draw decides, so the rates are shares of all calls."""
    drawn = random.random()
    for name, rate in rates.items():
        drawn -= rate
        if drawn < 0:
            return name
    return None
