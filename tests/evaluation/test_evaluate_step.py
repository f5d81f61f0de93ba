"""The step `evaluate`: what it writes, and what it says about bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline_steps.common.cli import call_step
from pipeline_steps.evaluate import main, parser
from pipeline_steps.evaluation import results, results_file
from pipeline_steps.evaluation.metrics import KEYS
from tests.evaluation.worlds import make_world, write_table, write_world


def run(folder: Path, annotations: Path, detections: Path, *options: str) -> int:
    required = ["--annotations", annotations, "--detections", detections, "--output", folder / "metrics.json"]
    iou_type = [] if "--iou-type" in options else ["--iou-type", "segm"]
    return call_step(parser, main, [str(argument) for argument in (*required, *iou_type, *options)])


def refusal(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: Any) -> str:
    """Error text of a run that must fail in good order and write nothing."""
    assert run(folder, *arguments) == 2
    assert not (folder / "metrics.json").exists()
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


@pytest.fixture
def world(tmp_path: Path) -> tuple[Path, Path]:
    return write_world(tmp_path, make_world(1, most=60))


def test_metrics_have_every_key_in_per_cent_and_say_how_they_came_about(
    tmp_path: Path, world: tuple[Path, Path]
) -> None:
    results = json.loads(world[1].read_text())
    table = write_table(tmp_path / "detections.parquet", results)
    assert run(tmp_path, world[0], table, "--max-detections", "20", "--fixed-per-category", "30") == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert set(KEYS) <= set(metrics)
    assert {"AP_fixed", "APr_fixed", "APc_fixed", "APf_fixed", "APs", "AP75"} <= set(KEYS)
    assert 1 < metrics["AP"] < 100
    assert metrics["recipe"] == "tiny"
    assert (metrics["max_detections"], metrics["fixed_per_category"]) == (20, 30)
    per_image = np.unique([r["image_id"] for r in results], return_counts=True)[1]
    assert metrics["detections_per_image"] == per_image.max()
    assert metrics["counts"]["detections"] == len(results)
    assert metrics["counts"]["detections_of_unknown_categories"] == sum(r["category_id"] == 9999 for r in results)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, world: tuple[Path, Path]) -> None:
    written = []
    for _ in range(2):
        run(tmp_path, *world)
        written.append((tmp_path / "metrics.json").read_bytes())
    assert written[0] == written[1]


def test_train_images_are_those_of_the_train_file(tmp_path: Path, world: tuple[Path, Path]) -> None:
    truth = json.loads(world[0].read_text())
    wanted = {}
    for category in truth["categories"]:
        wanted[str(category["id"])] = str(1000 + category["id"])
        category["image_count"] = 1000 + category["id"]
    del wanted[str(truth["categories"].pop()["id"])]  # one that the train file does not know
    (tmp_path / "train.json").write_text(json.dumps({**truth, "images": [], "annotations": []}))
    options = ["--per-category", str(tmp_path / "categories.csv")]
    for train in ([], ["--train-annotations", str(tmp_path / "train.json")]):
        assert run(tmp_path, *world, *options, *train) == 0
        with (tmp_path / "categories.csv").open() as file:
            counted = {row["category_id"]: row["train_images"] for row in csv.DictReader(file)}
        assert {key: value for key, value in counted.items() if value} == (wanted if train else {})


def test_category_table_has_one_row_per_category_whose_mean_is_the_group_ap(
    tmp_path: Path, world: tuple[Path, Path]
) -> None:
    assert run(tmp_path, *world, "--per-category", str(tmp_path / "categories.csv")) == 0
    with (tmp_path / "categories.csv").open() as file:
        rows = list(csv.DictReader(file))
    truth = json.loads(world[0].read_text())
    assert [int(row["category_id"]) for row in rows] == sorted(c["id"] for c in truth["categories"])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for letter in "rcf":
        group = [float(row["AP"]) for row in rows if row["frequency"] == letter and row["AP"]]
        assert np.mean(group) == pytest.approx(metrics[f"AP{letter}"], abs=1e-3)
    assert sum(int(row["annotations"]) for row in rows) == sum(a["area"] > 0 for a in truth["annotations"])
    assert any(row["AP"] == "" for row in rows), "a category without ground truth has no AP"


def test_a_group_without_ground_truth_is_null_not_a_number(tmp_path: Path) -> None:
    truth, results = make_world(2, most=20)
    for category in truth["categories"]:
        category["frequency"] = "f"
    run(tmp_path, *write_world(tmp_path, (truth, results)))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["APr"] is None
    assert metrics["APr_fixed"] is None
    assert metrics["APf"] == metrics["AP"]


def test_a_cap_that_binds_lowers_what_ap_sees_but_not_ap_fixed(tmp_path: Path) -> None:
    world = write_world(tmp_path, make_world(3, most=200))
    figures = []
    for cap in ("5", "300"):
        run(tmp_path, *world, "--max-detections", cap)
        figures.append(json.loads((tmp_path / "metrics.json").read_text()))
    assert figures[0]["AP"] != figures[1]["AP"]
    assert figures[0]["AP_fixed"] == figures[1]["AP_fixed"]


def test_missing_files_are_named(tmp_path: Path, world: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.json" in refusal(capsys, tmp_path, tmp_path / "nowhere.json", world[1])
    assert "nothing.parquet" in refusal(capsys, tmp_path, world[0], tmp_path / "nothing.parquet")


def test_truncated_files_are_refused(
    tmp_path: Path, world: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "detections.parquet", json.loads(world[1].read_text()))
    for path in (*world, table):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 3])
        error = refusal(capsys, tmp_path, world[0], table if path == table else world[1])
        assert str(path) in error
        assert "truncated" in error
        path.write_bytes(whole)


def test_a_file_without_detections_is_refused(
    tmp_path: Path, world: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in (("a.json", "[]"), ("b.json", "")):
        (tmp_path / name).write_text(content)
        assert f"{name}" in refusal(capsys, tmp_path, world[0], tmp_path / name)
    empty = write_table(tmp_path / "empty.parquet", [])
    assert "no detections" in refusal(capsys, tmp_path, world[0], empty)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_scores_that_are_no_numbers_are_refused(
    tmp_path: Path, world: tuple[Path, Path], capsys: pytest.CaptureFixture[str], word: str
) -> None:
    results = json.loads(world[1].read_text())
    results[3]["score"] = float(word.lower().replace("infinity", "inf"))
    world[1].write_text(json.dumps(results))
    assert "NaN or infinite" in refusal(capsys, tmp_path, *world)


CHANGES = {
    "image ids": (lambda r: r.update(image_id=424242), "424242"),
    "size of mask": (lambda r: r["segmentation"].update(size=[5, 5]), "size"),
    "uncompressed mask": (lambda r: r["segmentation"].update(counts=[3, 4]), "compressed RLE"),
    "polygon": (lambda r: r.update(segmentation=[[1, 1, 2, 2, 1, 2]]), "compressed RLE"),
    "damaged mask": (lambda r: r["segmentation"].update(counts=r["segmentation"]["counts"] + "oooo"), "damaged"),
    "no mask": (lambda r: r.pop("segmentation"), "--iou-type bbox"),
    "no score": (lambda r: r.pop("score"), "score"),
    "text for a score": (lambda r: r.update(score="high"), "score"),
}


def _short(result: dict[str, Any]) -> None:
    size = result["segmentation"]["size"]
    result["segmentation"]["counts"] = _encoded([5, 3], [1, 8])
    assert np.prod(size) > 8


def _encoded(runs: list[int], size: list[int]) -> str:
    from pycocotools import mask as mask_utils

    return mask_utils.frPyObjects({"size": size, "counts": runs}, *size)["counts"].decode()


CHANGES |= {
    "mask that falls short": (_short, "do not add up to their image"),
    "empty counts": (lambda r: r["segmentation"].update(counts=""), "do not add up to their image"),
    "counts that are not ASCII": (lambda r: r["segmentation"].update(counts="ä€"), "damaged"),
    "image id of 400 digits": (lambda r: r.update(image_id=10**400), "image_id"),
    "category id above 2**53": (lambda r: r.update(category_id=2**60), "category_id"),
    "size of 400 digits": (lambda r: r["segmentation"].update(size=[10**400, 1]), "size"),
    "score of 400 digits": (lambda r: r.update(score=10**400), "score"),
}


@pytest.mark.parametrize("evaluator", ["compiled", "official"])
@pytest.mark.parametrize("change", CHANGES)
def test_one_wrong_detection_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, evaluator: str
) -> None:
    truth, results = make_world(5, most=20)
    annotated = {a["image_id"]: a["category_id"] for a in truth["annotations"] if a["area"] > 0}
    wrong = next(result for result in results if result["image_id"] in annotated)
    wrong["category_id"] = annotated[wrong["image_id"]]  # judged there, so that its mask is looked at
    alter, expected = CHANGES[change]
    alter(wrong)
    paths = write_world(tmp_path, (truth, results))
    assert expected in refusal(capsys, tmp_path, *paths, "--evaluator", evaluator)


def test_the_help_says_what_boxes_beside_masks_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert "a bbox beside a mask in a results file has no effect" in " ".join(parser.format_help().split())


def test_boxes_beside_masks_have_no_effect(tmp_path: Path) -> None:
    truth, results = make_world(5, most=20)
    figures = []
    for boxes in (True, False):
        for result in results:
            result["bbox"] = [0, 0, 1, 1]
            if not boxes:
                del result["bbox"]
        run(tmp_path, *write_world(tmp_path, (truth, results)))
        figures.append(json.loads((tmp_path / "metrics.json").read_text()))
    assert figures[0] | {"inputs": None} == figures[1] | {"inputs": None}


def test_caps_below_one_are_refused(
    tmp_path: Path, world: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--max-detections", "--fixed-per-category"):
        assert option in refusal(capsys, tmp_path, *world, option, "0")


def test_a_results_file_that_is_no_list_is_refused(
    tmp_path: Path, world: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    world[1].write_text('{"detections": []}')
    assert "one list" in refusal(capsys, tmp_path, *world)


def test_detections_of_other_categories_only_are_refused(
    tmp_path: Path, world: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    results = json.loads(world[1].read_text())
    for result in results:
        result["category_id"] = 7777
    world[1].write_text(json.dumps(results))
    assert "7777" in refusal(capsys, tmp_path, *world)


def test_boxes_of_negative_size_are_refused(
    tmp_path: Path, world: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    results = json.loads(world[1].read_text())
    results[2]["bbox"][2] = -3
    world[1].write_text(json.dumps(results))
    assert "x, y, width, height" in refusal(capsys, tmp_path, *world, "--iou-type", "bbox")


def test_a_table_without_masks_is_refused_for_segm_and_taken_for_bbox(
    tmp_path: Path, world: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "boxes.parquet", json.loads(world[1].read_text()), masks=False)
    assert "--iou-type bbox" in refusal(capsys, tmp_path, world[0], table)
    assert run(tmp_path, world[0], table, "--iou-type", "bbox") == 0


TRUTH_CHANGES = {
    "frequency missing": (lambda t: t["categories"][1].pop("frequency"), "frequency"),
    "frequency unknown": (lambda t: t["categories"][1].update(frequency="x"), "frequency"),
    "annotation of unknown image": (lambda t: t["annotations"][0].update(image_id=31337), "31337"),
    "annotation of unknown category": (lambda t: t["annotations"][0].update(category_id=31337), "31337"),
    "negative category unknown": (lambda t: t["images"][0].update(neg_category_ids=[31337]), "31337"),
    "annotation id 0": (lambda t: t["annotations"][0].update(id=0), "count from 1"),
    "annotation id twice": (lambda t: t["annotations"][0].update(id=2), "duplicate annotation id"),
    "crowd": (lambda t: t["annotations"][0].update(iscrowd=1), "--format coco"),
    "no annotations": (lambda t: t.pop("annotations"), "test split"),
    "no negatives": (lambda t: t["images"][0].pop("neg_category_ids"), "neg_category_ids"),
    "no masks": (lambda t: t["annotations"][0].pop("segmentation"), "segmentation"),
}


@pytest.mark.parametrize("change", TRUTH_CHANGES)
def test_ground_truth_that_is_not_lvis_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    truth, results = make_world(6, most=10)
    alter, expected = TRUTH_CHANGES[change]
    alter(truth)
    assert expected in refusal(capsys, tmp_path, *write_world(tmp_path, (truth, results)))


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n\n ", " : ")])
@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_a_results_file_is_read_alike_whole_and_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separators: tuple[str, str], iou_type: str
) -> None:
    _, records = make_world(7, most=30)
    records[5]["note"] = "a text that looks like the end of a detection: }, {"
    path = tmp_path / "results.json"
    path.write_text(json.dumps(records, separators=separators))
    whole = results.read_results(path, iou_type)
    for piece in (50, 997, 4096):
        monkeypatch.setattr(results_file, "_PIECE_BYTES", piece)
        read = results.read_results(path, iou_type)
        assert len(read) == len(records)
        for name in ("image_ids", "category_ids", "scores", "boxes", "mask_sizes"):
            assert np.array_equal(getattr(read, name), getattr(whole, name)), name
        if iou_type == "segm":
            assert read.packed(np.arange(len(read))).texts() == [record["segmentation"]["counts"] for record in records]
