"""Boundaries and their overlap against whole-image erosion, and boundary AP against the rules of the challenge."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from pipeline_steps.common.cli import call_step
from pipeline_steps.evaluate import main, parser
from pipeline_steps.evaluation.boundary import boundaries, boundary_ious
from pipeline_steps.evaluation.coco_ap import evaluate_coco
from pipeline_steps.evaluation.ground_truth import read_ground_truth
from pipeline_steps.evaluation.lvis_ap import evaluate_lvis
from pipeline_steps.evaluation.lvis_official import numpy_float_alias
from pipeline_steps.evaluation.metrics import KEYS
from pipeline_steps.evaluation.overlaps import Overlaps, Shapes, mask_shapes
from pipeline_steps.evaluation.results import read_results
from tests.evaluation.test_evaluation_coco import coco_world
from tests.evaluation.test_evaluation_official import fixed_selection
from tests.evaluation.worlds import make_world, write_table, write_world


def whole_image_boundary(mask: np.ndarray, d: int) -> np.ndarray:
    """The definition: the mask without the pixels whose square of side 2 d + 1 is all mask, zeros around the image."""
    height, width = mask.shape
    padded = np.pad(mask, d)
    kept = mask.copy()
    for dy in range(2 * d + 1):
        for dx in range(2 * d + 1):
            kept &= padded[dy : dy + height, dx : dx + width]
    return mask & ~kept


def official_boundary(mask: np.ndarray, d: int) -> np.ndarray:
    """The same by the steps of the LVIS challenge 2021."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    kept = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=d)[1:-1, 1:-1]
    return mask & (kept == 0)


def shapes_of(*masks: np.ndarray) -> Shapes:
    rles = [mask_utils.encode(np.asfortranarray(mask, np.uint8))["counts"] for mask in masks]
    return mask_shapes(rles, np.array([len(mask) for mask in masks]))


def boundaries_of(masks: list[np.ndarray], d: int) -> list[np.ndarray]:
    """Ours, as pixels."""
    edge = boundaries(shapes_of(*masks), np.arange(len(masks)), np.array([len(mask) for mask in masks]), np.full(9, d))
    found = [pixels(edge.edges[slice(*edge.starts[k : k + 2])], mask.shape) for k, mask in enumerate(masks)]
    assert edge.areas.tolist() == [mask.sum() for mask in found]
    return found


