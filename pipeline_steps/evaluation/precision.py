"""Precision over recall as the LVIS protocol defines it, and the figures that are drawn from it.

Symbols: T = 10 IoU thresholds (0.5, 0.55 .. 0.95), R = 101 recall levels (0, 0.01 .. 1), C categories (ascending id),
A = 4 area ranges (all, small, medium, large). -1 stands for "no ground truth".
"""

from dataclasses import dataclass

import numpy as np

from pipeline_steps.evaluation.ground_truth import FREQUENCIES

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # the T thresholds
AREAS = ("all", "small", "medium", "large")  # names of the A area ranges; the limits are 32 x 32 and 96 x 96 pixels


@dataclass(frozen=True)
class Accumulated:
    """What one evaluation run yields."""

    precision: np.ndarray  # float64[T, R, C, A], C-contiguous
    recall: np.ndarray  # float64[T, C, A]

    def restricted_to(self, categories: np.ndarray) -> "Accumulated":
        """The same with no ground truth in other categories: bool[C]."""
        return Accumulated(
            np.where(categories[None, None, :, None], self.precision, -1.0),
            np.where(categories[None, :, None], self.recall, -1.0),
        )


def _mean(values: np.ndarray) -> float | None:
    """Mean in per cent of the values that exist; None if none does."""
    values = values[values > -1]
    return 100.0 * float(np.mean(values)) if len(values) else None


def summarize(accumulated: Accumulated, frequencies: np.ndarray) -> dict[str, float | None]:
    """AP, AP50, AP75, by area (s, m, l) and by frequency group (r, c, f), and AR, in per cent.

    The values are means over the same numbers in the same order as the official ``LVISEval._summarize`` takes them, so
    that they agree to the last bit. The AP of a group is the mean over its categories that have ground truth.

    Args:
        frequencies: letters of the C categories.

    Returns:
        0..100 for each key, None where there is no ground truth.
    """
    precision = accumulated.precision
    every = [AREAS.index("all")]
    values = {"AP": _mean(precision[:, :, :, every])}
    for iou in (50, 75):
        at = np.flatnonzero(np.isclose(IOU_THRESHOLDS, iou / 100))
        values[f"AP{iou}"] = _mean(precision[at][:, :, :, every])
    for area in AREAS[1:]:
        values[f"AP{area[0]}"] = _mean(precision[:, :, :, [AREAS.index(area)]])
    for letter in FREQUENCIES:
        group = np.flatnonzero(frequencies == letter).tolist()
        values[f"AP{letter}"] = _mean(precision[:, :, group, every]) if group else None
    values["AR"] = _mean(accumulated.recall[:, :, every])
    return values


def recalls(accumulated: Accumulated, frequencies: np.ndarray) -> dict[str, float | None]:
    """AR by size (s, m, l: the official ARs@300 ..) and by frequency group (r, c, f), in per cent; None without any."""
    recall = accumulated.recall
    values = {f"AR{area[0]}": _mean(recall[:, :, [AREAS.index(area)]]) for area in AREAS[1:]}
    return values | {f"AR{letter}": _mean(recall[:, frequencies == letter, 0]) for letter in FREQUENCIES}


def recall_by_category(accumulated: Accumulated) -> np.ndarray:
    """AR of each category over all areas in per cent, float64[C]; NaN without ground truth."""
    recall = accumulated.recall[:, :, 0]
    return np.where(recall[0] > -1, 100.0 * recall.mean(axis=0), np.nan)


def by_category(accumulated: Accumulated) -> np.ndarray:
    """AP of each category over all areas in per cent, float64[C]; NaN without ground truth."""
    return np.array(
        [
            np.nan if (mean := _mean(accumulated.precision[:, :, category, 0])) is None else mean
            for category in range(accumulated.precision.shape[2])
        ]
    )


def group_curves(accumulated: Accumulated, frequencies: np.ndarray) -> dict[str, list[float] | None]:
    """Precision at the R recall levels at IoU 0.5, averaged over each frequency group, in per cent."""
    precision = accumulated.precision[0, :, :, 0]
    curves: dict[str, list[float] | None] = {}
    for name, group in {"all": np.ones(len(frequencies), bool), **{f: frequencies == f for f in FREQUENCIES}}.items():
        chosen = precision[:, group & (precision[0] > -1)]
        curves[name] = [round(100 * value, 4) for value in chosen.mean(axis=1).tolist()] if chosen.shape[1] else None
    return curves
