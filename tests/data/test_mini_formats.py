"""The files of a small mini world hold what the real LVIS v0.5 and COCO files hold, and nothing contradicts itself."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from pipeline_steps import index_coco_boxes, select_openimages
from pipeline_steps.common.cli import call_step
from pipeline_steps.data.category_parents import read_parents
from pipeline_steps.data.category_tables import read_category_table
from pipeline_steps.data.checks.check import check_file
from pipeline_steps.data.coco import read_coco, read_coco_boxes
from pipeline_steps.data.loader import load_training_set
from pipeline_steps.data.lvis import read_lvis
from pipeline_steps.mini_world.vocabulary import build_vocabulary
from pipeline_steps.recipe import load_recipe
from pipeline_steps.recipe.data import MiniWorld
from pipeline_steps.run.data_files import DatasetPaths, find_image
from tests.data.mini_worlds import make, write_recipe

# Fields of the real lvis_v0.5_train.json, lvis_v0.5_val.json and COCO instances_*2017.json.
INFO = {"year", "url", "version", "contributor", "date_created", "description"}
IMAGE = {"id", "width", "height", "license", "flickr_url", "coco_url", "date_captured", "file_name"}
LVIS_IMAGE = IMAGE | {"neg_category_ids", "not_exhaustive_category_ids"}
LVIS_ANNOTATION = {"id", "image_id", "category_id", "segmentation", "bbox", "area"}
LVIS_CATEGORY = {"id", "name", "synset", "synonyms", "def", "frequency", "image_count", "instance_count"}
COCO_ANNOTATION = LVIS_ANNOTATION | {"iscrowd"}
COCO_CATEGORY = {"id", "name", "supercategory"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("mini"))


@pytest.fixture(scope="module")
def files(root: Path) -> dict[str, Any]:
    names = {
        "train": "lvis/lvis_v0.5_train.json",
        "val": "lvis/lvis_v0.5_val.json",
        "test": "lvis/lvis_v0.5_image_info_test.json",
        "coco_train": "coco/annotations/instances_train2017.json",
        "coco_val": "coco/annotations/instances_val2017.json",
    }
    return {key: json.loads((root / name).read_text()) for key, name in names.items()}


def test_every_record_has_exactly_the_fields_of_the_real_files(files: dict[str, Any]) -> None:
    for split in ("train", "val"):
        content = files[split]
        assert set(content) == {"info", "licenses", "images", "annotations", "categories"}
        assert {frozenset(image) for image in content["images"]} == {frozenset(LVIS_IMAGE)}
        assert {frozenset(annotation) for annotation in content["annotations"]} == {frozenset(LVIS_ANNOTATION)}
        assert {frozenset(annotation) for annotation in files[f"coco_{split}"]["annotations"]} == {
            frozenset(COCO_ANNOTATION)
        }
        assert {frozenset(image) for image in files[f"coco_{split}"]["images"]} == {frozenset(IMAGE)}
        assert {frozenset(c) for c in files[f"coco_{split}"]["categories"]} == {frozenset(COCO_CATEGORY)}
    assert {frozenset(image) for image in files["test"]["images"]} == {frozenset(IMAGE)}
    assert "annotations" not in files["test"]
    for split in ("train", "val", "test"):
        assert {frozenset(category) for category in files[split]["categories"]} == {frozenset(LVIS_CATEGORY)}
    for content in files.values():
        assert set(content["info"]) == INFO
        licenses = {entry["id"] for entry in content["licenses"]}
        assert all(set(entry) == {"id", "name", "url"} for entry in content["licenses"])
        assert {image["license"] for image in content["images"]} <= licenses


def test_ids_are_unique_and_refer_to_what_exists(files: dict[str, Any]) -> None:
    for content in files.values():
        images = [image["id"] for image in content["images"]]
        categories = [category["id"] for category in content["categories"]]
        annotations = content.get("annotations", [])
        assert len(set(images)) == len(images)
        assert len(set(categories)) == len(categories)
        assert len({annotation["id"] for annotation in annotations}) == len(annotations)
        assert {annotation["image_id"] for annotation in annotations} <= set(images)
        assert {annotation["category_id"] for annotation in annotations} <= set(categories)
    for split in ("train", "val"):
        assert min(annotation["id"] for annotation in files[split]["annotations"]) == 1
        assert [category["id"] for category in files[split]["categories"]] == list(range(1, 13))
        assert [i["id"] for i in files[split]["images"]] == [i["id"] for i in files[f"coco_{split}"]["images"]]
    every_split = [image["id"] for split in ("train", "val", "test") for image in files[split]["images"]]
    assert len(set(every_split)) == len(every_split)


def test_coco_ids_have_gaps_so_that_ids_cannot_be_taken_for_positions() -> None:
    coco = build_vocabulary(MiniWorld()).coco
    assert [category.coco_id for category in coco] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16]


def test_names_and_synsets_are_well_formed_and_unique(files: dict[str, Any]) -> None:
    categories = files["train"]["categories"]
    for category in categories:
        assert re.fullmatch(r"[a-z_]+\.n\.\d\d", category["synset"])
        assert category["name"] in category["synonyms"]
        assert category["def"]
    words = [word for category in categories for word in category["synonyms"]]
    assert len(set(words)) == len(words)
    assert len({category["synset"] for category in categories}) == len(categories)


def test_images_are_found_by_coco_url_and_have_the_size_that_is_said(root: Path, files: dict[str, Any]) -> None:
    for split in ("train", "val", "test"):
        for image in files[split]["images"]:
            path = find_image(root, image)
            assert path.parent.name == f"{split}2017"
            assert re.fullmatch(r"COCO_(train|val|test)2014_\d{12}\.jpg", image["file_name"])
        picture = cv2.imread(str(path))
        assert picture.shape == (image["height"], image["width"], 3)
        assert len(list(path.parent.iterdir())) == len(files[split]["images"])
    former = {image["file_name"][5:10] for image in files["train"]["images"]}
    assert former == {"train", "val20"}  # the 2014 name alone does not lead to the file


def test_boxes_lie_inside_images_and_around_their_polygons(files: dict[str, Any]) -> None:
    for key in ("train", "val", "coco_train", "coco_val"):
        sizes = {image["id"]: (image["width"], image["height"]) for image in files[key]["images"]}
        for annotation in files[key]["annotations"]:
            x, y, width, height = annotation["bbox"]
            limit = sizes[annotation["image_id"]]
            assert x >= 0
            assert y >= 0
            assert width > 1
            assert height > 1
            assert x + width <= limit[0]
            assert y + height <= limit[1]
            if not annotation.get("iscrowd"):
                points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in annotation["segmentation"]])
                assert [*points.min(0), *(points.max(0) - points.min(0))] == [x, y, width, height]
                assert all(len(polygon) >= 6 for polygon in annotation["segmentation"])


def test_area_is_that_of_the_rasterised_polygons(files: dict[str, Any]) -> None:
    for annotation in files["val"]["annotations"]:
        rle = coco_mask.merge(coco_mask.frPyObjects(annotation["segmentation"], 96, 96))
        assert annotation["area"] == float(coco_mask.area(rle)) > 0


def test_counts_are_those_of_the_file_and_letters_those_of_train(files: dict[str, Any]) -> None:
    letters = {}
    for split in ("train", "val"):
        pairs = Counter((a["category_id"], a["image_id"]) for a in files[split]["annotations"])
        images = Counter(category for category, _ in pairs)
        instances = Counter(a["category_id"] for a in files[split]["annotations"])
        for category in files[split]["categories"]:
            assert category["image_count"] == images[category["id"]]
            assert category["instance_count"] == instances[category["id"]]
            if split == "train":
                count = images[category["id"]]
                letters[category["id"]] = "r" if count <= 9 else "c" if count <= 18 else "f"
    for split in ("train", "val", "test"):
        assert {category["id"]: category["frequency"] for category in files[split]["categories"]} == letters
    assert set(letters.values()) == {"r", "c", "f"}


def test_every_category_is_annotated_in_two_train_images_and_in_val(files: dict[str, Any]) -> None:
    assert min(category["image_count"] for category in files["train"]["categories"]) >= 2
    assert min(category["image_count"] for category in files["val"]["categories"]) >= 5


def test_negatives_are_never_annotated_and_not_exhaustive_categories_always_are(files: dict[str, Any]) -> None:
    for split in ("train", "val"):
        annotated: dict[int, set[int]] = {image["id"]: set() for image in files[split]["images"]}
        for annotation in files[split]["annotations"]:
            annotated[annotation["image_id"]].add(annotation["category_id"])
        negatives = not_exhaustive = 0
        for image in files[split]["images"]:
            assert not annotated[image["id"]] & set(image["neg_category_ids"])
            assert set(image["not_exhaustive_category_ids"]) <= annotated[image["id"]]
            negatives += len(image["neg_category_ids"])
            not_exhaustive += len(image["not_exhaustive_category_ids"])
        assert negatives
        assert not_exhaustive


def test_the_shapes_are_the_parents_of_the_lvis_categories(root: Path, files: dict[str, Any]) -> None:
    categories = files["train"]["categories"]
    parents = read_parents(root / "categories/parents.csv", categories)
    assert parents == [{category["name"].split("_")[1]} for category in categories]


def test_coco_annotates_every_lvis_object_of_its_categories_and_more(root: Path, files: dict[str, Any]) -> None:
    """COCO is exhaustive on the same images: each LVIS box of a mapped category is a COCO box or inside a crowd."""
    to_lvis = {
        int(row.source_id): row.lvis_synset for row in read_category_table(root / "categories" / "coco_to_lvis.csv")
    }
    synsets = {category["id"]: category["synset"] for category in files["train"]["categories"]}
    coco_boxes: dict[tuple[int, str], list[list[float]]] = {}
    crowds: dict[int, list[list[float]]] = {}
    for annotation in files["coco_train"]["annotations"]:
        if annotation["iscrowd"]:
            crowds.setdefault(annotation["image_id"], []).append(annotation["bbox"])
        elif annotation["category_id"] in to_lvis:
            key = annotation["image_id"], to_lvis[annotation["category_id"]]
            coco_boxes.setdefault(key, []).append(annotation["bbox"])
    mapped = [a for a in files["train"]["annotations"] if synsets[a["category_id"]] in to_lvis.values()]
    in_crowds = 0
    for annotation in mapped:
        key = annotation["image_id"], synsets[annotation["category_id"]]
        if annotation["bbox"] not in coco_boxes.get(key, []):
            x, y, width, height = annotation["bbox"]
            assert any(
                x >= left - 2 and y >= top - 2 and x + width <= left + w + 2 and y + height <= top + h + 2
                for left, top, w, h in crowds[annotation["image_id"]]
            )
            in_crowds += 1
    assert in_crowds
    assert sum(map(len, coco_boxes.values())) > len(mapped) - in_crowds  # objects that LVIS left out


def test_coco_has_categories_without_lvis_counterpart_and_objects_of_them(root: Path, files: dict[str, Any]) -> None:
    mapped = {int(row.source_id) for row in read_category_table(root / "categories" / "coco_to_lvis.csv")}
    unmatched = {category["id"] for category in files["coco_train"]["categories"]} - mapped
    assert len(unmatched) == 2
    assert unmatched <= {annotation["category_id"] for annotation in files["coco_train"]["annotations"]}


def test_crowds_are_run_lengths_of_the_right_length(files: dict[str, Any]) -> None:
    crowds = [a for a in files["coco_train"]["annotations"] if a["iscrowd"]]
    assert crowds
    for crowd in crowds:
        assert sum(crowd["segmentation"]["counts"]) == 96 * 96
        height, width = crowd["segmentation"]["size"]
        mask = coco_mask.decode(coco_mask.frPyObjects(crowd["segmentation"], height, width))
        assert mask.sum() == crowd["area"]


def test_the_official_packages_read_the_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "float", float, raising=False)
    from lvis import LVIS
    from pycocotools.coco import COCO

    lvis = LVIS(str(root / "lvis" / "lvis_v0.5_val.json"))
    assert len(lvis.get_img_ids()) == 24
    annotation = lvis.load_anns(lvis.get_ann_ids())[0]
    assert lvis.ann_to_mask(annotation).sum() == annotation["area"]
    coco = COCO(str(root / "coco" / "annotations" / "instances_train2017.json"))
    for annotation in coco.loadAnns(coco.getAnnIds()):
        assert coco.annToMask(annotation).sum() == annotation["area"]


def test_our_own_readers_accept_the_files(root: Path) -> None:
    read_lvis(root / "lvis" / "lvis_v0.5_train.json", "train")
    read_lvis(root / "lvis" / "lvis_v0.5_val.json", "val")
    read_lvis(root / "lvis" / "lvis_v0.5_image_info_test.json", "test_info")
    read_coco(root / "coco" / "annotations" / "instances_val2017.json")


V1 = "lvis_version: v1"
NAMES_OF_V1 = {"train": "lvis_v1_train", "val": "lvis_v1_val", "test": "lvis_v1_image_info_test_dev"}


@pytest.fixture(scope="module")
def version_1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world in the form of LVIS v1, ``world`` beside its recipe ``small.yaml``."""
    return make(tmp_path_factory.mktemp("v1"), more=V1)


