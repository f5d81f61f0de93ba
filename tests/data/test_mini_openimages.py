"""The OpenImages analogue: columns, hierarchy, verified labels, groups, depictions, and its rare categories."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import cv2
import pytest

from pipeline_steps.data.category_tables import read_category_table
from pipeline_steps.mini_world.openimages_format import Box
from pipeline_steps.mini_world.vocabulary import build_vocabulary
from pipeline_steps.recipe.data import MiniWorld
from tests.data.mini_worlds import make

BOXES = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside,"
    "XClick1X,XClick2X,XClick3X,XClick4X,XClick1Y,XClick2Y,XClick3Y,XClick4Y"
)
LABELS = "ImageID,Source,LabelName,Confidence"
IMAGES = (
    "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,OriginalSize,OriginalMD5,"
    "Thumbnail300KURL,Rotation"
)
Row = dict[str, str]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("mini"))


def rows(path: Path, header: str) -> list[Row]:
    assert path.read_text().splitlines()[0] == header
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def boxes(root: Path) -> list[Row]:
    return rows(root / "openimages" / "oidv6-train-annotations-bbox.csv", BOXES)


@pytest.fixture(scope="module")
def labels(root: Path) -> list[Row]:
    return rows(root / "openimages" / "train-annotations-human-imagelabels-boxable.csv", LABELS)


@pytest.fixture(scope="module")
def classes(root: Path) -> dict[str, str]:
    with (root / "openimages" / "class-descriptions-boxable.csv").open(newline="") as file:
        return {mid: name for mid, name in csv.reader(file)}  # noqa: C416 - two columns, checked here


@pytest.fixture(scope="module")
def ancestors(root: Path) -> dict[str, set[str]]:
    """Classes above each class, through Subcategory only."""
    tree = json.loads((root / "openimages" / "bbox_labels_600_hierarchy.json").read_text())
    found: dict[str, set[str]] = defaultdict(set)

    def walk(node: dict[str, Any], above: tuple[str, ...]) -> None:
        found[node["LabelName"]] |= set(above)
        for child in node.get("Subcategory", []):
            walk(child, (*above, node["LabelName"]))

    walk(tree, ())
    return found


def test_the_hierarchy_covers_every_class_below_an_entity_that_is_none(
    classes: dict[str, str], ancestors: dict[str, set[str]]
) -> None:
    assert set(ancestors) - set(classes) == {"/m/0bl9f"}
    assert set(classes) <= set(ancestors)
    by_name = {name: mid for mid, name in classes.items()}
    leaf = next(mid for name, mid in by_name.items() if name.endswith(" disk"))
    assert {by_name["Disk"], by_name["Round shape"]} < ancestors[leaf]


def test_parts_are_in_the_hierarchy_but_are_no_kinds(root: Path, classes: dict[str, str]) -> None:
    tree = json.loads((root / "openimages" / "bbox_labels_600_hierarchy.json").read_text())
    house = next(node for node in tree["Subcategory"] if classes[node["LabelName"]] == "House")
    assert [classes[part["LabelName"]] for part in house["Part"]] == ["Picture frame"]
    assert "Subcategory" not in house


def test_boxes_are_inside_the_image_and_clicks_on_their_edges(boxes: list[Row], classes: dict[str, str]) -> None:
    for box in boxes:
        left, right, top, bottom = (float(box[key]) for key in ("XMin", "XMax", "YMin", "YMax"))
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
        assert box["LabelName"] in classes
        assert box["Source"] == "xclick"
        clicks = [(float(box[f"XClick{k}X"]), float(box[f"XClick{k}Y"])) for k in (1, 2, 3, 4)]
        assert [clicks[0][1], clicks[1][0], clicks[2][1], clicks[3][0]] == [top, left, bottom, right]
        assert all(left <= x <= right and top <= y <= bottom for x, y in clicks)


def test_groups_depictions_occlusion_and_truncation_occur(boxes: list[Row]) -> None:
    for flag in ("IsGroupOf", "IsDepiction", "IsOccluded", "IsTruncated"):
        assert {box[flag] for box in boxes} == {"0", "1"}
    groups = [box for box in boxes if box["IsGroupOf"] == "1"]
    single = Counter((box["ImageID"], box["LabelName"]) for box in boxes if box["IsGroupOf"] == "0")
    for box in groups:  # members of a group have no boxes of their own
        assert single[box["ImageID"], box["LabelName"]] < 5


def test_every_box_has_a_verified_label_and_some_verified_labels_have_no_box(
    boxes: list[Row], labels: list[Row]
) -> None:
    positive = {(row["ImageID"], row["LabelName"]) for row in labels if row["Confidence"] == "1"}
    boxed = {(box["ImageID"], box["LabelName"]) for box in boxes}
    assert boxed < positive


def test_negatives_contradict_neither_positives_nor_their_parents(
    labels: list[Row], ancestors: dict[str, set[str]], classes: dict[str, str]
) -> None:
    positive: dict[str, set[str]] = defaultdict(set)
    negative: dict[str, set[str]] = defaultdict(set)
    for row in labels:
        (positive if row["Confidence"] == "1" else negative)[row["ImageID"]].add(row["LabelName"])
    for image, absent in negative.items():
        implied = positive[image] | {above for mid in positive[image] for above in ancestors[mid]}
        assert not absent & implied
    all_negatives = {classes[mid] for absent in negative.values() for mid in absent}
    assert "Disk" in all_negatives  # a parent class is denied somewhere
    assert any(name.endswith(" disk") for name in all_negatives)


def test_the_category_table_maps_leaves_one_to_one_and_only_them(root: Path, classes: dict[str, str]) -> None:
    table = read_category_table(root / "categories" / "openimages_to_lvis.csv")
    synsets = {c["synset"] for c in json.loads((root / "lvis" / "lvis_v0.5_train.json").read_text())["categories"]}
    used = [row for row in table if row.verdict == "use"]
    assert len(used) == 6  # half of 4 x 3 categories
    assert len({row.lvis_synset for row in used}) == len({row.source_id for row in used}) == 6
    assert {row.source_id for row in table} <= set(classes)
    assert {row.lvis_synset for row in table} <= synsets
    assert {row.relation for row in table if row.verdict == "no"} == {"broader"}
    unshared = set(classes.values()) - {row.source_name for row in table}
    assert {"House", "Mushroom", "Picture frame"} <= unshared


def test_shared_rare_categories_have_more_boxes_than_in_lvis(root: Path, boxes: list[Row]) -> None:
    train = json.loads((root / "lvis" / "lvis_v0.5_train.json").read_text())
    of_class = Counter(box["LabelName"] for box in boxes if box["IsDepiction"] == box["IsGroupOf"] == "0")
    mids = {
        row.lvis_synset: row.source_id
        for row in read_category_table(root / "categories" / "openimages_to_lvis.csv")
        if row.verdict == "use"
    }
    rare = [c for c in train["categories"] if c["frequency"] == "r" and c["synset"] in mids]
    assert rare
    for category in rare:
        assert of_class[mids[category["synset"]]] > category["instance_count"]


def test_images_are_the_files_that_the_table_says(root: Path, boxes: list[Row]) -> None:
    images = rows(root / "openimages" / "train-images-boxable-with-rotation.csv", IMAGES)
    folder = root / "openimages" / "train"
    assert {f"{image['ImageID']}.jpg" for image in images} == {path.name for path in folder.iterdir()}
    assert {box["ImageID"] for box in boxes} <= {image["ImageID"] for image in images}
    for image in images:
        content = (folder / f"{image['ImageID']}.jpg").read_bytes()
        assert int(image["OriginalSize"]) == len(content)
        assert base64.b64decode(image["OriginalMD5"]) == hashlib.md5(content).digest()
    assert cv2.imread(str(folder / f"{images[0]['ImageID']}.jpg")).shape == (96, 96, 3)


def test_rotations_are_mostly_zero_sometimes_unknown_and_seldom_quarter_turns() -> None:
    from pipeline_steps.mini_world.openimages_format import draw_rotation

    drawn = Counter(draw_rotation(0, index) for index in range(2000))
    assert set(drawn) == {None, 0, 90, 180, 270}
    assert drawn[0] > 1700
    assert 20 < drawn[90] + drawn[180] + drawn[270] < 120


def test_a_turned_box_has_the_clicks_in_the_order_top_left_bottom_right() -> None:
    box = Box("/m/0", ((0.5, 0.1), (0.2, 0.3), (0.6, 0.4), (0.7, 0.2)), False, False, False, False)
    assert box.extent == (0.2, 0.7, 0.1, 0.4)
    for quarters in range(4):
        turned = box.turned(quarters)
        points = list(box.clicks)
        for _ in range(quarters):
            points = [(1 - y, x) for x, y in points]
        xs, ys = [x for x, _ in points], [y for _, y in points]
        assert turned.extent == (min(xs), max(xs), min(ys), max(ys))


def test_half_of_the_categories_of_head_and_tail_alike_are_shared() -> None:
    vocabulary = build_vocabulary(MiniWorld())
    shared = {entry.key for entry in vocabulary.openimages if entry.key is not None}
    ranks = [category.rank for category in vocabulary.categories if category.key in shared]
    assert len(ranks) == 48
    assert sum(rank >= 48 for rank in ranks) == 24
    shapes = Counter(category.shape for category in vocabulary.categories if category.key in shared)
    assert set(shapes.values()) == {4}
    assert len({entry.mid for entry in vocabulary.openimages}) == len(vocabulary.openimages)
