"""Means, spread, and differences of pairs with confidence intervals.

Symbols: n runs, or pairs of runs of equal seed. Intervals are those of Student's t distribution with n - 1 degrees of
freedom; they hold for one comparison at a time.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

CONFIDENCE = 0.95  # coverage of all intervals


@dataclass(frozen=True)
class Sample:
    """Runs of one setting, or differences of pairs: mean, standard deviation with n - 1, interval of the mean.

    NaN where undefined: the mean of nothing, all else of fewer than two values.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 if the interval lies above or below 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def describe(values: Iterable[float]) -> Sample:
    """Mean, spread and interval of values."""
    array = np.array(list(values), float)
    n = len(array)
    mean = float(array.mean()) if n else np.nan
    if n < 2:
        return Sample(n, mean, np.nan, np.nan, np.nan)
    sd = float(array.std(ddof=1))
    # ttest_1samp gives the same up to rounding, but warns of values that are all equal.
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / np.sqrt(n)
    return Sample(n, mean, sd, mean - half, mean + half)


def paired_difference(ours: Mapping[int, float], reference: Mapping[int, float]) -> Sample:
    """Difference ``ours`` - ``reference`` over the seeds that both have."""
    return describe(ours[seed] - reference[seed] for seed in sorted(ours.keys() & reference.keys()))


def paired_ratio(ours: Mapping[int, float], reference: Mapping[int, float]) -> Sample:
    """Geometric mean of the quotients ``ours`` / ``reference``, and its interval; values of 0 or less are left out.

    The interval is that of the mean difference of logarithms; ``sd`` is left in logarithms.
    """

    def logarithms(values: Mapping[int, float]) -> dict[int, float]:
        return {seed: float(np.log(value)) for seed, value in values.items() if value > 0}

    logs = paired_difference(logarithms(ours), logarithms(reference))
    mean, low, high = (float(np.exp(value)) for value in (logs.mean, logs.low, logs.high))
    return Sample(logs.n, mean, logs.sd, low, high)