def test_version_1_has_its_own_file_names_and_no_2014_names(version_1: Path) -> None:
    assert sorted(path.stem for path in (version_1 / "lvis").iterdir()) == sorted(NAMES_OF_V1.values())
    train = read_lvis(version_1 / "lvis" / "lvis_v1_train.json", "train")
    assert all(not image.file_name and find_image(version_1, image).is_file() for image in train.images)


def test_most_val_images_of_version_1_lie_in_train2017(version_1: Path) -> None:
    val = read_lvis(version_1 / "lvis" / "lvis_v1_val.json", "val")
    folders = [find_image(version_1, image).parent.name for image in val.images]
    assert folders == 6 * ["val2017", "train2017", "train2017", "train2017"]
    assert all(find_image(version_1, image).is_file() for image in val.images)
    for folder in ("train2017", "val2017"):  # COCO's files name the images of their folders, as the real ones do
        named = {image.id for image in read_coco(version_1 / f"coco/annotations/instances_{folder}.json").images}
        assert named == {int(path.stem) for path in (version_1 / "coco" / folder).iterdir()}
        assert named & {image.id for image in val.images}


@pytest.mark.parametrize("version", ["v0.5", "v1"])
def test_coco_training_sees_no_image_that_lvis_tests_on(
    root: Path, version_1: Path, tmp_path: Path, version: str
) -> None:
    data = root if version == "v0.5" else version_1
    recipe = load_recipe(write_recipe(tmp_path / "recipe.yaml", more=f"lvis_version: {version}\ndatasets_root: {data}"))
    paths = DatasetPaths(recipe)
    train, val, test = (
        {image["id"] for image in json.loads(paths.annotations(split).read_text())["images"]}
        for split in ("train", "val", "test")
    )
    everything = {image["id"] for image in json.loads(paths.coco_train.read_text())["images"]}
    assert everything == train | ({image for image in val if image in everything})
    assert len(everything & val) == (0 if version == "v0.5" else 18)
    seen = load_training_set(recipe, "basic_coco").images
    assert set(seen.image_ids.tolist()) == train
    assert not {int(Path(seen.path(k)).stem) for k in range(len(seen))} & (val | test)
    # COCO Ignore and LVIS training look at LVIS train images only.
    assert not train & (val | test)