def pixels(edges: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    flat = np.zeros(shape[0] * shape[1], bool)
    for start, end in edges.reshape(-1, 2).tolist():
        flat[start:end] = True
    return flat.reshape(shape, order="F")


@st.composite
def masks(draw: st.DrawFn, height: int, width: int) -> np.ndarray:
    """Empty, full, thin, speckled, with holes, at the border: what models and annotators write, and worse."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["noise", "dense", "boxes", "polygons", "full", "empty", "line"]))
    mask = np.zeros((height, width), bool)
    if kind in ("noise", "dense"):
        mask = rng.random((height, width)) < (0.3 if kind == "noise" else 0.97)
    elif kind == "full":
        mask[:] = True
    elif kind == "line":
        mask[rng.integers(height)] = True
        mask[:, rng.integers(width)] = True
    elif kind != "empty":
        canvas = np.zeros((height, width), np.uint8)
        for _ in range(rng.integers(1, 4)):
            if kind == "boxes":
                y, x = rng.integers(-3, height), rng.integers(-3, width)
                canvas[max(y, 0) : y + rng.integers(1, height + 3), max(x, 0) : x + rng.integers(1, width + 3)] ^= 1
            else:
                points = rng.integers(-5, max(height, width) + 5, (rng.integers(3, 9), 1, 2), dtype=np.int32)
                cv2.fillPoly(canvas, [points], 1)
        mask = canvas.astype(bool)
    return mask


@st.composite
def pairs_of_masks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    return draw(masks(height, width)), draw(masks(height, width)), draw(st.integers(1, 6))


@settings(max_examples=100)
@given(pairs_of_masks())
def test_boundaries_and_their_overlap_are_those_of_the_pixels(case: tuple[np.ndarray, np.ndarray, int]) -> None:
    mask, other, d = case
    expected = [whole_image_boundary(each, d) for each in (mask, other)]
    assert np.array_equal(expected[0], official_boundary(mask, d))
    assert np.array_equal(boundaries_of([other, mask, mask], d), [expected[1], expected[0], expected[0]])
    shapes = shapes_of(mask, other)
    sizes = np.array([mask.shape] * 2)
    zero, one = np.array([0]), np.ones(1)
    pair = Overlaps(zero, zero, zero, zero + 1, one)
    if mask.any() and other.any():
        iou = boundary_ious(shapes, shapes, pair, np.zeros(2, bool), sizes[:, 0], np.full(2, d))[0]
        assert iou == (expected[0] & expected[1]).sum() / (expected[0] | expected[1]).sum()
        assert boundary_ious(shapes, shapes, pair, np.ones(2, bool), sizes[:, 0], np.full(2, d))[0] == 1


@pytest.mark.parametrize("d", [1, 7, 16])
def test_boundary_of_large_outlines_with_holes_is_that_of_the_pixels(d: int) -> None:
    rng, drawn = np.random.default_rng(d), []
    for _ in range(5):
        canvas = np.zeros((331, 240), np.uint8)
        angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        radii = rng.uniform(60, 190, 40)
        outline = np.stack([120 + radii * np.cos(angles), 160 + radii * np.sin(angles)], axis=1).astype(np.int32)
        cv2.fillPoly(canvas, [outline], 1)
        cv2.circle(canvas, (int(rng.integers(240)), int(rng.integers(331))), int(rng.integers(1, 60)), 0, -1)
        drawn.append(canvas.astype(bool))
    for mask, ours in zip(drawn, boundaries_of(drawn, d)):
        expected = official_boundary(mask, d)
        assert 0 < expected.sum() < mask.sum()
        assert np.array_equal(ours, expected)


def official_ious(detections: list[dict[str, Any]], objects: list[dict[str, Any]], ratio: float) -> Any:
    """The overlaps of the official code: the smaller one of mask IoU and boundary IoU, mask IoU with crowds."""
    order = np.argsort([-d["score"] for d in detections], kind="mergesort")
    sides = [[detections[i]["segmentation"] for i in order], [o["segmentation"] for o in objects]]
    crowd = [int(o.get("iscrowd", 0)) for o in objects]
    ious = mask_utils.iou(*sides, crowd)
    if not (len(detections) and len(objects)):
        return ious
    edges = []
    for side in sides:
        pixels_of_side = [mask_utils.decode(rle).astype(bool) for rle in side]
        d = [max(1, round(ratio * float(np.sqrt(np.square(p.shape).sum())))) for p in pixels_of_side]
        boundary = [official_boundary(*pair).astype(np.uint8) for pair in zip(pixels_of_side, d)]
        edges.append([mask_utils.encode(np.asfortranarray(pixels)) for pixels in boundary])
    smaller = np.minimum(ious, mask_utils.iou(*edges, crowd))
    return np.where(np.array(crowd, bool), ious, smaller)


def official_arrays(truth_path: Path, results: list[dict[str, Any]], cap: int, ratio: float) -> tuple[Any, Any]:
    """The lvis package with these overlaps: precision and recall."""
    from lvis import LVIS, LVISEval, LVISResults

    class BoundaryEval(LVISEval):
        def compute_iou(self, img_id: int, cat_id: int) -> Any:
            objects, detections = self._get_gt_dt(img_id, cat_id)
            return official_ious(detections, objects, ratio) if objects or detections else []

    truth = LVIS(str(truth_path))
    plain = [{key: value for key, value in result.items() if key != "bbox"} for result in results]
    run = BoundaryEval(truth, LVISResults(truth, plain, max_dets=cap), "segm")
    with numpy_float_alias():
        run.evaluate()
        run.accumulate()
    return run.eval["precision"], run.eval["recall"]


@pytest.mark.parametrize(("seed", "ratio"), [(0, 0.02), (1, 0.02), (2, 0.1), (3, 0.001)])
def test_boundary_ap_and_boundary_ap_fixed_are_the_official_arrays(tmp_path: Path, seed: int, ratio: float) -> None:
    world = make_world(seed, most=160)
    truth_path, results_path = write_world(tmp_path, world)
    truth, results = read_ground_truth(truth_path, "segm"), read_results(results_path, "segm")
    evaluation = evaluate_lvis(truth, results, "segm", 100, 60, boundary_ratio=ratio)
    capped, fixed = evaluation.boundaries()
    assert (capped.precision < evaluation.capped.precision).any()
    precision, recall = official_arrays(truth_path, world[1], 100, ratio)
    assert np.array_equal(capped.precision, precision)
    assert np.array_equal(capped.recall, recall)
    assert np.array_equal(fixed.precision, official_arrays(truth_path, fixed_selection(world[1], 60), -1, ratio)[0])


def test_boundary_ap_of_coco_is_that_of_pycocotools_with_the_official_overlaps(tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    class BoundaryEval(COCOeval):
        def computeIoU(self, imgId: int, catId: int) -> Any:
            objects, detections = self._gts[imgId, catId], self._dts[imgId, catId]
            return official_ious(detections, objects, 0.05) if objects or detections else []

    world = coco_world(1)
    truth_path, results_path = write_world(tmp_path, world)
    ours = evaluate_coco(truth_path, read_results(results_path, "segm"), "segm", "official", 0.05)
    known = {category["id"] for category in world[0]["categories"]}
    plain = [{k: v for k, v in r.items() if k != "bbox"} for r in world[1] if r["category_id"] in known]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth_path))
        run = BoundaryEval(coco, coco.loadRes(plain), "segm")
        run.evaluate()
        run.accumulate()
    assert (ours.boundary.precision < ours.accumulated.precision).any()
    assert np.array_equal(ours.boundary.precision, run.eval["precision"][..., -1])


def evaluate(folder: Path, *options: str) -> int:
    files = [f"--annotations={folder}/truth.json", f"--output={folder}/metrics.json", f"--per-category={folder}/c.csv"]
    return call_step(parser, main, [*files, *options])


def test_metrics_hold_what_is_asked_for_and_the_rest_stays_as_it_was(tmp_path: Path) -> None:
    world = make_world(5, most=120)
    for category in world[0]["categories"]:
        category["frequency"] = "cf"[category["id"] % 2]  # no rare ones
    write_world(tmp_path, world)
    files = ["--iou-type=segm", f"--detections={tmp_path}/results.json"]
    read = []
    for options in ([], ["--no-recall", "--no-fixed-sizes", "--boundary-ratio=0"], ["--evaluator=official"]):
        assert evaluate(tmp_path, *files, *options) == 0
        read.append(json.loads((tmp_path / "metrics.json").read_text()))
        read.append((tmp_path / "c.csv").read_text().splitlines()[0].split(","))
    every, columns, fewest, fewer_columns, official, _ = read
    added = set(every) - set(fewest)
    assert added == {
        *(f"{key}{suffix}" for key in KEYS[:9] for suffix in ("_boundary", "_boundary_fixed")), "boundary_ratio",
        "ARs", "ARm", "ARl", "ARr", "ARc", "ARf", "AP50_fixed", "AP75_fixed", "APs_fixed", "APm_fixed", "APl_fixed",
    }  # fmt: skip
    assert {key: value for key, value in every.items() if key not in added} == fewest
    assert official == every | {"evaluator": "official"}
    assert [name for name in columns if name not in fewer_columns] == ["AR", "AP_boundary", "AP_boundary_fixed"]
    assert every["APr_boundary"] is every["ARr"] is None
    assert 0 < every["AP_boundary"] < every["AP"]
    assert 0 < every["AP_boundary_fixed"] < every["AP_fixed"]
    assert every["ARf"] >= every["APf"] > 0


def test_boxes_and_shares_that_are_none_are_refused_for_boundaries(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, results = make_world(5, most=20)
    write_world(tmp_path, (truth, results))
    table = write_table(tmp_path / "boxes.parquet", results, masks=False)
    segm, bbox = (["--iou-type", kind] for kind in ("segm", "bbox"))
    masks, boxes = f"--detections={tmp_path}/results.json", f"--detections={table}"
    for options, message in (
        ([*bbox, masks, "--boundary-ratio=0.02"], "--boundary-ratio needs masks: evaluate with --iou-type segm"),
        ([*segm, boxes, "--boundary-ratio=0.02"], "boxes without masks: evaluate with --iou-type bbox"),
        *(([*segm, masks, f"--boundary-ratio={word}"], "--boundary-ratio is ") for word in ("-0.1", "1", "nan", "20")),
    ):
        assert evaluate(tmp_path, *options) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "metrics.json").exists()
    for annotation in truth["annotations"]:
        del annotation["segmentation"]
    write_world(tmp_path, (truth, results))
    assert evaluate(tmp_path, *segm, masks) == 2
    assert "segmentation" in capsys.readouterr().err
    assert evaluate(tmp_path, *bbox, masks) == 0
    assert "AP_boundary" not in json.loads((tmp_path / "metrics.json").read_text())
