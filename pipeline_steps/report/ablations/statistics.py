"""Means, spread, and differences of pairs with confidence intervals.

Symbols: n runs, or pairs of runs of equal seed. Intervals are those of Student's t distribution with n - 1 degrees of
freedom; they hold for one comparison at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
"""Coverage of all intervals."""


@dataclass(frozen=True)
class Sample:
    """Runs of one setting. ``sd``: standard deviation with n - 1; NaN with fewer than two runs."""

    n: int
    mean: float
    sd: float


@dataclass(frozen=True)
class Difference:
    """Differences of n pairs: mean, standard deviation and confidence interval of the mean; NaN where undefined."""

    n: int
    mean: float
    sd: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 if the interval lies above or below 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def describe(values: Sequence[float]) -> Sample:
    """Mean and standard deviation of runs."""
    array = np.asarray(values, float)
    if not len(array):
        return Sample(0, np.nan, np.nan)
    return Sample(len(array), float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else np.nan)


def paired_difference(ours: Mapping[int, float], reference: Mapping[int, float]) -> Difference:
    """Difference ``ours`` - ``reference`` over the seeds that both have.

    Args:
        ours: value by seed.
        reference: value by seed.
    """
    from scipy.stats import t  # a second to import

    seeds = sorted(ours.keys() & reference.keys())
    sample = describe([ours[seed] - reference[seed] for seed in seeds])
    if sample.n < 2:
        return Difference(sample.n, sample.mean, np.nan, np.nan, np.nan)
    half = float(t.ppf((1 + CONFIDENCE) / 2, sample.n - 1)) * sample.sd / np.sqrt(sample.n)
    return Difference(sample.n, sample.mean, sample.sd, sample.mean - half, sample.mean + half)


def paired_ratio(ours: Mapping[int, float], reference: Mapping[int, float]) -> Difference:
    """Geometric mean of the quotients ``ours`` / ``reference``, and its interval; values of 0 or less are left out.

    The interval is that of the mean difference of logarithms; ``sd`` is left in logarithms.
    """

    def logarithms(values: Mapping[int, float]) -> dict[int, float]:
        return {seed: float(np.log(value)) for seed, value in values.items() if value > 0}

    logs = paired_difference(logarithms(ours), logarithms(reference))
    mean, low, high = (float(np.exp(value)) for value in (logs.mean, logs.low, logs.high))
    return Difference(logs.n, mean, logs.sd, low, high)
