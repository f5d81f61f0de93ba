"""What OpenImages says becomes LVIS facts: one test for each rule, and all rules together on random images."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pipeline_steps.data.category_tables import CategoryMapping
from pipeline_steps.data.openimages_classes import Vocabulary
from pipeline_steps.openimages.annotations import FIRST_IMAGE_ID, Inference, collect_objects, lvis_image, pixel_box
from pipeline_steps.openimages.box_kernels import DEPICTION_FLAG, GROUP_FLAG, INSIDE_FLAG
from pipeline_steps.openimages.labels import VerifiedLabels
from tests.data.openimages_files import CLASSES

PARENTS = {
    "/m/bear": ("/m/animal",),
    "/m/polar": ("/m/bear",),
    "/m/brown": ("/m/bear",),
    "/m/van": ("/m/car",),
}
VOCABULARY = Vocabulary(CLASSES, PARENTS)
BEAR, POLAR, CAR, MAMMAL = 10, 20, 30, 40
BOX = (0.25, 0.25, 0.75, 0.5)


def mapping(equal: dict[str, int], narrower: dict[str, int] | None = None, broader: dict[str, int] | None = None):
    narrower, broader = narrower or {}, broader or {}
    return CategoryMapping(
        rows=(),
        lvis_ids={**equal, **narrower, **broader},
        covering_sources=frozenset({*equal, *broader}),
        contained_sources=frozenset({*equal, *narrower}),
    )


STANDARD = mapping({"/m/bear": BEAR, "/m/polar": POLAR, "/m/car": CAR})


def record(
    boxes: list[tuple[str, int]], labels: VerifiedLabels | None = None, table: CategoryMapping = STANDARD
) -> tuple[dict, list[tuple[int, list[float]]], Counter]:
    """Image record and annotations of boxes given as (class, flags), each a little further to the right."""
    inference, counts = Inference(VOCABULARY, table), Counter()
    corners = np.array([BOX] * len(boxes), np.float32).reshape(-1, 4)
    corners[:, [0, 2]] += np.arange(len(boxes), dtype=np.float32)[:, None] / 64
    flags = np.array([flag for _, flag in boxes], np.uint8)
    objects = collect_objects([mid for mid, _ in boxes], corners, flags, (64, 32), inference, counts)
    image = lvis_image(3, "openimages/train/x.jpg", (64, 32), objects, labels or VerifiedLabels(), inference, counts)
    return image, objects.annotated, counts


def test_a_plain_box_is_an_annotation_in_pixels():
    image, annotated, _ = record([("/m/car", 0)])
    assert annotated == [(CAR, [16.0, 8.0, 32.0, 8.0])]
    assert image == {
        "id": FIRST_IMAGE_ID + 3,
        "file_name": "openimages/train/x.jpg",
        "width": 64,
        "height": 32,
        "neg_category_ids": [],
        "not_exhaustive_category_ids": [],
        "box_only": True,
        "known_category_ids": [BEAR, POLAR, CAR],
        "ignore_boxes": [],
        "group_boxes": [],
    }


@pytest.mark.parametrize("flags", [GROUP_FLAG, GROUP_FLAG | INSIDE_FLAG])
def test_a_group_is_a_region_of_many_objects_and_makes_its_category_not_exhaustive(flags: int):
    image, annotated, _ = record([("/m/car", flags), ("/m/car", 0)])
    assert annotated == [(CAR, [17.0, 8.0, 32.0, 8.0])]
    assert image["group_boxes"] == [[16.0, 8.0, 32.0, 8.0]]
    assert image["ignore_boxes"] == []
    assert image["not_exhaustive_category_ids"] == [CAR]


def test_a_group_of_a_kind_without_category_of_its_own_is_a_region_of_many_objects():
    image, annotated, _ = record([("/m/van", GROUP_FLAG)])
    assert not annotated
    assert len(image["group_boxes"]) == 1
    assert image["ignore_boxes"] == []


def test_a_view_from_inside_is_an_ignore_region():
    image, annotated, _ = record([("/m/car", INSIDE_FLAG)])
    assert not annotated
    assert len(image["ignore_boxes"]) == 1


@pytest.mark.parametrize("flags", [DEPICTION_FLAG, DEPICTION_FLAG | GROUP_FLAG])
def test_a_depiction_is_dropped_and_counted(flags: int):
    image, annotated, counts = record([("/m/car", flags)])
    assert not annotated
    assert not image["ignore_boxes"]
    assert not image["not_exhaustive_category_ids"]
    assert counts["depiction"] == 1


def test_a_kind_without_category_of_its_own_is_an_ignore_region_of_the_kind_above():
    image, annotated, _ = record([("/m/van", 0), ("/m/tree", 0)])
    assert not annotated
    assert image["ignore_boxes"] == [[16.0, 8.0, 32.0, 8.0]]  # the van; trees have nothing to do with LVIS here
    assert image["not_exhaustive_category_ids"] == [CAR]


def test_a_boxed_kind_makes_the_category_above_present_but_not_boxed():
    image, annotated, _ = record([("/m/polar", 0)])
    assert [category for category, _ in annotated] == [POLAR]
    assert image["not_exhaustive_category_ids"] == [BEAR]


def test_a_verified_presence_without_box_is_not_exhaustive():
    image, _, _ = record([("/m/car", 0)], VerifiedLabels({"/m/bear", "/m/car"}, set()))
    assert image["not_exhaustive_category_ids"] == [BEAR]
    image, _, _ = record([("/m/car", 0)], VerifiedLabels({"/m/brown"}, set()))
    assert image["not_exhaustive_category_ids"] == [BEAR]


def test_an_absent_parent_makes_its_children_absent():
    image, _, _ = record([("/m/car", 0)], VerifiedLabels(set(), {"/m/animal"}))
    assert image["neg_category_ids"] == [BEAR, POLAR]


def test_an_absent_child_says_nothing_about_its_parent():
    image, _, _ = record([("/m/car", 0)], VerifiedLabels(set(), {"/m/polar"}))
    assert image["neg_category_ids"] == [POLAR]
    image, _, _ = record([("/m/bear", 0)], VerifiedLabels(set(), {"/m/van", "/m/brown"}))
    assert image["neg_category_ids"] == []


def test_a_present_parent_says_nothing_about_its_children():
    image, _, _ = record([("/m/car", 0)], VerifiedLabels({"/m/animal"}, set()))
    assert image["not_exhaustive_category_ids"] == []


def test_what_is_boxed_or_present_is_never_negative():
    image, _, counts = record([("/m/polar", 0)], VerifiedLabels({"/m/car"}, {"/m/animal", "/m/car"}))
    assert image["neg_category_ids"] == []
    assert counts["contradiction"] == 3


def test_the_absence_of_a_narrower_class_says_nothing():
    table = mapping({"/m/car": CAR}, narrower={"/m/bear": MAMMAL})
    image, annotated, _ = record([("/m/bear", 0)], table=table)
    assert [category for category, _ in annotated] == [MAMMAL]
    image, _, _ = record([("/m/car", 0)], VerifiedLabels(set(), {"/m/bear"}), table)
    assert image["neg_category_ids"] == []


def test_the_absence_of_a_broader_class_makes_the_category_absent_and_its_presence_says_nothing():
    table = mapping({"/m/car": CAR}, broader={"/m/animal": MAMMAL})
    image, _, _ = record([("/m/car", 0)], VerifiedLabels(set(), {"/m/animal"}), table)
    assert image["neg_category_ids"] == [MAMMAL]
    image, _, _ = record([("/m/car", 0)], VerifiedLabels({"/m/animal"}, set()), table)
    assert image["not_exhaustive_category_ids"] == []


def test_repeated_boxes_are_dropped_and_counted():
    inference, counts = Inference(VOCABULARY, STANDARD), Counter()
    corners = np.array([BOX, BOX, BOX], np.float32)
    objects = collect_objects(
        ["/m/car", "/m/car", "/m/bear"], corners, np.zeros(3, np.uint8), (64, 32), inference, counts
    )
    assert [category for category, _ in objects.annotated] == [CAR, BEAR]
    assert counts == {"repeated": 1}


def test_boxes_smaller_than_a_hundredth_of_a_pixel_are_dropped_and_counted():
    inference, counts = Inference(VOCABULARY, STANDARD), Counter()
    corners = np.array([[0.5, 0.5, 0.50001, 0.6]], np.float32)
    assert not collect_objects(["/m/car"], corners, np.zeros(1, np.uint8), (64, 32), inference, counts).annotated
    assert counts == {"empty": 1}


def test_boxes_stay_inside_their_image():
    random = np.random.default_rng(0)
    for _ in range(2000):
        width, height = random.integers(1, 2000, 2).tolist()
        corners = np.sort(random.random((2, 2)) * 1.002 - 0.001, axis=0).ravel().astype(np.float32)
        x, y, w, h = pixel_box(corners, width, height)
        assert x >= 0
        assert y >= 0
        assert round(x + w, 2) <= width
        assert round(y + h, 2) <= height


def test_facts_about_an_image_never_contradict_each_other():
    random = np.random.default_rng(1)
    mids = list(CLASSES)
    for _ in range(500):
        boxes = [(str(random.choice(mids)), int(random.choice([0, 0, 1, 2, 4]))) for _ in range(random.integers(0, 6))]
        present = set(random.choice(mids, random.integers(0, 3)).tolist())
        absent = set(random.choice(mids, random.integers(0, 3)).tolist()) - present
        image, annotated, _ = record(boxes, VerifiedLabels(present, absent))
        positive = {category for category, _ in annotated}
        negative, partly = set(image["neg_category_ids"]), set(image["not_exhaustive_category_ids"])
        assert not negative & (positive | partly)
        assert negative | partly | positive <= set(image["known_category_ids"])
        assert len(annotated) + len(image["ignore_boxes"]) + len(image["group_boxes"]) <= len(boxes)
