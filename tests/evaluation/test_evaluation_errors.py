"""TIDE's errors: cases made by hand, the definition in loops, and the evaluator on data whose errors are mended."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from pipeline_steps.evaluation.errors import ERRORS, NEAR_SYNONYM, ErrorAnalysis, related_categories
from pipeline_steps.evaluation.lvis_ap import evaluate_lvis
from tests.evaluation.test_evaluation_matched import match_world
from tests.evaluation.worlds import World, make_world

NO_PARENT = frozenset()


def box_world(objects: list[tuple[int, list]], detections: list[tuple[int, list, float]], **image) -> World:
    """One image of 200 x 200 with boxes; categories 1 r, 2 c, 3 f, 4 f; every category is judged."""
    record = {"id": 1, "height": 200, "width": 200, "not_exhaustive_category_ids": [], **image}
    record.setdefault("neg_category_ids", [c for c in (1, 2, 3, 4) if c not in {c for c, _ in objects}])
    truth = {
        "images": [record],
        "categories": [{"id": k + 1, "name": f"thing_{k + 1}", "frequency": f} for k, f in enumerate("rcff")],
        "annotations": [
            {"id": k + 1, "image_id": 1, "category_id": c, "bbox": b, "area": b[2] * b[3], "segmentation": []}
            for k, (c, b) in enumerate(objects)
        ],
    }
    return truth, [{"image_id": 1, "category_id": c, "bbox": b, "score": s} for c, b, s in detections]


def analyse(folder: Path, world: World, iou_type: str = "bbox", parents=None, **caps) -> ErrorAnalysis:
    truth, _, (capped, _) = match_world(folder, world, iou_type, **caps, least=0.1)
    return ErrorAnalysis(capped, truth.frequencies, None if parents is None else related_categories(parents))


def named(analysis: ErrorAnalysis) -> dict[int, str]:
    """Row of the file -> error."""
    names = [ERRORS[code] if code >= 0 else "" for code in analysis.codes.tolist()]
    return dict(zip(analysis.table.rows.tolist(), names))


A, B = [0.0, 0.0, 40.0, 40.0], [100.0, 100.0, 40.0, 40.0]


@pytest.mark.parametrize(
    ("detection", "error"),
    [
        ((1, A, 0.9), ""),
        ((1, [0.0, 0.0, 40.0, 16.0], 0.9), "localisation"),  # IoU 0.4
        ((2, A, 0.9), "classification"),
        ((2, [0.0, 0.0, 40.0, 16.0], 0.9), "both"),
        ((1, [150.0, 0.0, 10.0, 10.0], 0.9), "background"),
        ((1, [0.0, 0.0, 40.0, 3.0], 0.9), "background"),  # IoU 0.075
    ],
)
def test_each_error_of_one_detection(tmp_path: Path, detection: tuple, error: str) -> None:
    analysis = analyse(tmp_path, box_world([(1, A)], [detection]))
    assert named(analysis) == {0: error}
    assert analysis.missed.tolist() == [error in ("both", "background")]


def test_a_second_detection_of_an_object_is_a_duplicate_and_mending_it_removes_it(tmp_path: Path) -> None:
    analysis = analyse(tmp_path, box_world([(1, A), (1, B)], [(1, A, 0.9), (1, A, 0.8), (1, B, 0.7)]))
    assert named(analysis) == {0: "", 1: "duplicate", 2: ""}
    summary = analysis.summary()["r"]
    # Precision 1 up to recall 0.5 (51 levels), then 2/3.
    assert summary["AP50"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101, abs=1e-4)
    assert summary["errors"]["duplicate"] == {"cost": pytest.approx(100 * 50 / 3 / 101, abs=1e-4), "count": 1}


def test_a_classification_error_costs_in_both_groups_and_mends_one_object_once(tmp_path: Path) -> None:
    world = box_world([(1, A), (2, B)], [(2, A, 0.9), (3, A, 0.8), (2, B, 0.7)])
    analysis = analyse(tmp_path, world, parents=[frozenset("x"), frozenset("x"), NO_PARENT, NO_PARENT])
    assert named(analysis) == {0: "classification", 1: "classification", 2: ""}
    summary = analysis.summary()
    assert summary["r"]["errors"]["classification"] == {"cost": 100.0, "count": 0}
    assert summary["c"]["errors"]["classification"] == {"cost": 50.0, "count": 1}
    assert summary["r"]["errors"][NEAR_SYNONYM] == {"cost": 100.0, "count": 0}
    assert summary["all"]["errors"][NEAR_SYNONYM]["count"] == 1
    assert summary["f"] is None
    assert summary["all"]["errors"]["missed"] == {"cost": 0.0, "count": 0}


def test_unjudged_and_ignored_detections_are_no_errors(tmp_path: Path) -> None:
    world = box_world(
        [(1, A), (2, B)],
        [(3, A, 0.9), (4, A, 0.9), (2, A, 0.8), (1, [0.0, 0.0, 40.0, 16.0], 0.7)],
        neg_category_ids=[4],
        not_exhaustive_category_ids=[2],
    )
    # Of category 3 nobody knows; category 2 is not exhaustive: only 4, verified absent, and 1 are judged.
    assert {row: name for row, name in named(analyse(tmp_path, world)).items() if name} == {
        1: "classification",
        3: "localisation",
    }


def test_a_category_that_is_wholly_missed_stays_at_zero_and_is_counted(tmp_path: Path) -> None:
    summary = analyse(tmp_path, box_world([(1, A), (2, B)], [(2, B, 0.9)])).summary()
    assert summary["r"] == {
        "AP50": 0.0,
        "none_left": 1,
        "errors": {name: {"cost": 0.0, "count": int(name == "missed")} for name in ERRORS},
    }
    assert summary["all"]["AP50"] == 50.0


def slow_errors(world: World, iou_type: str, rows: list[int]) -> tuple[dict[int, str], dict[int, int], set[int]]:
    """Errors of the judged rows by the definition, image by image: names, aims (annotation ids), missed annotations."""
    truth, results = world
    names: dict[int, str] = {}
    aims: dict[int, int] = {}
    missed: set[int] = set()
    shape = "segmentation" if iou_type == "segm" else "bbox"
    for image in truth["images"]:
        mine = [a for a in truth["annotations"] if a["image_id"] == image["id"] and a["area"] > 0]
        judged = {a["category_id"] for a in mine} | set(image["neg_category_ids"])
        found = [k for k in rows if results[k]["image_id"] == image["id"] and results[k]["category_id"] in judged]
        found.sort(key=lambda k: -results[k]["score"])
        size = image["height"], image["width"]
        shapes = [
            mask_utils.merge(mask_utils.frPyObjects(a["segmentation"], *size)) if iou_type == "segm" else a["bbox"]
            for a in mine
        ]
        ious = {k: [float(mask_utils.iou([results[k][shape]], [s], [0])[0, 0]) for s in shapes] for k in found}
        taken: set[int] = set()
        for k in found:
            best = None
            for g, iou in enumerate(ious[k]):
                if mine[g]["category_id"] != results[k]["category_id"] or g in taken or iou < 0.5:
                    continue
                if best is None or iou >= ious[k][best]:
                    best = g
            if best is not None:
                taken.add(best)
                names[k] = ""
        aimed = set()
        for k in found:
            category = results[k]["category_id"]
            if k in names or category in image["not_exhaustive_category_ids"]:
                names.setdefault(k, "")
                continue
            same = [(iou, -g) for g, iou in enumerate(ious[k]) if mine[g]["category_id"] == category]
            other = [(iou, -g) for g, iou in enumerate(ious[k]) if mine[g]["category_id"] != category]
            (near, g), (far, h) = max(same, default=(0, 0)), max(other, default=(0, 0))
            if 0.1 <= near <= 0.5:
                names[k], aims[k] = "localisation", -g
            elif far >= 0.5:
                names[k], aims[k] = "classification", -h
            elif near > 0.5:
                names[k] = "duplicate"
            elif max(near, far) <= 0.1:
                names[k] = "background"
            else:
                names[k] = "both"
            if k in aims:
                aimed.add(aims[k])
                aims[k] = mine[aims[k]]["id"] if aims[k] not in taken else 0  # 0: the object is found already
        missed |= {a["id"] for g, a in enumerate(mine) if g not in taken | aimed}
    return names, aims, missed


def mended(world: World, iou_type: str, names: dict, aims: dict, missed: set[int], error: str) -> World:
    """The data without one error: what can match gets category and shape of its object, the rest goes."""
    truth, results = copy.deepcopy(world)
    annotations = {a["id"]: a for a in truth["annotations"]}
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    best: dict[int, int] = {}
    for k in sorted(aims, key=lambda k: (-results[k]["score"], k)):
        best.setdefault(aims[k], k)
    kept = []
    for k, result in enumerate(results):
        if names.get(k) == error:
            if not aims.get(k) or best[aims[k]] != k:
                continue
            target = annotations[aims[k]]
            rle = mask_utils.merge(mask_utils.frPyObjects(target["segmentation"], *sizes[target["image_id"]]))
            result |= {"category_id": target["category_id"], "bbox": target["bbox"]}
            result["segmentation"] = {"size": list(sizes[target["image_id"]]), "counts": rle["counts"].decode()}
        kept.append(result)
    if error == "missed":
        for image in truth["images"]:
            gone = {annotations[i]["category_id"] for i in missed if annotations[i]["image_id"] == image["id"]}
            image["neg_category_ids"] = sorted({*image["neg_category_ids"], *gone})  # they stay judged
        truth["annotations"] = [a for a in truth["annotations"] if a["id"] not in missed]
    return truth, kept


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("seed", [0, 1])
def test_errors_and_costs_are_those_of_the_definition_and_of_the_evaluator_on_mended_data(
    tmp_path: Path, seed: int, iou_type: str
) -> None:
    world = make_world(seed, images=10, most=50)
    for k, result in enumerate(world[1]):
        result["score"] = (k * 7919 % 1009 + 1) / 1011 / 2 + result["score"] / 2
    truth, _, (capped, _) = match_world(tmp_path, world, iou_type, 10**6, least=0.1)
    analysis = ErrorAnalysis(capped, truth.frequencies)
    names, aims, missed = slow_errors(world, iou_type, sorted(capped.rows.tolist()))
    assert named(analysis) == names
    ids = np.array([truth.annotations[k]["id"] for k in capped.objects.records.tolist()])
    assert set(ids[analysis.missed].tolist()) == missed
    assert set(names.values()) == {"", *ERRORS[:-1]}
    assert missed
    summary = analysis.summary()
    base = capped.object_counts > 0
    for error in ERRORS:
        again, results, (_, _) = match_world(
            tmp_path, mended(world, iou_type, names, aims, missed, error), iou_type, 10**6
        )
        precision = evaluate_lvis(again, results, iou_type, 10**6, 1).capped.precision[0, :, :, 0].mean(axis=0)
        for group, chosen in {"all": base, **{f: base & (truth.frequencies == f) for f in "rcf"}}.items():
            after = 100 * np.maximum(precision[chosen], 0).mean()
            cost = summary[group]["errors"][error]["cost"]
            assert summary[group]["AP50"] + cost == pytest.approx(after, abs=3e-4), (error, group)


def test_confusions_are_ranked_by_their_scores_and_name_an_example(tmp_path: Path) -> None:
    world = box_world(
        [(1, A), (2, B)], [(2, A, 0.3), (2, A, 0.9), (3, A, 0.8), (1, B, 0.85), (2, B, 0.99), (4, B, 0.1)]
    )
    truth, _, (capped, _) = match_world(tmp_path, world, "bbox", least=0.1)
    table = ErrorAnalysis(capped, truth.frequencies).confusions(truth)
    columns = ("true_name", "predicted_name", "objects", "not_found", "weight")
    assert [[entry[column] for column in columns] for entry in table] == [
        ["thing_1", "thing_2", 1, 1, 0.9],
        ["thing_2", "thing_1", 1, 0, 0.85],
        ["thing_1", "thing_3", 1, 1, 0.8],
        ["thing_2", "thing_4", 1, 0, 0.1],
    ]
    assert [(entry["image_id"], entry["annotation_id"]) for entry in table] == [(1, 1), (1, 2), (1, 1), (1, 2)]
    assert {entry["near_synonym"] for entry in table} == {None}


def test_categories_are_related_if_they_share_any_parent() -> None:
    parents = [frozenset("ab"), frozenset("b"), frozenset("c"), NO_PARENT, NO_PARENT]
    related = related_categories(parents)
    assert np.argwhere(related).tolist() == [[0, 1], [1, 0]]