@pytest.mark.parametrize("split", NAMES_OF_V1)
def test_the_check_of_data_sets_finds_nothing_in_version_1(version_1: Path, split: str) -> None:
    checked = check_file(version_1 / f"lvis/{NAMES_OF_V1[split]}.json", root=version_1)
    assert checked.style == "LVIS v1"
    assert checked.split == split
    # The small world has limits of its own between rare, common and frequent.
    assert set(checked.findings.kinds) <= {"frequency does not fit image_count"}, checked.findings.lines()


def test_the_steps_of_the_data_stage_run_on_version_1(version_1: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", more=f"{V1}\ndatasets_root: {version_1}")
    boxes = version_1 / "derived_v1/coco_boxes_train.json"
    arguments = ["--recipe", str(recipe), "--output", str(boxes)]
    assert call_step(index_coco_boxes.parser, index_coco_boxes.main, arguments) == 0
    assert DatasetPaths(load_recipe(recipe)).coco_boxes_train == boxes
    train = read_lvis(version_1 / "lvis/lvis_v1_train.json", "train")
    assert set(read_coco_boxes(boxes)) <= {image.id for image in train.images}
    output = tmp_path / "openimages_lvis.json"
    arguments = ["--recipe", str(recipe), "--output", str(output), "--summary", str(tmp_path / "summary.csv")]
    assert call_step(select_openimages.parser, select_openimages.main, arguments) == 0
    chosen = read_lvis(output, "openimages")
    assert chosen.category_ids == train.category_ids
    assert all(find_image(version_1, image).is_file() for image in chosen.images)
