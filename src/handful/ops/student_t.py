"""Student's t distribution, central and non-central, without SciPy, which a base installation does not have.

T exceeds t exactly where a standard normal variable exceeds t·s - delta, s being the root of chi² / nu. The probability
is therefore the mean of a normal tail over s (Owen, A Survey of Properties and Applications of the Noncentral
t-Distribution, Technometrics 10, 1968). The mean is taken at even steps of log s: for an analytic integrand that
vanishes at both ends such a sum converges exponentially.
"""

import math
from functools import lru_cache

STEP, BELOW, ABOVE = 0.25, 120, 40  # of the sum, in standard deviations of log s; the steps below s = 1 and above


def upper_tail(t: float, freedom: float, *, delta: float = 0.0) -> float:
    """The probability that T exceeds t, within 1e-11 of the probability itself down to 1e-9.

    Args:
        t: any finite number.
        freedom: nu, the degrees of freedom, at least 12.
        delta: the non-centrality.
    """
    if delta == 0 and t < 0:
        return 1 - upper_tail(-t, freedom)
    return math.fsum(weight * math.erfc((t * s - delta) / math.sqrt(2)) / 2 for s, weight in _nodes(freedom))


def upper_quantile(probability: float, freedom: float, *, delta: float = 0.0) -> float:
    """The t that T exceeds with a probability in [1e-9, 1), within 1e-11: by Newton's steps on the tail's logarithm.

    A step is at most 5; where it leaves the interval that the quantile is known to lie in, the interval is halved.
    """
    t, low, high = delta, -math.inf, math.inf
    for _ in range(100):
        tail = upper_tail(t, freedom, delta=delta)
        low, high = (t, high) if tail > probability else (low, t)
        density = math.fsum(s * weight * math.exp(-((t * s - delta) ** 2) / 2) for s, weight in _nodes(freedom))
        step = math.log(tail / probability) * tail * math.sqrt(2 * math.pi) / density
        step = max(-5.0, min(5.0, step))
        if abs(step) <= 1e-12 * max(1.0, abs(t)):
            return t + step
        t = t + step if low < t + step < high else (low + high) / 2
    return t


@lru_cache(maxsize=64)
def _nodes(freedom: float) -> tuple[tuple[float, float], ...]:
    """Values of s with the probability that each stands for."""
    step = STEP / math.sqrt(2 * freedom)
    logs = [number * step for number in range(-BELOW, ABOVE + 1)]
    densities = [math.exp(freedom * (log - math.expm1(2 * log) / 2)) for log in logs]  # of log s, 1 at the peak
    whole = math.fsum(densities)
    return tuple((math.exp(log), density / whole) for log, density in zip(logs, densities, strict=True))
