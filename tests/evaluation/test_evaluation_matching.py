"""Verdicts on single detections against those of the official evaluator."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from pipeline_steps.evaluation.lvis_official import numpy_float_alias
from pipeline_steps.evaluation.matching import FALSE, IGNORED, TRUE, UNJUDGED, match_detections, verdicts
from tests.evaluation.worlds import World, make_world, write_world

THRESHOLDS = (0.5, 0.75, 0.9)


def official_verdicts(folder: Path, world: World, iou_type: str) -> dict[tuple[int, float], str]:
    """Verdict by detection (its position in the results) and threshold; those that lvis drops are unjudged."""
    from lvis import LVIS, LVISEval, LVISResults

    truth_path, _ = write_world(folder, world)
    results = copy.deepcopy(world[1])
    for result in results:
        result.pop("bbox" if iou_type == "segm" else "segmentation")
    truth = LVIS(str(truth_path))
    run = LVISEval(truth, LVISResults(truth, results, max_dets=-1), iou_type)
    with numpy_float_alias():
        run.evaluate()
    found = {(k, threshold): UNJUDGED for k in range(len(results)) for threshold in THRESHOLDS}
    for entry in run.eval_imgs:
        if entry is None or entry["area_rng"] != run.params.area_rng[0]:
            continue
        for threshold in THRESHOLDS:
            row = int(np.flatnonzero(np.isclose(run.params.iou_thrs, threshold))[0])
            for column, number in enumerate(entry["dt_ids"]):
                matched, ignored = entry["dt_matches"][row, column], entry["dt_ignore"][row, column]
                found[number - 1, threshold] = TRUE if matched else IGNORED if ignored else FALSE
    return found


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("seed", range(3))
def test_every_verdict_is_that_of_the_official_evaluator(tmp_path: Path, seed: int, iou_type: str) -> None:
    world = make_world(seed + 20, images=8, categories=5, most=60)
    truth, results = world
    truth["annotations"] = [a for a in truth["annotations"] if a["area"] > 0]
    if iou_type == "segm":
        results[:] = [r for r in results if mask_utils.area(r["segmentation"]) > 0]
    else:
        results[:] = [r for r in results if r["bbox"][2] * r["bbox"][3] > 0]
    expected = official_verdicts(tmp_path, world, iou_type)
    ours = {}
    for image in truth["images"]:
        mine = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        rows = [k for k, r in enumerate(results) if r["image_id"] == image["id"]]
        categories = np.array([results[k]["category_id"] for k in rows], int)
        if iou_type == "segm":
            size = image["height"], image["width"]
            shapes = [mask_utils.merge(mask_utils.frPyObjects(a["segmentation"], *size)) for a in mine]
            detected = [results[k]["segmentation"] for k in rows]
        else:
            shapes, detected = [a["bbox"] for a in mine], [results[k]["bbox"] for k in rows]
        present = np.array([a["category_id"] for a in mine], int)
        scores = np.array([results[k]["score"] for k in rows])
        matches = match_detections(present, shapes, categories, scores, detected, THRESHOLDS)
        negative, loose = image["neg_category_ids"], image["not_exhaustive_category_ids"]
        for threshold, row in zip(THRESHOLDS, matches):
            for k, verdict in zip(rows, verdicts(row, categories, set(present.tolist()), negative, loose)):
                ours[k, threshold] = verdict
    assert ours == expected
    assert set(ours.values()) == {TRUE, FALSE, IGNORED, UNJUDGED}


def test_an_object_is_matched_once_and_by_the_higher_score() -> None:
    box = [0, 0, 10, 10]
    matches = match_detections(np.array([1]), [box], np.array([1, 1]), np.array([0.2, 0.9]), [box, box])
    assert matches.tolist() == [[-1, 0]]


def test_images_without_objects_or_detections_give_no_match() -> None:
    none = np.zeros(0, int)
    assert match_detections(none, [], np.array([1]), np.array([0.5]), [[0, 0, 1, 1]]).tolist() == [[-1]]
    assert match_detections(np.array([1]), [[0, 0, 1, 1]], none, np.zeros(0), []).shape == (1, 0)
