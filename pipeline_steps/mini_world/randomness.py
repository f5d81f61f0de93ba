"""Random streams of the mini world: one for each thing that is drawn, so that no image depends on another.

Only integers, uniform floats and exact IEEE comparisons are used on top of PCG64 (no normal or Poisson variates, whose
last bits depend on the mathematics library), so that a seed gives the same world on every platform.
"""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, *path: str | int) -> np.random.Generator:
    """The random stream at ``path`` (for example ``"scene", "train", 17``) of the world with this seed."""
    codes = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in path]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *codes])))


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with the given probability."""
    return bool(rng.random() < probability)


def geometric_weights(count: int, ratio: float, head: int = 0, bonus: float = 1.0) -> np.ndarray:
    """Cumulative probabilities, float64 ``[count]``, of ranks; each rank's own is ``ratio`` times the one before.

    The first ``head`` ranks are ``bonus`` times as probable again.

    Multiplied up one by one instead of with ``**``: the same bits everywhere.
    """
    weights = np.cumprod(np.array([1.0] + [ratio] * (count - 1)))
    weights[:head] *= bonus
    cumulative = np.cumsum(weights)
    return cumulative / cumulative[-1]


def pick(rng: np.random.Generator, cumulative: np.ndarray, count: int) -> list[int]:
    """``count`` independent draws of a rank from cumulative probabilities."""
    ranks = np.searchsorted(cumulative, rng.random(count), side="right")
    return [int(rank) for rank in np.minimum(ranks, len(cumulative) - 1)]
