"""Merging the boxes of several members of one image: ensemble-boxes against ours, CPU time.

Six members with 300 detections each, in 1,230 categories, around 25 objects whose categories the members confuse, as
LVIS models do. Each pair is measured in turns on the same images. Equal means the same boxes, scores and categories,
bit for bit; for soft-NMS the same boxes (ensemble-boxes returns the scores from before the decay).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import ensemble_boxes
import numpy as np

from pipeline_steps.detections.fusion import nms, soft_nms, weighted_fusion

CATEGORIES = 1230
Members = tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]
Result = tuple[np.ndarray, np.ndarray, np.ndarray]


def make_image(seed: int, members: int = 6, per_member: int = 300) -> Members:
    """Boxes in 0..1, scores (all different) and categories of each member, best first."""
    rng = np.random.default_rng(seed)
    centres, sizes = rng.uniform(0.1, 0.9, (25, 2)), np.exp(rng.uniform(-3.5, -0.9, (25, 2)))
    confused = rng.integers(0, CATEGORIES, (25, 10))
    boxes, scores, categories = [], [], []
    for _ in range(members):
        which = rng.integers(0, 25, per_member)
        guesses = confused[which, np.minimum(rng.exponential(2.5, per_member).astype(int), 9)]
        anything = rng.integers(0, CATEGORIES, per_member)
        centre = centres[which] + rng.normal(size=(per_member, 2)) * sizes[which] * 0.1
        size = sizes[which] * np.exp(rng.normal(size=(per_member, 2)) * 0.15)
        score = np.sort(rng.beta(0.6, 4, per_member))[::-1]
        boxes.append(np.concatenate([centre - size / 2, centre + size / 2], axis=1).clip(0, 1))
        scores.append(score)
        categories.append(np.where(rng.random(per_member) < 0.25, anything, guesses))
    return boxes, scores, categories


def _ours(merge: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Callable[[Members], Result]:
    def run(members: Members) -> Result:
        boxes, scores, categories = (np.concatenate(part) for part in members)
        index, merged, final = merge(boxes, scores, categories)
        return merged, final, categories[index]

    return run


def _undecayed(members: Members) -> Result:
    boxes, scores, categories = (np.concatenate(part) for part in members)
    index = soft_nms(boxes, scores, categories, 0.5, 0.001).index
    return boxes[index], scores[index], categories[index]


def _fused(boxes: np.ndarray, scores: np.ndarray, categories: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return weighted_fusion(boxes, scores, categories, 0.55, np.full(CATEGORIES, 6), np.full(CATEGORIES, 6.0))


PAIRS: dict[str, tuple[Callable[[Members], Result], Callable[[Members], Result]]] = {
    "ensemble NMS": (
        lambda members: ensemble_boxes.nms(*members, iou_thr=0.5),
        _ours(lambda *image: nms(*image, 0.5)),
    ),
    "weighted-box fusion": (
        lambda members: ensemble_boxes.weighted_boxes_fusion(*members, iou_thr=0.55),
        _ours(_fused),
    ),
    "soft-NMS": (
        lambda members: ensemble_boxes.soft_nms(*members, sigma=0.5, thresh=0.001),
        _undecayed,
    ),
}


def same(first: Result, second: Result) -> bool:
    """Whether two results hold the same rows, in whatever order."""
    rows = [np.column_stack([-scores, categories, boxes]) for boxes, scores, categories in (first, second)]
    ordered = [own[np.lexsort(own.T[::-1])] for own in rows]
    return np.array_equal(*ordered)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=15)
    arguments = parser.parse_args(argv)
    images = [make_image(seed) for seed in range(arguments.images)]
    for name, (usual, ours) in PAIRS.items():
        equal = same(usual(images[0]), ours(images[0]))  # also compiles and warms up
        seconds: dict[str, list[float]] = {"usual": [], "ours": []}
        for image in images:
            results = []
            for key, merge in (("usual", usual), ("ours", ours)):
                start = time.process_time()
                results.append(merge(image))
                seconds[key].append(time.process_time() - start)
            equal &= same(*results)
        before, after = (statistics.median(seconds[key]) * 1e3 for key in ("usual", "ours"))
        verdict = "equal" if equal else "NOT equal"
        print(
            f"{name:20} {before:8.2f} ms {after:8.3f} ms  ratio {before / after:6.1f}  {verdict}, {len(images)} images"
        )


if __name__ == "__main__":
    main()
