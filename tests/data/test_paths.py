"""Where files lie: names of both LVIS versions and images of every kind of record."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.records import ImageRecord
from pipeline_steps.recipe import resolve_recipe
from pipeline_steps.run.data_files import DatasetPaths, find_image


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


def made(tmp_path: Path, **values: object) -> DatasetPaths:
    return paths(tmp_path, name="mine", **values)


def test_what_is_made_from_the_data_is_beside_them_unless_they_are_read_only(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    writable = made(tmp_path / "data")
    assert writable.coco_boxes_train == tmp_path / "data/derived/coco_boxes_train.json"
    assert writable.manifest(writable.lvis_val) == tmp_path / "data/manifests/lvis/lvis_v0.5_val.json.json"

    monkeypatch.setattr(os, "access", lambda folder, mode: not str(folder).startswith(str(tmp_path / "data")))
    (tmp_path / "data").mkdir()
    read_only = made(tmp_path / "data")
    assert read_only.lvis_train == tmp_path / "data/lvis/lvis_v0.5_train.json"
    assert read_only.openimages_train == Path("results/mine/data/derived/openimages_lvis.json")
    assert read_only.manifest(read_only.lvis_val) == Path("results/mine/data/manifests/lvis/lvis_v0.5_val.json.json")
    assert read_only.manifest(read_only.openimages_ids).is_relative_to("results/mine/data/manifests")

    (tmp_path / "data/derived").mkdir()  # made while the folder could be written: used, not made again elsewhere
    assert made(tmp_path / "data").openimages_train == tmp_path / "data/derived/openimages_lvis.json"


def test_a_place_that_was_chosen_stays_when_permissions_change(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/mine/data").mkdir(parents=True)
    assert made(tmp_path / "data").coco_boxes_train == Path("results/mine/data/derived/coco_boxes_train.json")
    own = made(tmp_path / "data", data={"derived_root": "{datasets_root}/shared"})
    assert own.coco_boxes_train == tmp_path / "data/shared/derived/coco_boxes_train.json"
