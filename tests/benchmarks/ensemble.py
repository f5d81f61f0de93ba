"""Merging the boxes of several members per image: ensemble-boxes against ours, CPU time.

Six members with 300 detections each, in 1,230 categories, around 25 objects whose categories the members confuse, as
LVIS models do. Each pair is measured in turns on the same images. Equal means the same boxes, scores and categories,
bit for bit; for soft-NMS the same boxes (ensemble-boxes returns the scores from before the decay).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import ensemble_boxes
import numpy as np

from pipeline_steps.detections.fusion import nms, soft_nms, weighted_fusion
from tests.benchmarks.measure import Row, in_turns

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


def _fused(members: Members) -> Result:
    count = len(members[0])
    known_to, weights = np.full(CATEGORIES, count), np.full(CATEGORIES, float(count))
    return _ours(lambda *image: weighted_fusion(*image, 0.55, known_to, weights))(members)


PAIRS: dict[str, tuple[Callable[[Members], Result], Callable[[Members], Result]]] = {
    "ensemble NMS": (
        lambda members: ensemble_boxes.nms(*members, iou_thr=0.5),
        _ours(lambda *image: nms(*image, 0.5)),
    ),
    "weighted-box fusion": (
        lambda members: ensemble_boxes.weighted_boxes_fusion(*members, iou_thr=0.55),
        _fused,
    ),
    "soft-NMS": (
        lambda members: ensemble_boxes.soft_nms(*members, sigma=0.5, thresh=0.001),
        _undecayed,
    ),
}


def _for_each(merge: Callable[[Members], Result]) -> Callable[[list[Members]], list[Result]]:
    return lambda images: [merge(image) for image in images]


def same(first: Result, second: Result) -> bool:
    """Whether two results hold the same rows, in whatever order."""
    rows = [np.column_stack([-scores, categories, boxes]) for boxes, scores, categories in (first, second)]
    ordered = [own[np.lexsort(own.T[::-1])] for own in rows]
    return np.array_equal(*ordered)


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Measure."""
    parser = argparse.ArgumentParser("ensemble", description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--images", type=int, default=10, help="images of a run, as an ensemble meets them in a row")
    parser.add_argument("--members", type=int, default=6)
    parser.add_argument("--detections", type=int, default=300, help="of each member in an image")
    arguments = parser.parse_args(argv)
    size = f"{arguments.members} members x {arguments.detections}"
    inputs = [
        (
            [
                make_image(run * arguments.images + i, arguments.members, arguments.detections)
                for i in range(arguments.images)
            ],
        )
        for run in range(arguments.runs)
    ]
    return [
        in_turns(_for_each(usual), _for_each(ours), inputs, lambda first, second: all(map(same, first, second))).row(
            f"{name}, {size}, {arguments.images} images", "ensemble-boxes"
        )
        for name, (usual, ours) in PAIRS.items()
    ]


if __name__ == "__main__":
    from tests.benchmarks.__main__ import main as run

    raise SystemExit(run(["ensemble"]))
