"""Where files lie: names of both LVIS versions and images of every kind of record."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.paths import DatasetPaths, find_image
from pipeline_steps.data.records import ImageRecord
from pipeline_steps.recipe import resolve_recipe


def paths(tmp_path: Path, **values: object) -> DatasetPaths:
    return DatasetPaths(resolve_recipe({"extends": "challenge.yaml", "datasets_root": str(tmp_path), **values}))


def test_lvis_version_decides_the_annotation_files(tmp_path: Path):
    old, new = paths(tmp_path), paths(tmp_path, lvis_version="v1")
    assert [old.annotations(s).name for s in ("train", "val", "test")] == [
        "lvis_v0.5_train.json",
        "lvis_v0.5_val.json",
        "lvis_v0.5_image_info_test.json",
    ]
    assert [new.annotations(s).name for s in ("train", "val", "test")] == [
        "lvis_v1_train.json",
        "lvis_v1_val.json",
        "lvis_v1_image_info_test_dev.json",
    ]
    assert new.training_set("lvis_train") == tmp_path / "lvis" / "lvis_v1_train.json"


def test_the_2014_name_of_v05_is_not_the_name_on_disk(tmp_path: Path):
    record = {
        "id": 266409,
        "file_name": "COCO_val2014_000000266409.jpg",
        "coco_url": "http://images.cocodataset.org/val2017/000000266409.jpg",
    }
    assert paths(tmp_path).image_path(record) == tmp_path / "coco/val2017/000000266409.jpg"


def test_v1_val_images_may_lie_in_train2017(tmp_path: Path):
    record = ImageRecord(id=5, width=1, height=1, coco_url="http://images.cocodataset.org/train2017/000000000005.jpg")
    assert paths(tmp_path).image_path(record) == tmp_path / "coco/train2017/000000000005.jpg"


def test_openimages_records_name_their_file(tmp_path: Path):
    record = {"id": 1, "file_name": "openimages/train/0123456789abcdef.jpg"}
    assert paths(tmp_path).image_path(record) == tmp_path / "openimages/train/0123456789abcdef.jpg"


@pytest.mark.parametrize(
    "record",
    [
        {"id": 3},
        {"id": 3, "file_name": "000000000003.jpg"},
        {"id": 3, "file_name": "../../etc/passwd"},
        {"id": 3, "file_name": "/etc/passwd"},
        {"id": 3, "coco_url": "http://images.cocodataset.org/000000000003.jpg"},
        {"id": 3, "coco_url": "http://images.cocodataset.org/../x.jpg"},
    ],
)
def test_records_that_name_no_place_below_the_root_are_refused(record: dict):
    with pytest.raises(UserError, match=r"image 3: .*do not say where the file is"):
        find_image("datasets", record)


def test_tables_of_config_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert paths(tmp_path).coco_table.is_file()
    own = paths(tmp_path, data={"coco_to_lvis": "{datasets_root}/categories/coco_to_lvis.csv"})
    assert own.coco_table == tmp_path / "categories/coco_to_lvis.csv"
