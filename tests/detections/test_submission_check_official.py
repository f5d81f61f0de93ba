"""What the validator says that the official package does with each violation, against the package itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
from lvis import LVIS, LVISEval, LVISResults

from pipeline_steps.detections.submission_check import check_results
from tests.detections.results_samples import GOOD, HEIGHT, SIZES, VIOLATIONS, WIDTH, rectangle, result


@pytest.fixture
def truth(tmp_path, monkeypatch):
    monkeypatch.setattr(np, "float", float, raising=False)  # the package was written for numpy below 1.24
    box = rectangle(2, 3, 12, 13)
    content = {
        "images": [
            {"id": i, "height": HEIGHT, "width": WIDTH, "neg_category_ids": [], "not_exhaustive_category_ids": []}
            for i in SIZES
        ],
        "categories": [{"id": i, "name": f"thing{i}", "frequency": "f"} for i in (1, 2)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": i, "segmentation": box, "area": 100, "bbox": [2, 3, 10, 10]}
            for i in (1, 2)
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    return LVIS(str(tmp_path / "truth.json"))


def official_ap(truth, results, cap=300) -> float:
    loaded = LVISResults(truth, json.loads(json.dumps(results)), max_dets=cap)
    evaluation = LVISEval(truth, loaded, "segm")
    evaluation.run()
    return round(float(evaluation.get_results()["AP"]), 6)


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("not_list", AssertionError, "results is not a list"),
        ("empty", IndexError, "out of range"),
        ("not_object", TypeError, "subscriptable|iterable"),
        ("missing_key", KeyError, "score"),
        ("unknown_image", AssertionError, "Results do not correspond to current LVIS set"),
        ("polygon", Exception, "."),
        ("uncompressed_rle", Exception, "."),
    ],
)
def test_the_official_package_stops_where_the_report_says_so(truth, kind, error, words):
    with pytest.raises(error, match=words):
        official_ap(truth, VIOLATIONS[kind])


def test_the_official_package_drops_or_counts_the_others_as_the_report_says(truth):
    assert official_ap(truth, GOOD) == 1
    for kind in ("unknown_category", "empty_mask"):
        culprit = {**VIOLATIONS[kind][-1], "score": 0.99}
        assert official_ap(truth, [*GOOD, culprit]) == 1
        assert official_ap(truth, [*GOOD, culprit], cap=1) == 0.5
    wrong_size = {**VIOLATIONS["wrong_size"][-1], "score": 0.99}
    assert official_ap(truth, [wrong_size, GOOD[1]]) == 0.5
    assert 0.5 < official_ap(truth, [*GOOD, wrong_size]) < 1
    low_scores_first = [result(score=0.1), result(score=0.9, segmentation=rectangle(20, 0, 25, 5)), GOOD[1]]
    assert official_ap(truth, low_scores_first, cap=1) == 0.5


def test_the_official_package_counts_a_repeat_as_a_false_positive(truth):
    evaluation = LVISEval(truth, LVISResults(truth, [result(), result(score=0.8)]), "segm")
    evaluation.evaluate()
    evaluated = next(e for e in evaluation.eval_imgs if e and len(e["dt_ids"]) == 2)
    assert evaluated["dt_matches"][0].tolist() == [1, 0]
    assert evaluated["dt_ignore"][0].tolist() == [False, False]


def test_the_official_package_takes_areas_from_boxes_where_there_are_any(truth):
    loaded = LVISResults(truth, json.loads(json.dumps([result(bbox=[0, 0, 3, 4])])))
    assert loaded.dataset["annotations"][0]["area"] == 12


BESIDE = [2, 3, 10, 10]
BOXES_BESIDE = {
    "first only": ([BESIDE, ...], "missing_bbox"),
    "second null": ([BESIDE, None], "wrong_type"),
    "first null": ([None, BESIDE], "wrong_type"),
    "five numbers": ([BESIDE, [2, 3, 10, 10, 1]], "wrong_type"),
    "three numbers": ([BESIDE, [2, 3, 10]], "wrong_type"),
    "a number": ([BESIDE, 5], "wrong_type"),
    "text": ([BESIDE, "2310"], "wrong_type"),
    "text inside": ([BESIDE, [2, 3, "10", "10"]], "wrong_type"),
    "no area": ([[0, 0, 0, 0], [0, 0, 0, 0]], "no_area"),
    "negative area": ([[2, 3, -10, 10], [2, 3, 10, -10]], "no_area"),
    "second only": ([..., BESIDE], None),
    "second only, null": ([..., None], None),
    "good": ([BESIDE, BESIDE], None),
}


@pytest.mark.parametrize("case", BOXES_BESIDE)
def test_boxes_beside_masks_are_invalid_where_the_official_package_dies_or_scores_nothing(truth, tmp_path, case):
    boxes, kind = BOXES_BESIDE[case]
    results = [dict(item) if box is ... else {**item, "bbox": box} for item, box in zip(GOOD, boxes)]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    report = check_results(path, SIZES, [1, 2])
    assert report.valid == (kind is None)
    assert kind is None or report.counts[kind]
    try:
        ap = official_ap(truth, results)
    except (KeyError, TypeError, ValueError):
        ap = -1.0
    assert (ap == 1) == report.valid
