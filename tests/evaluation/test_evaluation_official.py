"""The evaluator against the official lvis package: the precision array must agree in every bit.

``HYPOTHESIS_PROFILE=long`` tries hundreds of worlds instead of a few.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline_steps.evaluation.ground_truth import read_ground_truth
from pipeline_steps.evaluation.lvis_ap import evaluate_lvis
from pipeline_steps.evaluation.lvis_official import numpy_float_alias
from pipeline_steps.evaluation.precision import summarize
from pipeline_steps.evaluation.results import read_results
from tests.evaluation import hotcoco_oracle
from tests.evaluation.worlds import World, make_world, write_table, write_world

SEEDS = range(300 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 4)


def run_official(truth_path: Path, results: list[dict[str, Any]], iou_type: str, cap: int = 300) -> Any:
    """The lvis package as its users call it: it caps, indexes and measures areas itself."""
    from lvis import LVIS, LVISEval, LVISResults

    results = copy.deepcopy(results)
    for result in results:
        result.pop("bbox" if iou_type == "segm" else "segmentation", None)
    truth = LVIS(str(truth_path))
    evaluation = LVISEval(truth, LVISResults(truth, results, max_dets=cap), iou_type)
    with numpy_float_alias():
        evaluation.run()
    return evaluation


def fixed_selection(results: list[dict[str, Any]], cap: int) -> list[dict[str, Any]]:
    """Obvious selection of AP_fixed: sort each category by score (stable), take the first ``cap``."""
    by_category: dict[int, list[dict[str, Any]]] = {}
    for result in results:
        by_category.setdefault(result["category_id"], []).append(result)
    kept = [sorted(group, key=lambda r: r["score"], reverse=True)[:cap] for group in by_category.values()]
    chosen = {id(result) for group in kept for result in group}
    return [result for result in results if id(result) in chosen]


def check(folder: Path, world: World, iou_type: str, cap: int = 300, fixed: int = 150) -> None:
    truth_path, results_path = write_world(folder, world)
    truth = read_ground_truth(truth_path, iou_type)
    ours = evaluate_lvis(truth, read_results(results_path, iou_type), iou_type, cap, fixed)
    official = run_official(truth_path, world[1], iou_type, cap)
    assert np.array_equal(ours.capped.precision, official.eval["precision"])
    assert np.array_equal(ours.capped.recall, official.eval["recall"])
    uncapped = run_official(truth_path, fixed_selection(world[1], fixed), iou_type, -1)
    assert np.array_equal(ours.fixed.precision, uncapped.eval["precision"])


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("seed", SEEDS)
def test_precision_array_is_bit_identical_to_the_official_one(tmp_path: Path, seed: int, iou_type: str) -> None:
    check(tmp_path, make_world(seed), iou_type)


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("cap", [1, 7, 60])
def test_a_smaller_cap_per_image_gives_the_official_array_at_that_cap(tmp_path: Path, cap: int, iou_type: str) -> None:
    check(tmp_path, make_world(11, most=120), iou_type, cap, fixed=3)


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_more_than_300_detections_of_one_category_in_one_image_count_for_ap_fixed(
    tmp_path: Path, iou_type: str
) -> None:
    check(tmp_path, make_world(5, images=4, categories=3, most=1500), iou_type, fixed=10000)


def test_detections_outside_the_judged_categories_only_still_give_the_official_array(tmp_path: Path) -> None:
    truth, results = make_world(3)
    judged = {image["id"]: set(image["neg_category_ids"]) for image in truth["images"]}
    for annotation in truth["annotations"]:
        judged[annotation["image_id"]].add(annotation["category_id"])
    check(tmp_path, (truth, [r for r in results if r["category_id"] not in judged[r["image_id"]]]), "segm")


def test_empty_masks_only_still_give_the_official_array(tmp_path: Path) -> None:
    from pycocotools import mask as mask_utils

    truth, results = make_world(4, most=20)
    for result in results:
        size = result["segmentation"]["size"]
        empty = mask_utils.encode(np.zeros(size, np.uint8, order="F"))
        result["segmentation"] = {"size": size, "counts": empty["counts"].decode()}
    check(tmp_path, (truth, results), "segm")


def test_ground_truth_in_run_length_encoding_gives_the_official_array(tmp_path: Path) -> None:
    from pycocotools import mask as mask_utils

    truth, results = make_world(6, most=100)
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    for k, annotation in enumerate(truth["annotations"]):
        size = sizes[annotation["image_id"]]
        rle = mask_utils.merge(mask_utils.frPyObjects(annotation["segmentation"], *size))
        if k % 2:
            pixels = mask_utils.decode(rle).ravel(order="F")
            edges = np.flatnonzero(np.diff(pixels, prepend=0))
            annotation["segmentation"] = {"size": size, "counts": np.diff([0, *edges, len(pixels)]).tolist()}
        else:
            annotation["segmentation"] = {"size": size, "counts": rle["counts"].decode()}
    check(tmp_path, (truth, results), "segm")


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_every_summary_figure_equals_the_official_one_to_the_last_bit(tmp_path: Path, iou_type: str) -> None:
    world = make_world(8)
    truth_path, results_path = write_world(tmp_path, world)
    truth = read_ground_truth(truth_path, iou_type)
    evaluation = evaluate_lvis(truth, read_results(results_path, iou_type), iou_type)
    official = run_official(truth_path, world[1], iou_type).get_results()
    ours = summarize(evaluation.capped, truth.frequencies)
    for key in ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"):
        expected = 100.0 * official[key] if official[key] > -1 else None
        assert ours[key] == expected, key
    assert ours["AR"] == 100.0 * official["AR@300"]


def test_group_ap_is_the_mean_over_the_categories_of_the_group_that_have_ground_truth(tmp_path: Path) -> None:
    truth_path, results_path = write_world(tmp_path, make_world(9))
    truth = read_ground_truth(truth_path, "segm")
    evaluation = evaluate_lvis(truth, read_results(results_path, "segm"), "segm")
    per_category = [
        np.mean(values) if (values := evaluation.capped.precision[:, :, category, 0]).max() > -1 else None
        for category in range(len(truth.categories))
    ]
    assert None in per_category
    for letter in "rcf":
        group = [ap for ap, frequency in zip(per_category, truth.frequencies) if frequency == letter and ap is not None]
        assert summarize(evaluation.capped, truth.frequencies)[f"AP{letter}"] == pytest.approx(100 * np.mean(group))


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_table_and_results_file_give_the_same_array_and_ranking_goes_by_rank_score(
    tmp_path: Path, iou_type: str
) -> None:
    truth_content, results = make_world(10)
    # A table keeps the detections of an image together and sorted: give the file the same order.
    results.sort(key=lambda r: (r["image_id"], -r["score"]))
    truth_path, results_path = write_world(tmp_path, (truth_content, results))
    table_path = write_table(tmp_path / "detections.parquet", results)
    truth = read_ground_truth(truth_path, iou_type)
    from_file, from_table = (
        evaluate_lvis(truth, read_results(path, iou_type), iou_type, 300, 40) for path in (results_path, table_path)
    )
    assert from_file.capped.precision.max() > 0
    assert np.array_equal(from_file.fixed.precision, from_table.fixed.precision)
    assert np.array_equal(from_file.capped.precision, from_table.capped.precision)


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_official_as_evaluator_gives_the_same_arrays(tmp_path: Path, iou_type: str) -> None:
    truth_path, results_path = write_world(tmp_path, make_world(12))
    truth, results = read_ground_truth(truth_path, iou_type), read_results(results_path, iou_type)
    slow = evaluate_lvis(truth, results, iou_type, 100, 50, "official")
    ours = evaluate_lvis(truth, results, iou_type, 100, 50)
    fast = hotcoco_oracle.evaluate_lvis(truth, results, iou_type, 100, 50)
    for capped, fixed in ((ours.capped, ours.fixed), fast):
        assert np.array_equal(capped.precision, slow.capped.precision)
        assert np.array_equal(fixed.precision, slow.fixed.precision)
        assert np.array_equal(fixed.recall, slow.fixed.recall)
    assert not hasattr(np, "float"), "the alias must not outlive the evaluation"


def test_a_results_file_with_boxes_and_masks_is_binned_by_mask_area(tmp_path: Path) -> None:
    world = make_world(13)
    for result in world[1]:
        result["bbox"] = [0.0, 0.0, 1000.0, 1000.0]
    truth_path, results_path = write_world(tmp_path, world)
    truth = read_ground_truth(truth_path, "segm")
    ours = evaluate_lvis(truth, read_results(results_path, "segm"), "segm")
    official = run_official(truth_path, json.loads(results_path.read_text()), "segm")
    assert np.array_equal(ours.capped.precision, official.eval["precision"])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_written_submission_gives_officially_what_we_measure_on_its_table(tmp_path: Path, seed: int) -> None:
    from pycocotools import mask as mask_utils

    from pipeline_steps.common.cli import call_step
    from pipeline_steps.write_submission import main, parser

    truth, results = make_world(seed, most=450)
    known = {category["id"] for category in truth["categories"]}
    written = [
        {
            **result,
            "bbox": mask_utils.toBbox(result["segmentation"]).tolist(),
        }  # inside the image, like a model's
        for result in results
        if result["category_id"] in known and mask_utils.area(result["segmentation"]) > 0
    ]
    truth_path, _ = write_world(tmp_path, (truth, written))
    table = write_table(tmp_path / "table.parquet", written)
    files = ["--annotations", str(truth_path), "--detections", str(table), "--output", str(tmp_path / "s.json")]
    assert call_step(parser, main, files) == 0
    submission = json.loads((tmp_path / "s.json").read_text())
    official = run_official(truth_path, submission, "segm")
    ours = evaluate_lvis(read_ground_truth(truth_path, "segm"), read_results(table, "segm"), "segm", 300, 150)
    assert (official.eval["precision"] > 0).any()
    assert np.array_equal(ours.capped.precision, official.eval["precision"])
