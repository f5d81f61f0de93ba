"""COCO files as training sets and as box index for COCO Ignore."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline_steps import index_coco_boxes
from pipeline_steps.common.cli import call_step
from pipeline_steps.common.errors import UserError
from pipeline_steps.data.coco import boxes_by_image, read_coco, read_coco_boxes
from pipeline_steps.data.packing import pack
from tests.data.lvis_files import changed, coco_content, lvis_content, write


def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"extends: challenge.yaml\ndatasets_root: {tmp_path}\n", encoding="utf-8")
    return path


def test_coco_judges_every_category_in_every_image(tmp_path: Path):
    dataset = read_coco(write(tmp_path / "coco.json", coco_content()))
    assert dataset.category_ids == [1, 3]
    assert all(dataset.judged(image).all() for image in dataset.images)


def test_crowds_are_left_out_unless_asked_for(tmp_path: Path):
    path = write(tmp_path / "coco.json", coco_content())
    assert [a.id for a in read_coco(path).annotations[11]] == [1, 2]
    assert [a.id for a in read_coco(path, keep_crowds=True).annotations[11]] == [1, 2, 3]


def test_crowds_that_are_left_out_are_regions_of_many_objects(tmp_path: Path):
    content = coco_content()
    crowd = next(annotation for annotation in content["annotations"] if annotation["iscrowd"])
    dataset = read_coco(write(tmp_path / "coco.json", content))
    assert {image.id: image.group_boxes for image in dataset.images if image.group_boxes} == {
        crowd["image_id"]: (tuple(crowd["bbox"]),)
    }
    images = pack([dataset], lambda image: tmp_path / str(image.id))
    x, y, width, height = crowd["bbox"]
    assert images.regions.tolist() == [[x, y, x + width, y + height]]
    assert images.region_groups.tolist() == [True]
    assert images.region_weights.tolist() == [0.0]


def test_counts_and_letters_come_from_the_annotations(tmp_path: Path):
    dataset = read_coco(write(tmp_path / "coco.json", coco_content()))
    assert [(c.image_count, c.instance_count, c.frequency) for c in dataset.categories.categories] == [
        (2, 2, "r"),
        (2, 2, "r"),
    ]


def test_repeated_images_are_refused(tmp_path: Path):
    content = changed(coco_content(), "images", 2, "id", to=11)
    content["annotations"] = content["annotations"][:4]
    with pytest.raises(UserError, match="duplicate image id: 11"):
        read_coco(write(tmp_path / "coco.json", content))


def test_the_index_holds_the_corners_of_single_objects_of_lvis_images(tmp_path: Path):
    write(tmp_path / "lvis/lvis_v0.5_train.json", lvis_content())
    write(tmp_path / "coco/annotations/instances_train2017.json", coco_content())
    output = tmp_path / "derived/coco_boxes_train.json"
    arguments = ["--recipe", str(recipe(tmp_path)), "--output", str(output)]
    assert call_step(index_coco_boxes.parser, index_coco_boxes.main, arguments) == 0
    # The crowd, the box without width and the image that LVIS does not have are left out.
    assert json.loads(output.read_text()) == {"boxes": {"11": [[1.5, 2.25, 11.5, 22.75], [30, 30, 35, 35]]}}
    assert read_coco_boxes(output) == {11: [(1.5, 2.25, 11.5, 22.75), (30, 30, 35, 35)]}


def test_the_index_agrees_with_a_loop_over_all_annotations(tmp_path: Path):
    random = np.random.default_rng(3)
    content = coco_content()
    content["images"] = [{"id": i, "width": 64, "height": 48} for i in range(1, 30)]
    content["annotations"] = [
        {
            "id": number,
            "image_id": int(random.integers(1, 30)),
            "category_id": int(random.choice([1, 3])),
            "bbox": random.integers(0, 30, 4).tolist(),
            "area": 1,
            "iscrowd": int(random.random() < 0.2),
        }
        for number in range(1, 200)
    ]
    asked = [5, 3, 29, 17, 88]
    expected = {}
    for image_id in asked:
        for annotation in content["annotations"]:
            x, y, w, h = annotation["bbox"]
            if annotation["image_id"] == image_id and not annotation["iscrowd"] and w and h:
                expected.setdefault(str(image_id), []).append([x, y, x + w, y + h])
    assert boxes_by_image(read_coco(write(tmp_path / "coco.json", content)), asked) == expected


def test_files_of_different_images_are_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    content = coco_content()
    content["images"] = [{"id": i + 1000, "width": 64, "height": 48} for i in (11, 12, 13)]
    content["annotations"] = []
    write(tmp_path / "lvis/lvis_v0.5_train.json", lvis_content())
    write(tmp_path / "coco/annotations/instances_train2017.json", content)
    arguments = ["--recipe", str(recipe(tmp_path)), "--output", str(tmp_path / "out.json")]
    assert call_step(index_coco_boxes.parser, index_coco_boxes.main, arguments) == 2
    assert "has none of the images" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_another_json_file_is_no_index(tmp_path: Path):
    with pytest.raises(UserError, match="required field `boxes`"):
        read_coco_boxes(write(tmp_path / "other.json", {"images": []}))
