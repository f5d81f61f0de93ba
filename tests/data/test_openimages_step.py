"""The step select_openimages from files to files, on a hand-made world."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

from pipeline_steps import select_openimages
from pipeline_steps.common.cli import call_step
from pipeline_steps.data.checks.check import check_file
from pipeline_steps.data.lvis import read_lvis
from pipeline_steps.data.packing import pack
from pipeline_steps.openimages.own import choose_seeded, seeded_order
from tests.data.lvis_files import lvis_content, write
from tests.data.openimages_files import box_line, image_id, write_boxes, write_csv, write_image, write_vocabulary

BOXES = "oidv6-train-annotations-bbox.csv"
LABELS = "train-annotations-human-imagelabels-boxable.csv"


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """LVIS: acorn (1 image), ball (50), cat (500), dagger (1). OpenImages: bears are acorns, cars are balls."""
    write(tmp_path / "lvis/lvis_v0.5_train.json", lvis_content())
    folder = tmp_path / "openimages"
    corners = (0.25, 0.5, 0.25, 0.75)
    lines = [
        box_line(image_id(1), "/m/bear", corners),
        box_line(image_id(1), "/m/car", (0.0, 1.0, 0.0, 1.0), "100"),
        box_line(image_id(2), "/m/car", corners),
        box_line(image_id(2), "/m/polar", corners),
        box_line(image_id(3), "/m/bear", corners),
        box_line(image_id(4), "/m/bear", corners, "010"),
        box_line(image_id(5), "/m/tree", corners),
        box_line(image_id(6), "/m/car", corners),
        box_line(image_id(7), "/m/car", corners),
    ]
    write_boxes(folder / BOXES, lines)
    write_csv(
        folder / LABELS,
        [
            ["ImageID", "Source", "LabelName", "Confidence"],
            [image_id(1), "v", "/m/car", 1],
            [image_id(6), "v", "/m/animal", 0],
        ],
    )
    write_csv(
        folder / "train-images-boxable-with-rotation.csv",
        [["ImageID", "Rotation"], [image_id(3), "90.0"], [image_id(1), ""], [image_id(2), "0.0"]],
    )
    write_vocabulary(folder)
    for number in range(1, 8):
        write_image(folder / "train", image_id(number), 100 + number, 50)
    header = "source_id,source_name,lvis_synset,relation,verdict,note\n"
    (tmp_path / "table.csv").write_text(
        header + "/m/bear,Bear,acorn.n.01,equal,use,\n/m/car,Car,ball.n.01,equal,use,\n"
    )
    return tmp_path


def recipe(world: Path, **openimages: object) -> Path:
    path = world / "recipe.yaml"
    data = {"openimages_to_lvis": str(world / "table.csv"), "openimages": openimages}
    path.write_text(json.dumps({"extends": "challenge.yaml", "datasets_root": str(world), "data": data}))
    return path


def run(world: Path, *extra: str, **openimages: object) -> int:
    arguments = [
        "--recipe",
        str(recipe(world, **openimages)),
        *(extra or ("--output", str(world / "derived/out.json"))),
    ]
    if not extra:
        arguments += ["--summary", str(world / "derived/summary.csv")]
    return call_step(select_openimages.parser, select_openimages.main, arguments)


def test_the_whole_way(world: Path):
    assert run(world) == 0
    content = json.loads((world / "derived/out.json").read_text())
    assert [image["file_name"][-10:] for image in content["images"]] == [f"{k:06x}.jpg" for k in (1, 2, 6, 7)]
    assert [(a["id"], a["image_id"] - 10_000_000_000, a["category_id"], a["bbox"]) for a in content["annotations"]] == [
        (1, 0, 1, [25.25, 12.5, 25.25, 25.0]),
        (2, 1, 2, [25.5, 12.5, 25.5, 25.0]),
        (3, 2, 2, [26.5, 12.5, 26.5, 25.0]),
        (4, 3, 2, [26.75, 12.5, 26.75, 25.0]),
    ]
    keys = ("neg_category_ids", "not_exhaustive_category_ids", "group_boxes", "ignore_boxes")
    assert [[image[key] for key in keys] for image in content["images"]] == [
        [[], [2], [[0, 0, 101, 50]], []],
        [[], [1], [], [[25.5, 12.5, 25.5, 25.0]]],
        [[1], [], [], []],
        [[], [], [], []],
    ]
    assert content["categories"] == lvis_content()["categories"]
    dataset = read_lvis(world / "derived/out.json", "openimages")
    assert dataset.known(dataset.images[0]).tolist() == [True, True, False, False]
    assert check_file(world / "derived/out.json", root=world).findings.kinds == {}


def test_the_summary_tells_before_and_after_of_every_category(world: Path):
    assert run(world) == 0
    with (world / "derived/summary.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    numbers = ("shared", "lvis_images", "openimages_available", "images_added", "boxes_added", "images_after")
    assert [rows["acorn"][key] for key in numbers] == ["1", "1", "1", "1", "1", "2"]
    assert [rows["ball"][key] for key in numbers] == ["1", "50", "3", "3", "3", "53"]
    assert [rows["cat"][key] for key in numbers] == ["0", "500", "0", "0", "0", "500"]
    assert len(rows) == 4


def test_max_images_is_kept_and_the_rarest_category_comes_first(world: Path):
    assert run(world, "--list-only", str(world / "list.txt"), max_images=1) == 0
    assert (world / "list.txt").read_text() == f"train/{image_id(1)}\n"


def test_the_list_needs_no_image(world: Path):
    for path in (world / "openimages/train").iterdir():
        path.unlink()
    assert run(world, "--list-only", str(world / "list.txt")) == 0
    assert (world / "list.txt").read_text().split() == [f"train/{image_id(k)}" for k in (1, 2, 6, 7)]


def test_rotated_images_are_left_out_only_if_the_recipe_says_so(world: Path):
    assert run(world, "--list-only", str(world / "list.txt"), skip_rotated=False) == 0
    assert f"train/{image_id(3)}" in (world / "list.txt").read_text()


def test_running_twice_writes_the_same_bytes(world: Path):
    assert run(world) == 0
    first = (world / "derived/out.json").read_bytes()
    assert run(world) == 0
    assert (world / "derived/out.json").read_bytes() == first


def test_missing_images_stop_the_step_with_the_way_out(world: Path, capsys: pytest.CaptureFixture[str]):
    (world / f"openimages/train/{image_id(2)}.jpg").unlink()
    (world / f"openimages/train/{image_id(6)}.jpg").write_bytes(b"<html>")
    assert run(world) == 2
    assert "1 of 4 chosen images are not in" in (message := capsys.readouterr().err)
    assert "1 are damaged" in message
    assert "--list-only FILE writes the list" in message
    assert not (world / "derived").exists()


def test_a_few_missing_images_are_left_out(
    world: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("pipeline_steps.openimages.dataset.MAX_MISSING_SHARE", 0.3)
    (world / f"openimages/train/{image_id(2)}.jpg").unlink()
    assert run(world) == 0
    assert len(json.loads((world / "derived/out.json").read_text())["images"]) == 3
    assert f"1 images missing, left out: {image_id(2)}" in caplog.text


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (BOXES, "ImageID,LabelName\n", "missing columns: XMin"),
        (LABELS, "ImageID,LabelName\n", "missing columns: Confidence"),
        ("train-images-boxable-with-rotation.csv", "ImageID\n", "missing columns: Rotation"),
        ("class-descriptions-boxable.csv", "/m/bear,Bear\n", "classes that .* lacks: line 3"),
        ("bbox_labels_600_hierarchy.json", '{"LabelName": "x",', "is not complete JSON"),
        (BOXES, None, "OpenImages boxes not found"),
        (LABELS, None, "OpenImages image labels not found"),
    ],
)
def test_damaged_files_are_named_and_nothing_is_written(
    world: Path, capsys: pytest.CaptureFixture[str], file: str, content: str | None, message: str
):
    if content is None:
        (world / "openimages" / file).unlink()
    else:
        (world / "openimages" / file).write_text(content)
    assert run(world) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not (world / "derived").exists()


def test_a_disabled_openimages_is_said(world: Path, capsys: pytest.CaptureFixture[str]):
    path = recipe(world)
    content = json.loads(path.read_text())
    content["data"]["openimages"] = {"enabled": False}
    model = {"name": "m", "detector": "d.yaml"}
    content.update(models=[model], experts=[], ensemble={"members": [{"name": "m"}]}, pretraining=[])
    path.write_text(json.dumps(content))
    arguments = ["--recipe", str(path), "--list-only", str(world / "x")]
    assert call_step(select_openimages.parser, select_openimages.main, arguments) == 2
    assert "data.openimages.enabled is false" in capsys.readouterr().err


def test_an_output_must_be_asked_for(world: Path, capsys: pytest.CaptureFixture[str]):
    assert run(world, "--output", str(world / "x.json")) == 2
    assert "give either --output and --summary, or --list-only" in capsys.readouterr().err


OWN = ("--dataset", "openimages_own_train")


def run_own(world: Path, **own: object) -> dict:
    """Make the data of an OpenImages expert; the table of LVIS categories must not matter."""
    path = recipe(world)
    content = json.loads(path.read_text())
    content["data"]["openimages_own"] = own
    content["data"]["openimages_to_lvis"] = "nowhere.csv"
    path.write_text(json.dumps(content))
    files = ["--output", str(world / "derived/own.json"), "--summary", str(world / "derived/own.csv")]
    arguments = ["--recipe", str(path), *OWN, *files]
    assert call_step(select_openimages.parser, select_openimages.main, arguments) == 0
    return json.loads((world / "derived/own.json").read_text())


def test_an_expert_gets_openimages_own_classes_without_those_that_have_no_box(world: Path):
    content = run_own(world)
    # Place in the class descriptions, from 1: animal, bear, polar, brown, car, van, tree. Image 4 has a depiction only,
    # image 3 is rotated.
    assert [image["file_name"][-6:-4] for image in content["images"]] == ["01", "02", "05", "06", "07"]
    assert content["categories"] == [
        {"id": 2, "name": "Bear", "freebase_id": "/m/bear", "image_count": 1, "instance_count": 1},
        {"id": 3, "name": "Polar bear", "freebase_id": "/m/polar", "image_count": 1, "instance_count": 1},
        {"id": 5, "name": "Car", "freebase_id": "/m/car", "image_count": 3, "instance_count": 3},
        {"id": 7, "name": "Tree", "freebase_id": "/m/tree", "image_count": 1, "instance_count": 1},
    ]
    dataset = read_lvis(world / "derived/own.json", "openimages")
    facts = {
        image.file_name[-6:-4]: (
            dataset.annotated_ids(image),
            np.array(dataset.category_ids)[dataset.known(image)].tolist(),
            image.group_boxes,
        )
        for image in dataset.images
    }
    assert facts == {
        "01": ([2], [2], ((0, 0, 101, 50),)),  # a group of cars: no car has a box, nothing is known of them
        "02": ([3, 5], [3, 5], ()),  # a polar bear says nothing against bears
        "05": ([7], [7], ()),
        "06": ([5], [2, 3, 5], ()),  # animals are absent, and with them all kinds of them
        "07": ([5], [5], ()),
    }
    with (world / "derived/own.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert [rows["Car"][key] for key in ("category_id", "images_available", "images", "boxes")] == ["5", "3", "3", "3"]
    assert rows["Van"]["images"] == "0"
    assert len(rows) == 7


def test_what_is_not_judged_has_no_loss_unless_every_category_counts_as_known(world: Path):
    run_own(world)
    dataset = read_lvis(world / "derived/own.json", "openimages")
    images = pack([dataset], lambda image: world / image.file_name)
    assert [images.known(k).tolist() for k in range(5)] == [dataset.known(image).tolist() for image in dataset.images]
    assert images.known(0).sum() == 1
    assert pack([dataset], lambda image: world / image.file_name, unknown_categories=False).known(0).all()
    assert images.digest() != pack([dataset], lambda image: world / "x", unknown_categories=False).digest()


def test_a_larger_selection_holds_a_smaller_one_and_the_seed_decides(world: Path):
    def chosen(**own: object) -> set[str]:
        return {image["file_name"] for image in run_own(world, **own)["images"]}

    everything = chosen(max_images=None)
    sets = [chosen(max_images=count) for count in range(1, 6)]
    assert [len(found) for found in sets] == [1, 2, 3, 4, 5]
    assert all(small < large for small, large in itertools.pairwise(sets))
    assert sets[-1] == everything == chosen()
    assert len({next(iter(chosen(max_images=1, seed=seed))) for seed in range(12)}) > 2


def test_making_the_data_of_an_expert_twice_writes_the_same_bytes(world: Path):
    files = [world / "derived/own.json", world / "derived/own.csv"]
    run_own(world)
    first = [path.read_bytes() for path in files]
    run_own(world)
    assert [path.read_bytes() for path in files] == first


def test_images_of_the_seeded_order_are_those_with_the_smallest_digests():
    ids = [image_id(number).encode() for number in range(300)]
    slow = sorted(range(300), key=lambda k: hashlib.blake2b(ids[k], digest_size=16, key=b"7").hexdigest())
    assert seeded_order(ids, 7).tolist() == slow
    pair_image = np.array([0, 3, 3, 200, 299, 5])
    choice = choose_seeded(pair_image, np.array([0, 0, 1, 1, 0, 1]), np.array(ids), 3, 2, 7)
    best = [k for k in slow if k in set(pair_image.tolist())][:2]
    assert choice.images.tolist() == sorted(best)
    assert choice.available.tolist() == [3, 3, 0]
