"""check_dataset: every kind of problem is found where it is planted, counted, and nothing else is reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline_steps import check_dataset
from pipeline_steps.common.cli import call_step
from pipeline_steps.common.errors import UserError
from pipeline_steps.data.checks import catalogue
from pipeline_steps.data.checks.check import check_file, guess_split
from pipeline_steps.data.checks.findings import Findings
from pipeline_steps.data.checks.geometry import check_boxes
from pipeline_steps.data.checks.long_tail import summary_lines
from tests.data.lvis_files import changed, coco_content, lvis_content, polygon, write


def sound(version: str = "v0.5") -> dict[str, Any]:
    """A train file whose counts are right: 12 images of cat would be too many, so every category is rare."""
    content = lvis_content(version)
    for category in content["categories"]:
        category.update(frequency="r", image_count=1, instance_count=2 if category["id"] == 4 else 1)
    content["images"][1]["neg_category_ids"] = [1]
    return content


def kinds(
    tmp_path: Path, content: Any, name: str = "lvis_v0.5_train.json", **arguments: Any
) -> dict[str, tuple[str, int]]:
    checked = check_file(write(tmp_path / name, content), **arguments)
    return {kind: (entry.severity, entry.count) for kind, entry in checked.findings.kinds.items()}


@pytest.mark.parametrize("version", ["v0.5", "v1"])
def test_a_sound_file_has_no_findings(tmp_path: Path, version: str):
    assert kinds(tmp_path, sound(version)) == {}


def test_sound_coco_has_one_box_without_extent(tmp_path: Path):
    assert kinds(tmp_path, coco_content(), "instances_val2017.json") == {
        "box without extent": ("error", 1),
        "polygon encloses nothing": ("error", 1),
        "area is 0": ("warning", 1),
    }


@pytest.mark.parametrize(
    ("keys", "value", "kind", "severity"),
    [
        (("annotations", 0, "id"), 0, "annotation id 0 (evaluators take 0 for no match: count from 1)", "error"),
        (("annotations", 0, "id"), 102, "duplicate annotation id", "error"),
        (("annotations", 0, "id"), "a", "annotation of another structure", "error"),
        (("annotations", 2, "image_id"), 99, "annotation of an unknown image", "error"),
        (("annotations", 2, "category_id"), 3, "annotation of an unknown category", "error"),
        (("annotations", 2, "bbox"), [1, 2, 3], "annotation of another structure", "error"),
        (("annotations", 2, "bbox"), [1, 2, 3, None], "annotation of another structure", "error"),
        (("annotations", 2, "bbox"), [0, 0, 0, 10], "box without extent", "error"),
        (("annotations", 2, "bbox"), [0, 0, 66, 10], "box outside its image", "error"),
        (("annotations", 2, "area"), None, "annotation of another structure", "error"),
        (("annotations", 2, "area"), 0, "area is 0", "warning"),
        (
            ("annotations", 2, "iscrowd"),
            1,
            "iscrowd in LVIS (COCO files: --format coco)",
            "error",
        ),
        (
            ("annotations", 2, "segmentation"),
            None,
            "annotation without segmentation (it evaluates with --iou-type bbox)",
            "error",
        ),
        (("annotations", 2, "segmentation"), [], "empty segmentation", "error"),
        (
            ("annotations", 2, "segmentation"),
            [[0, 0, 9, 9]],
            "polygon of less than three points or an odd number of coordinates",
            "error",
        ),
        (
            ("annotations", 2, "segmentation"),
            [[0, 0, 9, "x", 9, 9]],
            "segmentation is neither polygons nor RLE",
            "error",
        ),
        (("annotations", 3, "segmentation"), [polygon(6, 6, 5, 5)], "polygon does not fill its box", "warning"),
        (("annotations", 3, "segmentation"), [polygon(5, 5, 70, 20)], "polygon outside its image", "warning"),
        (
            ("annotations", 2, "segmentation"),
            {"size": [64, 48], "counts": "x"},
            "RLE of another size than its image",
            "error",
        ),
        (
            ("annotations", 2, "segmentation"),
            {"size": [48, 64], "counts": [5]},
            "RLE counts do not add up to the image",
            "error",
        ),
        (
            ("annotations", 2, "segmentation"),
            "mask",
            "segmentation is neither polygons nor RLE",
            "error",
        ),
        (("images", 0, "id"), 12, "duplicate image id", "error"),
        (("images", 0, "width"), 0, "image of another structure", "error"),
        (("images", 0, "height"), 4.5, "image of another structure", "error"),
        (("images", 0, "neg_category_ids"), [3], "neg_category_ids names an unknown category", "error"),
        (("images", 0, "neg_category_ids"), [0], "neg_category_ids names an unknown category", "error"),
        (("images", 0, "neg_category_ids"), [4, 4], "neg_category_ids repeats a category", "warning"),
        (("images", 0, "neg_category_ids"), [1], "category annotated and negative in one image", "error"),
        (("images", 0, "neg_category_ids"), "4", "image of another structure", "error"),
        (("images", 0, "not_exhaustive_category_ids"), [7], "not exhaustive, but not annotated at all", "warning"),
        (("images", 0, "known_category_ids"), [1], "annotated category is not in known_category_ids", "error"),
        (("images", 0, "ignore_boxes"), [[0, 0, 99, 9]], "ignore_boxes: box outside its image", "error"),
        (("images", 0, "group_boxes"), [[0, 0, 99, 9]], "group_boxes: box outside its image", "error"),
        (("images", 0, "coco_url"), "", "image whose file cannot be found from coco_url and file_name", "error"),
        (("images", 0, "coco_url"), "http://x/train2017/000000000012.jpg", "coco_url names another image", "error"),
        (
            ("images", 0, "coco_url"),
            "http://x/train2014/000000000011.jpg",
            "coco_url outside train2017, val2017 and test2017",
            "warning",
        ),
        (("images", 0, "file_name"), "COCO_train2014_000000000012.jpg", "file_name names another image", "error"),
        (("categories", 0, "id"), 2, "duplicate category id", "error"),
        (("categories", 0, "name"), "ball", "category name is used twice", "error"),
        (("categories", 0, "synset"), "ball.n.01", "category synset is used twice", "error"),
        (("categories", 0, "synset"), "", "category without synset", "error"),
        (("categories", 0, "frequency"), "x", "frequency is not r, c or f", "error"),
        (("categories", 0, "frequency"), "f", "frequency does not fit image_count", "error"),
        (("categories", 0, "frequency"), None, "category without frequency (its image_count decides)", "warning"),
        (("categories", 0, "image_count"), 3, "image_count differs from the annotations", "error"),
        (("categories", 0, "instance_count"), 3, "instance_count differs from the annotations", "error"),
    ],
)
def test_a_planted_problem_is_found(tmp_path: Path, keys: tuple, value: object, kind: str, severity: str):
    found = kinds(tmp_path, changed(sound(), *keys, to=value))
    assert found[kind][0] == severity


@pytest.mark.parametrize(
    ("keys", "value", "expected"),
    [
        (("annotations", 0, "bbox"), [2, 3, 10.4, 12.6], set()),
        (("annotations", 2, "bbox"), [-0.5, -0.5, 65, 49], set()),
        (("annotations", 2, "area"), 0.5, set()),
        (("images", 0, "neg_category_ids"), [4, 7], set()),
        (("annotations", 2, "segmentation"), {"size": [48, 64], "counts": [1, 48 * 64 - 1]}, set()),
        (("images", 0, "neg_category_ids"), [3], {"neg_category_ids names an unknown category"}),
        (("categories", 0, "name"), "ball", {"category name is used twice"}),
        (("annotations", 2, "iscrowd"), 1, {"iscrowd in LVIS (COCO files: --format coco)"}),
    ],
)
def test_one_problem_is_not_reported_as_others(tmp_path: Path, keys: tuple, value: object, expected: set[str]):
    assert set(kinds(tmp_path, changed(sound(), *keys, to=value))) == expected


def test_a_category_without_train_image_is_an_error_in_train_only(tmp_path: Path):
    content = sound()
    content["annotations"].pop()
    assert kinds(tmp_path, content)["category without any train image"] == ("error", 1)
    assert kinds(tmp_path, content, "lvis_v0.5_val.json") == {}
    assert kinds(tmp_path, content, "some.json", split="train")["category without any train image"] == ("error", 1)


def test_v1_val_may_have_train2017_images(tmp_path: Path):
    assert kinds(tmp_path, sound("v1"), "lvis_v1_val.json") == {}
    assert check_file(tmp_path / "lvis_v1_val.json").style == "LVIS v1"


def test_images_without_negatives_are_an_error_only_beside_annotations(tmp_path: Path):
    content = changed(sound(), "images", 0, "neg_category_ids", drop=True)
    assert kinds(tmp_path, content) == {"image without neg_category_ids": ("error", 1)}
    del content["annotations"]
    assert kinds(tmp_path, content, "lvis_v0.5_image_info_test.json") == {}


def test_image_files_are_looked_for_on_request(tmp_path: Path):
    write(tmp_path / "coco/train2017/000000000011.jpg", "present")
    found = kinds(tmp_path, sound(), root=tmp_path)
    assert found == {"image file missing": ("error", 1)}
    content = changed(sound(), "images", 1, "coco_url", to=sound()["images"][0]["coco_url"])
    assert kinds(tmp_path, content)["file used by several images"] == ("error", 1)


def test_openimages_boxes_need_no_masks_but_must_not_have_any(tmp_path: Path):
    content = sound()
    for number, image in enumerate(content["images"]):
        del image["coco_url"]
        image.update(box_only=True, known_category_ids=[1, 2, 4, 7], file_name=f"openimages/train/{number:016x}.jpg")
    for annotation in content["annotations"][1:]:
        del annotation["segmentation"]
    checked = check_file(write(tmp_path / "openimages_lvis.json", content))
    assert checked.style == "OpenImages in LVIS format"
    assert {k: v.count for k, v in checked.findings.kinds.items()} == {"segmentation on a box_only image": 1}


def test_problems_are_counted_and_examples_limited(tmp_path: Path):
    content = sound()
    for annotation in content["annotations"]:
        annotation["bbox"] = [0, 0, 100, 100]
        annotation["segmentation"] = [polygon(0, 0, 65, 49)]
    checked = check_file(write(tmp_path / "train.json", content), examples=2)
    entry = checked.findings.kinds["box outside its image"]
    assert entry.count == 5
    assert entry.examples == ["annotation 101 of image 11", "annotation 102 of image 11"]
    line = next(line for line in checked.findings.lines() if "box outside" in line)
    assert line.split() == f"5 box outside its image: {'; '.join(entry.examples)}, ...".split()


def test_errors_stand_before_warnings_and_the_most_frequent_first():
    findings = Findings()
    findings.warning("w", "1")
    findings.error("few", "1")
    for number in range(3):
        findings.error("many", str(number))
    assert [line.split(":")[0].split()[-1] for line in findings.lines()] == ["errors", "many", "few", "warnings", "w"]


@pytest.mark.parametrize("content", ["[]", "{}", '{"images": [], "categories": 3}', '{"images": [', ""])
def test_files_of_another_structure_are_refused(tmp_path: Path, content: str):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match=r"x\.json (is not complete JSON|is not in LVIS/COCO format)"):
        check_file(tmp_path / "x.json")


def test_names_tell_the_split():
    names = [
        "lvis_v0.5_train.json",
        "lvis_v1_val.json",
        "lvis_v0.5_image_info_test.json",
        "instances_val2017.json",
        "x.json",
    ]
    assert [guess_split(Path(name)) for name in names] == ["train", "val", "test", "val", None]


def test_boxes_may_leave_their_image_by_rounding_only():
    boxes = np.array([[-1, -1, 12, 12], [-1.1, 0, 5, 5], [6, 6, 5.1, 5]])
    codes = check_boxes(boxes, np.full((3, 2), 10)).tolist()
    assert [catalogue.BOXES[code] for code in codes] == [None, catalogue.BOX_OUTSIDE, catalogue.BOX_OUTSIDE]


def test_polygons_of_several_parts_fill_their_box_together(tmp_path: Path):
    content = changed(sound(), "annotations", 3, "segmentation", to=[polygon(5, 5, 8, 8), polygon(17, 17, 8, 8)])
    assert kinds(tmp_path, content) == {}
    content["annotations"][3]["segmentation"].pop()
    assert set(kinds(tmp_path, content)) == {"polygon does not fill its box"}


def test_summary_tells_the_long_tail(tmp_path: Path):
    lines = summary_lines(check_file(write(tmp_path / "lvis_v0.5_val.json", lvis_content())))
    assert lines[0].endswith("LVIS v0.5, val: 2 images, 5 annotations, 4 categories")
    assert [line.split() for line in lines[2:5]] == [
        ["rare", "2", "2", "2", "2"],
        ["common", "1", "1", "1", "1"],
        ["frequent", "1", "1", "1", "2"],
    ]
    assert lines[5] == "  half of the annotations belong to 2 categories"


def run(*arguments: str) -> int:
    return call_step(check_dataset.parser, check_dataset.main, arguments)


def test_the_exit_code_tells_errors_and_not_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    good = write(tmp_path / "train.json", changed(sound(), "annotations", 0, "area", to=0))
    bad = write(tmp_path / "bad_train.json", changed(sound(), "annotations", 0, "bbox", to=[0, 0, 1, 0]))
    assert run(str(good)) == 0
    assert "warnings: 1" in capsys.readouterr().out
    assert run(str(good), str(bad)) == 2
    captured = capsys.readouterr()
    assert f"files with errors: {bad} (2)" in captured.err
    assert "box without extent: annotation 101" in captured.out


def test_the_plot_is_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write(tmp_path / "lvis_v0.5_train.json", sound())
    assert run(str(path), "--plot", str(tmp_path / "plots/tail.png")) == 0
    with Image.open(tmp_path / "plots/tail.png") as picture:
        assert picture.size == (1200, 600)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
    assert run(str(path), str(path), "--plot", str(tmp_path / "x.png")) == 2
    assert "give one FILE" in capsys.readouterr().err
