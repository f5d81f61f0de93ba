"""COCO AP by the fast evaluator against pycocotools."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline_steps.common.errors import UserError
from pipeline_steps.evaluation.coco_ap import evaluate_coco
from pipeline_steps.evaluation.metrics import KEYS, coco_metrics
from pipeline_steps.evaluation.results import read_results
from tests.evaluation import hotcoco_oracle
from tests.evaluation.worlds import World, make_world, write_world


def coco_world(seed: int, most: int = 250) -> World:
    """A world without LVIS fields, with crowd regions."""
    truth, results = make_world(seed, images=10, categories=6, most=most)
    for category in truth["categories"]:
        del category["frequency"]
    for k, annotation in enumerate(truth["annotations"]):
        annotation["iscrowd"] = int(k % 7 == 0)
    for image in truth["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    return truth, results


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("seed", range(3))
def test_precision_array_is_bit_identical_to_that_of_pycocotools(tmp_path: Path, seed: int, iou_type: str) -> None:
    truth, path = write_world(tmp_path, coco_world(seed))
    results = read_results(path, iou_type)
    official = evaluate_coco(truth, results, iou_type, "official").accumulated
    ours = evaluate_coco(truth, results, iou_type).accumulated
    for fast in (ours, hotcoco_oracle.evaluate_coco(truth, results, iou_type)):
        assert fast.precision.max() > 0
        assert np.array_equal(fast.precision, official.precision)
        assert np.array_equal(fast.recall, official.recall)


def test_metrics_equal_the_summary_of_pycocotools_and_have_every_key(tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    world = coco_world(4)
    truth, path = write_world(tmp_path, world)
    metrics, categories = coco_metrics(truth, path, "bbox", "compiled")
    assert set(KEYS) <= set(metrics)
    assert metrics["APr"] is None
    assert metrics["AP_fixed"] is None
    coco = COCO(str(truth))
    known = {category["id"] for category in world[0]["categories"]}
    boxes = [{k: v for k, v in r.items() if k != "segmentation"} for r in world[1] if r["category_id"] in known]
    official = COCOeval(coco, coco.loadRes(boxes), "bbox")
    official.evaluate()
    official.accumulate()
    official.summarize()
    for key, value in zip(("AP", "AP50", "AP75", "APs", "APm", "APl"), official.stats):
        assert metrics[key] == (pytest.approx(100 * value, abs=1e-9) if value > -1 else None)
    assert len(categories) == len(known)


def test_detections_on_images_without_annotations_file_entry_are_left_out_and_counted(tmp_path: Path) -> None:
    truth_content, results = coco_world(5, most=40)
    truth, path = write_world(tmp_path, (truth_content, results))
    metrics, _ = coco_metrics(truth, path, "bbox", "compiled")
    extra = [{**results[0], "image_id": 987654}] * 3
    path.write_text(json.dumps(results + extra))
    more, _ = coco_metrics(truth, path, "bbox", "compiled")
    assert more["AP"] == metrics["AP"]
    assert more["counts"]["detections_left_out"] == metrics["counts"]["detections_left_out"] + 3


@pytest.mark.parametrize("evaluator", ["compiled", "official"])
def test_masks_of_another_size_than_their_image_are_refused(tmp_path: Path, evaluator: str) -> None:
    """Turned round, they would be read as other masks (as the image's size) or match nothing (as their own)."""
    truth, results = coco_world(6, most=40)
    for result in results:
        result["segmentation"]["size"] = result["segmentation"]["size"][::-1]
    paths = write_world(tmp_path, (truth, results))
    with pytest.raises(UserError, match="masks whose size is not that of their image"):
        coco_metrics(*paths, "segm", evaluator)


@pytest.mark.parametrize("evaluator", ["compiled", "official"])
def test_masks_that_fall_short_of_their_size_are_refused(tmp_path: Path, evaluator: str) -> None:
    truth, results = coco_world(6, most=40)
    results[0]["segmentation"]["counts"] = "04"
    with pytest.raises(UserError, match="run lengths do not add up"):
        coco_metrics(*write_world(tmp_path, (truth, results)), "segm", evaluator)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["annotations"][0].update(id=0), "annotation id 0"),
        (lambda t: t["annotations"][0].update(id=t["annotations"][1]["id"]), "duplicate annotation id"),
        (lambda t: t["annotations"][0].update(id=2**53 + 2), "Expected `int` <= 9007199254740992"),
        (lambda t: t["images"][0].update(id=2**60), "Expected `int` <= 9007199254740992"),
        (lambda t: t["annotations"][0].update(area=None), r"area"),
        (lambda t: t["images"][0].update(width=None), r"width"),
        (lambda t: t["annotations"][0].update(category_id=31337), "annotation of an unknown category"),
        (lambda t: t["annotations"][0].update(segmentation=None), "annotation without segmentation"),
    ],
)
def test_ground_truth_that_evaluators_misread_is_refused(tmp_path: Path, change, message: str) -> None:
    truth, results = coco_world(6, most=20)
    change(truth)
    paths = write_world(tmp_path, (truth, results))
    with pytest.raises(UserError, match=message):
        coco_metrics(*paths, "segm", "compiled")
