"""How sure AP is: a bootstrap over images, for one system or for two on the same resamples.

A resample of the data set draws N images with replacement; an image that comes twice counts twice. Nothing is matched
again: the verdict on a detection depends on its own image only, so that a resample is a weight for each image, and AP
is taken from weighted sums over the ranking. AP of a resample equals that of the evaluator on a data set with repeated
images, as long as no two detections of one category in one image have the same score (their copies would be ranked
image by image, not detection by detection), and the cap per category of AP_fixed is not drawn anew.

Symbols: N images, C categories, T IoU thresholds, B resamples.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from pipeline_steps.evaluation.ground_truth import FREQUENCIES
from pipeline_steps.evaluation.match_kernels import resampled_ap
from pipeline_steps.evaluation.matched import RECALLS, MatchedDetections
from pipeline_steps.evaluation.precision import IOU_THRESHOLDS

Name = TypeVar("Name")

LEVEL = 0.95  # share of the resamples inside an interval

GROUPS = ("AP", *(f"AP{letter}" for letter in FREQUENCIES))
"""Keys of what is resampled: AP over all categories, and over each frequency group."""


def _ranking(table: MatchedDetections) -> tuple[Any, ...]:
    """What :func:`resampled_ap` reads of a table, without rows below the last right one of their category."""
    last = np.full(table.shape[1], -1)
    rows = np.flatnonzero(table.true)
    np.maximum.at(last, table.categories[rows], rows)
    kept = np.flatnonzero(np.arange(len(table)) <= last[table.categories])
    objects = np.flatnonzero(~table.objects.crowd)
    objects = objects[np.argsort(table.objects.categories[objects], kind="stable")]
    categories = np.arange(table.shape[1] + 1)
    return (
        table.images[kept].astype(np.int32),
        table.true[kept],
        table.ignored[kept],
        np.searchsorted(table.categories[kept], categories),
        table.objects.images[objects].astype(np.int32),
        np.searchsorted(table.objects.categories[objects], categories),
        RECALLS,
        len(IOU_THRESHOLDS),
    )


def group_means(aps: np.ndarray, frequencies: np.ndarray) -> list[float]:
    """Mean of AP over the categories that have objects, of all and of each group, in per cent; NaN where none has."""
    groups = [aps >= 0, *((aps >= 0) & (frequencies == letter) for letter in FREQUENCIES)]
    return [100 * float(aps[group].mean()) if group.any() else np.nan for group in groups]


def image_weights(images: int, seed: int, sample: int) -> np.ndarray:
    """How often each image is drawn in a resample, int32[N]; the same for every system."""
    drawn = np.random.default_rng([seed, sample]).integers(0, images, images)
    return np.bincount(drawn, minlength=images).astype(np.int32)


def resample(
    tables: Mapping[Name, MatchedDetections],
    frequencies: np.ndarray,
    samples: int,
    seed: int = 0,
    counted: np.ndarray | None = None,
) -> dict[Name, np.ndarray]:
    """AP of several tables on the same resampled images.

    Args:
        tables: matched detections of any number of systems or selections on one data set.
        seed: resamples of one seed are the same on every machine.
        counted: bool[C], categories that count; all if not given.

    Returns:
        float64[B, 4] for each table, by :data:`GROUPS`, in per cent; NaN where a group has no object left.
    """
    rankings = {name: _ranking(table) for name, table in tables.items()}
    images = next(iter(tables.values())).shape[0]
    values = {name: np.empty((samples, len(GROUPS))) for name in tables}
    for sample in range(samples):
        weights = image_weights(images, seed, sample)
        for name, ranking in rankings.items():
            aps = resampled_ap(weights, *ranking)
            values[name][sample] = group_means(aps if counted is None else np.where(counted, aps, -1.0), frequencies)
    return values


def measured(table: MatchedDetections, frequencies: np.ndarray, counted: np.ndarray | None = None) -> list[float]:
    """AP of the data set itself, by :data:`GROUPS`; see :func:`resample`."""
    aps = table.precision().mean(axis=(0, 1))
    return group_means(aps if counted is None else np.where(counted, aps, -1.0), frequencies)


def interval(values: np.ndarray, figure: float) -> dict[str, float] | None:
    """The interval of a figure, and half its width; None if no resample has a value.

    The quantiles of the resamples about their mean are laid around the figure: repeated images raise AP (by a point or
    two where categories have few objects), and that shift is the resampling's, not the system's.

    Args:
        values: float64[B], of the resamples.
        figure: measured on the data set itself.
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    quantiles = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = (quantiles - values.mean() + figure).tolist()
    return {"low": round(low, 4), "high": round(high, 4), "half_width": round((high - low) / 2, 4)}


def intervals(
    capped: MatchedDetections,
    fixed: MatchedDetections,
    frequencies: np.ndarray,
    samples: int,
    seed: int = 0,
    counted: np.ndarray | None = None,
) -> dict[str, Any]:
    """Intervals of AP and AP_fixed, each over all categories and by group, as metrics files hold them."""
    values = resample({"": capped, "_fixed": fixed}, frequencies, samples, seed, counted)
    figures = {suffix: measured(table, frequencies, counted) for suffix, table in (("", capped), ("_fixed", fixed))}
    found = {
        f"{key}{suffix}": interval(array[:, k], figures[suffix][k])
        for suffix, array in values.items()
        for k, key in enumerate(GROUPS)
    }
    return {"samples": samples, "seed": seed, "level": LEVEL, "intervals": found}


BETTER, WORSE, OPEN = "better", "worse", "no difference shown"  # verdicts on a system beside another


def verdict(difference: dict[str, float] | None) -> str | None:
    """What the interval of a difference says: it lies above 0, below 0 or holds 0; None without an interval."""
    if difference is None:
        return None
    return BETTER if difference["low"] > 0 else WORSE if difference["high"] < 0 else OPEN
