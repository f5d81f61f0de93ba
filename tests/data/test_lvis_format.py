"""Reading LVIS files: structure, ids against positions, and one clear message for each kind of damage."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from pycocotools import mask as mask_tools

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.categories import CategoryList, frequency_letter
from pipeline_steps.data.checks.masks import read_masks
from pipeline_steps.data.lvis import LvisDataset, read_categories, read_image_ids, read_lvis
from pipeline_steps.data.records import Category
from tests.data.lvis_files import CATEGORY_IDS, changed, lvis_content, write


@pytest.fixture
def dataset(tmp_path: Path) -> LvisDataset:
    return read_lvis(write(tmp_path / "lvis_v0.5_train.json", lvis_content()), "train")


def test_everything_in_the_file_is_kept(dataset: LvisDataset):
    assert dataset.category_ids == CATEGORY_IDS
    assert [image.id for image in dataset.images] == [11, 12]
    assert [[a.id for a in dataset.annotations[i]] for i in (11, 12)] == [[101, 102], [103, 104, 105]]
    first = dataset.annotations[11][0]
    assert first.bbox == (2, 3, 10, 12)
    assert first.area == 120
    assert read_masks([first], dataset.images[:1]).values == [[[2, 3, 12, 3, 12, 15, 2, 15]]]
    assert dataset.categories.by_id(7).definition == "a dagger"


def test_negative_category_ids_are_ids_and_not_positions(dataset: LvisDataset):
    """Category ids start at 1, positions at 0: image 11 has id 4 (cat) as its negative, at position 2."""
    judged = dataset.judged(dataset.images[0])
    assert judged.tolist() == [True, True, True, False]  # acorn and ball are annotated, cat is negative
    as_if_positions = np.zeros(4, bool)
    as_if_positions[[0, 1]] = True
    assert not np.array_equal(judged, as_if_positions)
    assert dataset.judged(dataset.images[1]).tolist() == [True, True, True, True]


def test_an_id_used_as_a_position_would_be_noticed():
    """With contiguous ids 1..C, taking ids for positions shifts every list by one and raises no error by itself."""
    categories = CategoryList([Category(id=i, name=str(i), frequency="r") for i in (1, 2, 3)], "test")
    assert categories.positions([1, 3]).tolist() == [0, 2]
    assert categories.mask([1]).tolist() == [True, False, False]
    with pytest.raises(UserError, match="no such category ids: 0"):
        categories.positions([0])


def test_positions_agree_with_a_loop_over_sorted_ids():
    random = np.random.default_rng(0)
    ids = random.choice(5000, 300, replace=False).tolist()
    categories = CategoryList([Category(id=i, name=str(i)) for i in ids], "test")
    asked = random.choice(ids, 1000).tolist()
    assert categories.positions(asked).tolist() == [sorted(ids).index(i) for i in asked]


def test_frequency_letters_decide_the_tail(dataset: LvisDataset):
    assert dataset.categories.tail.tolist() == [True, True, False, True]
    letters = dataset.categories.frequencies
    assert {k: np.flatnonzero(letters == k).tolist() for k in "rcf"} == {"r": [0, 3], "c": [1], "f": [2]}


def test_image_count_stands_in_for_a_missing_letter_and_100_images_are_common(tmp_path: Path):
    content = lvis_content()
    for category, count in zip(content["categories"], (10, 100, 101, 11), strict=True):
        del category["frequency"]
        category["image_count"] = count
    dataset = read_lvis(write(tmp_path / "train.json", content))
    assert dataset.categories.frequencies.tolist() == ["r", "c", "f", "c"]
    assert [frequency_letter(count) for count in (1, 10, 11, 100, 101)] == ["r", "r", "c", "c", "f"]


def test_a_letter_wins_over_a_count_of_another_split(tmp_path: Path):
    content = changed(lvis_content(), "categories", 2, "image_count", to=0)
    assert not read_lvis(write(tmp_path / "val.json", content), "val").categories.tail[2]


def test_lvis_v1_without_file_names_is_read(tmp_path: Path):
    dataset = read_lvis(write(tmp_path / "lvis_v1_train.json", lvis_content("v1")))
    assert dataset.images[0].file_name == ""
    assert dataset.images[0].coco_url.endswith("train2017/000000000011.jpg")


def test_image_information_needs_no_annotations(tmp_path: Path):
    content = changed(lvis_content(), "annotations", drop=True)
    for image in content["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    dataset = read_lvis(write(tmp_path / "info.json", content), "test_info")
    assert dataset.annotations == {11: [], 12: []}


def test_box_only_images_tell_what_they_know(tmp_path: Path):
    content = lvis_content()
    for image in content["images"]:
        image.update(box_only=True, known_category_ids=[2, 7], ignore_boxes=[[1, 2, 3, 4]], group_boxes=[[0, 0, 9, 9]])
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    dataset = read_lvis(write(tmp_path / "openimages.json", content), "openimages")
    image = dataset.images[0]
    assert dataset.known(image).tolist() == [False, True, False, True]
    assert image.box_only
    assert image.ignore_boxes == ((1, 2, 3, 4),)
    assert image.group_boxes == ((0, 0, 9, 9),)
    assert read_masks(dataset.annotations[11][:1], [image]).values == [None]
    assert (
        dataset.images[0].known_category_ids is dataset.images[1].known_category_ids
    )  # shared, not copied 20,000 times


def test_images_without_a_list_know_everything(dataset: LvisDataset):
    assert dataset.known(dataset.images[0]).all()


def test_counts_are_those_of_the_file(dataset: LvisDataset):
    assert dataset.image_counts.tolist() == [1, 1, 1, 1]
    assert dataset.instance_counts.tolist() == [1, 1, 2, 1]


def test_masks_may_be_rle_null_or_absent(tmp_path: Path):
    content = lvis_content()
    content["annotations"][0]["segmentation"] = {"counts": [1, 48 * 64 - 1], "size": [48, 64]}
    content["annotations"][1]["segmentation"] = None
    del content["annotations"][2]["segmentation"]
    dataset = read_lvis(write(tmp_path / "train.json", content))
    first, second = dataset.annotations[11]
    mask = {"size": [48, 64], "counts": read_masks([first], dataset.images[:1]).rles[0]}
    assert mask_tools.area(mask) == 48 * 64 - 1
    assert [a.has_mask for a in (first, second, dataset.annotations[12][0])] == [True, False, False]


def test_parts_of_a_file_are_read_without_the_rest(tmp_path: Path):
    content = changed(lvis_content(), "annotations", to="not even a list")
    path = write(tmp_path / "train.json", content)
    assert read_categories(path).ids.tolist() == CATEGORY_IDS
    assert read_image_ids(path) == [11, 12]


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("annotations", 1, "image_id"), 99, "annotation of an unknown image: annotation 102 of image 99"),
        (("annotations", 1, "category_id"), 3, "annotation of an unknown category: annotation 102 of image 11: 3"),
        (("annotations", 1, "id"), 101, "duplicate annotation id: 101"),
        (("images", 1, "id"), 11, "duplicate image id: 11"),
        (("categories", 1, "id"), 1, "duplicate category ids: 1"),
        (
            ("images", 0, "neg_category_ids"),
            [5, 6],
            "neg_category_ids .* category: image 11: 5; image 11: 6",
        ),
        (("images", 0, "neg_category_ids"), [0], "neg_category_ids names an unknown category: image 11: 0"),
        (
            ("images", 0, "not_exhaustive_category_ids"),
            [8],
            "not_exhaustive_category_ids .*: image 11: 8",
        ),
        (("images", 0, "known_category_ids"), [9], "known_category_ids names an unknown category: image 11: 9"),
        (("images", 0, "width"), 0, r"images, id 11: Expected `int` >= 1 - at `\$\.images\[0\]\.width`"),
        (("annotations", 0, "bbox"), [1, 2, 3], r"is not in LVIS/COCO format: .*\$\.annotations\[0\]\.bbox"),
        (("images", 0, "id"), "eleven", r"is not in LVIS/COCO format: .*\$\.images\[0\]\.id"),
        (("categories", 2, "frequency"), "x", "frequency is not r, c or f: cat: 'x'"),
        (("images",), [], "the file has no images"),
        (("categories",), [], "has no categories"),
    ],
)
def test_damage_is_named(tmp_path: Path, keys: tuple, value: object, message: str):
    path = write(tmp_path / "train.json", changed(lvis_content(), *keys, to=value))
    with pytest.raises(UserError, match=message) as caught:
        read_lvis(path)
    assert str(path) in str(caught.value)


def test_missing_annotations_are_no_empty_data_set(tmp_path: Path):
    path = write(tmp_path / "val.json", changed(lvis_content(), "annotations", drop=True))
    with pytest.raises(UserError, match="missing required field `annotations`"):
        read_lvis(path, "val")


def test_a_category_without_train_image_is_named(tmp_path: Path):
    content = lvis_content()
    content["annotations"] = content["annotations"][:-1]
    path = write(tmp_path / "train.json", content)
    with pytest.raises(UserError, match="without any train image: 1 of 4: dagger"):
        read_lvis(path, "train")
    assert read_lvis(path, "val").instance_counts.tolist() == [1, 1, 2, 0]


def test_categories_without_frequency_and_count_are_named(tmp_path: Path):
    content = lvis_content()
    for category in content["categories"][:2]:
        del category["frequency"], category["image_count"]
    path = write(tmp_path / "train.json", content)
    with pytest.raises(UserError, match="category without frequency and image_count: acorn; ball"):
        read_lvis(path)


@pytest.mark.parametrize("keep", [0, 1, 40, -30, -1])
def test_truncated_files_are_refused(tmp_path: Path, keep: int):
    path = tmp_path / "train.json"
    path.write_bytes(json.dumps(lvis_content()).encode()[:keep])
    with pytest.raises(UserError, match="is not complete JSON"):
        read_lvis(path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"not found: .*nowhere\.json"):
        read_lvis(tmp_path / "nowhere.json")


def test_categories_are_written_as_they_were_read(tmp_path: Path):
    content = lvis_content()
    categories = read_categories(write(tmp_path / "train.json", content))
    assert msgspec.to_builtins(list(categories.categories)) == [
        {**category, "synonyms": tuple(category["synonyms"])} for category in content["categories"]
    ]
