"""Repeat-factor sampling and the order in which a training sees the images.

Symbols: N images of the concatenated data sets; C categories; t repeat-factor threshold; f_c fraction of the N images
that have category c; r_c and r_i repeat factors of category c and image i; *position* running number of an image in
the endless order of a training, 0-based; *epoch* one pass in which image i occurs floor(r_i) or ceil(r_i) times.

The order is a pure function of the seed: ``order[position]`` can be asked for at any position, on any process, in any
loader worker, and is the same after a restart and for every number of GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_ORDER_STREAM = 1
"""Separates the random numbers of the order from those of the augmentation, which share the training's seed."""


def category_frequencies(positives: np.ndarray, offsets: np.ndarray, category_count: int) -> np.ndarray:
    """f_c: the fraction of all images, images without annotations included, that have category c.

    Args:
        positives: int[P], categories (0-based) of all images, one after the other, each category once per image.
        offsets: int64[N + 1]; those of image i are ``positives[offsets[i]:offsets[i + 1]]``.
        category_count: C.

    Returns:
        float64[C].
    """
    return np.bincount(positives, minlength=category_count) / max(len(offsets) - 1, 1)


def repeat_factors(positives: np.ndarray, offsets: np.ndarray, category_count: int, threshold: float) -> np.ndarray:
    """Repeat factors of images: r_i = max over categories c of image i of max(1, sqrt(t / f_c)).

    From the LVIS paper (Gupta et al. 2019, section 5.1); the paper's class-aware resampling with t = 0.001. Images
    without annotations, and every image if t is 0, have the factor 1.

    Args:
        positives, offsets, category_count: see :func:`category_frequencies`.
        threshold: t.

    Returns:
        float64[N], each at least 1.
    """
    frequencies = category_frequencies(positives, offsets, category_count)
    # A category without images is the maximum of no image: its factor is never read.
    of_category = np.sqrt(threshold / np.where(frequencies > 0, frequencies, np.inf))
    factors = np.ones(len(offsets) - 1)
    counts = np.diff(offsets)
    annotated = np.flatnonzero(counts)
    if len(annotated):
        # reduceat needs starts of non-empty runs only; the runs of annotated images follow each other without gaps.
        highest = np.maximum.reduceat(of_category[positives], offsets[:-1][annotated])
        factors[annotated] = np.maximum(1.0, highest)
    return factors


class DataOrder:
    """The endless sequence of image indices of one training.

    Each epoch rounds every repeat factor up with the probability of its fractional part, and shuffles. With
    ``landscape``, the images of one epoch are put together so that each batch of ``group_size`` consecutive positions
    (counted from position 0) holds images of one orientation, as far as they go round: the first and last batch of an
    epoch may be mixed. A whole batch is the unit, not the share of one GPU, because the order must not depend on the
    number of GPUs.
    """

    def __init__(
        self, factors: np.ndarray, seed: int, landscape: np.ndarray | None = None, group_size: int = 1
    ) -> None:
        """
        Args:
            factors: float64[N], repeat factors, each at least 1.
            seed: seed of the training.
            landscape: bool[N], True for images wider than high; None does not group.
            group_size: images of one batch over all GPUs.
        """
        if not len(factors):
            raise ValueError("no images")
        if factors.min() < 1:
            raise ValueError("repeat factors are at least 1: every image occurs in every epoch")
        if landscape is not None and len(landscape) != len(factors):
            raise ValueError(f"{len(landscape)} orientations for {len(factors)} images")
        self._whole = np.floor(factors).astype(np.int64)
        self._fraction = factors - self._whole
        self._seed = seed
        self._landscape = landscape
        self._group_size = group_size
        self._starts = [0]
        self._cache: dict[int, np.ndarray] = {}

    def _repeats(self, epoch: int) -> tuple[np.ndarray, np.random.Generator]:
        """How often each image occurs in ``epoch``, and the generator that goes on to shuffle."""
        generator = np.random.default_rng([self._seed, _ORDER_STREAM, epoch])
        if not self._fraction.any():
            return self._whole, generator
        return self._whole + (generator.random(len(self._fraction)) < self._fraction), generator

    def epoch_start(self, epoch: int) -> int:
        """Position of the first image of ``epoch``."""
        while len(self._starts) <= epoch:
            length = int(self._repeats(len(self._starts) - 1)[0].sum())
            self._starts.append(self._starts[-1] + length)
        return self._starts[epoch]

    def epoch_of(self, position: int) -> int:
        """The epoch that ``position`` belongs to."""
        while self._starts[-1] <= position:
            self.epoch_start(len(self._starts))
        return int(np.searchsorted(self._starts, position, side="right")) - 1

    def epoch(self, epoch: int) -> np.ndarray:
        """Image indices of one epoch in their order, int64[length]."""
        if epoch not in self._cache:
            repeats, generator = self._repeats(epoch)
            indices = np.repeat(np.arange(len(repeats)), repeats)
            generator.shuffle(indices)
            if self._landscape is not None and self._group_size > 1:
                lead = -self.epoch_start(epoch) % self._group_size
                indices = np.concatenate([indices[:lead], self._group(indices[lead:], self._landscape[indices[lead:]])])
            # The current and the next epoch: a replaced unreadable image may look across the border.
            self._cache = {key: value for key, value in self._cache.items() if key == epoch - 1} | {epoch: indices}
        return self._cache[epoch]

    def _group(self, indices: np.ndarray, landscape: np.ndarray) -> np.ndarray:
        """Reorder into batches of one orientation, in the order in which they fill up; the remainders come last."""
        size = self._group_size
        groups, ends, remainders = [], [], []
        for orientation in (True, False):
            where = np.flatnonzero(landscape == orientation)
            full = len(where) // size * size
            filled = where[:full].reshape(-1, size)
            groups.append(filled)
            ends.append(filled[:, -1])
            remainders.append(where[full:])
        by_completion = np.argsort(np.concatenate(ends), kind="stable")
        return indices[np.concatenate([np.concatenate(groups)[by_completion].ravel(), *remainders])]

    def __getitem__(self, position: int) -> int:
        """Index of the image at ``position``."""
        epoch = self.epoch_of(position)
        return int(self.epoch(epoch)[position - self.epoch_start(epoch)])


def rank_batches(
    first_iteration: int, last_iteration: int, images_per_batch: int, per_step: int, rank: int, world_size: int
) -> Iterator[list[int]]:
    """Positions of the micro-batches of one process, in the order in which it trains on them.

    Iteration k trains on positions k * B to (k + 1) * B - 1 (B = ``images_per_batch``), in B / (``per_step`` *
    ``world_size``) accumulation steps. Within a step the processes take neighbouring slices, so that all processes
    together always train on the same images, whatever their number.

    Args:
        first_iteration, last_iteration: iterations ``range(first_iteration, last_iteration)``.
        images_per_batch: B, total over all processes.
        per_step: images of one process in one step.
        rank, world_size: number of this process, and of all.
    """
    steps, remainder = divmod(images_per_batch, per_step * world_size)
    if remainder:
        raise ValueError(f"{images_per_batch} images do not divide into {world_size} x {per_step}")
    for iteration in range(first_iteration, last_iteration):
        for step in range(steps):
            start = iteration * images_per_batch + (step * world_size + rank) * per_step
            yield list(range(start, start + per_step))
