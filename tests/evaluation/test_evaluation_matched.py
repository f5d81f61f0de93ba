"""The table of matched detections against the evaluators: AP from it is theirs to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from pipeline_steps.evaluation import matched
from pipeline_steps.evaluation.ground_truth import read_ground_truth
from pipeline_steps.evaluation.lvis_ap import evaluate_lvis
from pipeline_steps.evaluation.overlaps import box_shapes, mask_shapes, overlaps
from pipeline_steps.evaluation.results import read_results
from tests.evaluation.test_evaluation_official import SEEDS
from tests.evaluation.worlds import World, make_world, write_world


def match_world(
    folder: Path, world: World, iou_type: str, cap: int = 300, fixed: int = 150, least: float | None = None
):
    """Ground truth, results and both tables of a random world."""
    paths = write_world(folder, world)
    truth, results = read_ground_truth(paths[0], iou_type), read_results(paths[1], iou_type)
    return truth, results, evaluate_lvis(truth, results, iou_type, cap, fixed, least=least).tables


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("seed", SEEDS)
def test_precision_from_the_table_is_the_evaluators_in_every_bit(tmp_path: Path, seed: int, iou_type: str) -> None:
    truth, results, (capped, fixed) = match_world(tmp_path, make_world(seed), iou_type)
    evaluation = evaluate_lvis(truth, results, iou_type, 300, 150)
    for table, accumulated in ((capped, evaluation.capped), (fixed, evaluation.fixed)):
        assert accumulated.precision.max() > 0
        assert np.array_equal(table.precision(), accumulated.precision[..., 0])
        assert np.array_equal(table.accumulated().precision, accumulated.precision)
        assert np.array_equal(table.accumulated().recall, accumulated.recall)


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_chunks_of_detections_give_the_same_table(
    tmp_path: Path, iou_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, (whole, _) = match_world(tmp_path, make_world(3), iou_type, least=0.1)
    monkeypatch.setattr(matched, "CHUNK", 7)
    _, _, (parts, _) = match_world(tmp_path, make_world(3), iou_type, least=0.1)
    assert len(whole) > 100
    assert (whole.best > 0).any()
    for name in ("rows", "true", "ignored", "targets", "best", "best_objects"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("masks", [True, False])
def test_overlaps_are_those_of_pycocotools_in_every_bit(seed: int, masks: bool) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(1, 24, 2))
    if masks:
        pixels = (rng.random((height, width, 12)) < rng.choice([0.1, 0.5, 0.95, 1.0])).astype(np.uint8)
        pixels[:, : rng.integers(0, width + 1), :4] = 0
        rles = mask_utils.encode(np.asfortranarray(pixels))
        shapes = [rle["counts"] for rle in rles]
        left, right = (mask_shapes(part, np.full(len(part), height)) for part in (shapes[:7], shapes[7:]))
        pairs = rles[:7], rles[7:]
    else:
        boxes = rng.integers(0, 9, (12, 4)) + rng.choice([0.0, 0.1], (12, 4))
        left, right = box_shapes(boxes[:7]), box_shapes(boxes[7:])
        pairs = boxes[:7].tolist(), boxes[7:].tolist()
    crowd = rng.random(5) < 0.3
    ious = np.asarray(mask_utils.iou(*pairs, crowd.tolist())).reshape(7, 5)
    categories, theirs = rng.integers(0, 2, 7), rng.integers(0, 2, 5)
    zeros = np.zeros
    found = overlaps(left, zeros(7, int), categories, right, zeros(5, int), theirs, crowd, least=0.1)
    same = categories[:, None] == theirs
    for k, allowed in enumerate((same, ~same)):
        expected = np.where(allowed & ~crowd & (ious >= 0.1), ious, 0.0)
        assert np.array_equal(found.best[k], expected.max(axis=1))
        assert np.array_equal(found.objects[k], np.where(expected.max(axis=1) > 0, expected.argmax(axis=1), -1))
    rows, targets = np.nonzero(same & (ious >= 0.5))
    assert (found.rows.tolist(), found.targets.tolist()) == (rows.tolist(), targets.tolist())
    assert np.array_equal(found.ious, ious[rows, targets])
    fewer = overlaps(left, zeros(7, int), categories, right, zeros(5, int), theirs, crowd)
    assert np.array_equal(fewer.ious, found.ious)
