"""The steps predict_boxes, predict_masks and gather_shards, run as from the command line on a few small images."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from pipeline_steps import gather_shards, predict_boxes, predict_masks
from pipeline_steps.common.cli import call_step
from pipeline_steps.detections.table import ImageDetections, TableReader, TableWriter
from pipeline_steps.inference.multi_scale import detect_boxes, predict_rles
from pipeline_steps.inference.views import render_images
from pipeline_steps.recipe.testing import Testing
from tests.inference.detectors import CATEGORIES, make_image, make_model, small_recipe

SIZES = [(60, 80), (80, 60), (60, 80), (64, 64), (60, 80), (60, 80), (90, 70), (64, 64), (60, 80), (80, 60), (50, 50)]
IDS = [907, 13, 55, 1001, 14, 20, 300, 301, 302, 5, 777]
CATEGORY_IDS = list(range(1, 3 * CATEGORIES, 3))
TESTING = {"batch_images": 3, "keep_per_image": 20, "proposals": 40}


class World:
    """A data set of eleven images, a recipe and two trained models, on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "datasets"
        self.recipe = folder / "recipe.yaml"
        testing = {"box_scales": [64, 72], "mask_scales": [64], "precision": "fp32", **TESTING}
        content = {"extends": "mini.yaml", "datasets_root": str(self.root), "testing": testing}
        self.recipe.write_text(yaml.safe_dump(content))
        (self.root / "lvis").mkdir(parents=True)
        self.images = [
            {"id": id_, "height": h, "width": w, "coco_url": f"http://images/val2017/{id_}.png"}
            for id_, (h, w) in zip(IDS, SIZES)
        ]
        for image in self.images:
            self.image_file(image["id"]).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(self.image_file(image["id"])), make_image(image["id"], image["height"], image["width"]))
        self.write_categories(CATEGORY_IDS)
        self.models = {
            name: make_model(small_recipe(self.root, **TESTING), name, seed)
            for seed, name in enumerate(("basic", "bottleneck"))
        }
        for name, model in self.models.items():
            self.write_model(name, model.state_dict(), CATEGORY_IDS)

    def image_file(self, image_id: int) -> Path:
        return self.root / "coco" / "val2017" / f"{image_id}.png"

    def write_categories(self, ids: list[int]) -> None:
        records = [{"id": id_, "name": f"thing {id_}", "frequency": "f"} for id_ in ids]
        for name in ("lvis_v0.5_val.json", "lvis_v0.5_image_info_test.json"):
            content = {"images": self.images, "categories": records, "annotations": []}
            (self.root / "lvis" / name).write_text(json.dumps(content))

    def weights(self, name: str) -> Path:
        return self.folder / name / "model.pth"

    def write_model(self, name: str, state: dict, category_ids: list[int]) -> None:
        self.weights(name).parent.mkdir(exist_ok=True)
        content = {"format": 1, "model": state, "model_name": name, "category_ids": category_ids}
        torch.save(content, self.weights(name))

    def predict_boxes(self, output: Path, *more: str, model: str = "basic") -> int:
        command = ["--recipe", str(self.recipe), "--model", model, "--weights", str(self.weights(model))]
        command += ["--split", "val", "--output", str(output), *more]
        return call_step(predict_boxes.parser, predict_boxes.main, command)

    def predict_masks(self, boxes: Path, output: Path, *more: str, models: tuple[str, ...] = ("basic",)) -> int:
        weights = [f"{name}={self.weights(name)}" for name in models]
        command = ["--recipe", str(self.recipe), "--boxes", str(boxes), "--output", str(output), "--split", "val"]
        return call_step(predict_masks.parser, predict_masks.main, [*command, "--weights", *weights, *more])


def gather(output: Path, *shards: Path) -> int:
    command = ["--inputs", *map(str, shards), "--output", str(output)]
    return call_step(gather_shards.parser, gather_shards.main, command)


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory):
    """Not to be changed."""
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def boxes(shared_world, tmp_path_factory):
    """Boxes of the model ``basic``, in one shard, gathered."""
    folder = tmp_path_factory.mktemp("boxes")
    assert shared_world.predict_boxes(folder / "shard.parquet") == 0
    assert gather(folder / "boxes.parquet", folder / "shard.parquet") == 0
    return folder / "boxes.parquet"


def images_of(path: Path) -> dict[int, ImageDetections]:
    with TableReader(path) as reader:
        return {image.image_id: image for image in reader}


def test_the_boxes_table_holds_what_the_model_detects_in_category_ids_of_the_data_set(shared_world, boxes):
    found = images_of(boxes)
    assert list(found) == sorted(IDS)
    settings = Testing(keep_per_image=20)
    for image_id in (1001, 777):  # all images of their size make one batch
        picture = cv2.imread(str(shared_world.image_file(image_id)))
        group = [
            p
            for i, p in ((i, cv2.imread(str(shared_world.image_file(i)))) for i in sorted(IDS))
            if p.shape == picture.shape
        ]
        place = [np.array_equal(p, picture) for p in group].index(True)
        expected = detect_boxes(shared_world.models["basic"], render_images(group, (64, 72), 192, False), settings)[
            place
        ]
        assert np.array_equal(found[image_id].boxes, expected.boxes.numpy())
        assert np.array_equal(found[image_id].scores, expected.scores.numpy())
        assert np.array_equal(found[image_id].rank_scores, found[image_id].scores)
        ids = np.array(CATEGORY_IDS)[expected.categories.numpy()]
        assert np.array_equal(found[image_id].category_ids, ids)
        assert set(found[image_id].sources) == {"basic"}
    with TableReader(boxes) as reader:
        assert reader.metadata["step"] == "predict_boxes"
        assert reader.metadata["arguments"]["model"] == "basic"
        assert reader.metadata["arguments"]["split"] == "val"
        assert "shard" not in reader.metadata


def test_val_and_test_give_the_same_boxes_for_the_same_images(shared_world, boxes, tmp_path):
    """What is measured on val is what is submitted for test."""
    assert shared_world.predict_boxes(tmp_path / "shard.parquet", "--split", "test") == 0
    on_val, on_test = images_of(boxes), images_of(tmp_path / "shard.parquet")
    assert list(on_test) == list(on_val)
    for image_id, image in on_val.items():
        assert len(image) == 20
        for column in ("category_ids", "scores", "boxes"):
            assert np.array_equal(getattr(on_test[image_id], column), getattr(image, column))


def test_inference_runs_in_the_precision_that_the_model_was_trained_in(shared_world, boxes, tmp_path, monkeypatch):
    """The mini recipe trains in bfloat16; one of the two mask models here was trained in single precision."""
    recipe = yaml.safe_load(shared_world.recipe.read_text())
    del recipe["testing"]["precision"]
    bottleneck = small_recipe().model("bottleneck").model_dump()
    recipe["models"] = [small_recipe().model("basic").model_dump(), {**bottleneck, "training": {"precision": "fp32"}}]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    other = ("--recipe", str(tmp_path / "recipe.yaml"))
    assert shared_world.predict_boxes(tmp_path / "boxes.parquet", *other) == 0
    picture = cv2.imread(str(shared_world.image_file(777)))
    images = render_images([picture], (64, 72), 192, False)
    (expected,) = detect_boxes(shared_world.models["basic"], images, Testing(keep_per_image=20), "bf16")
    assert np.array_equal(images_of(tmp_path / "boxes.parquet")[777].scores, expected.scores.numpy())
    assert not np.array_equal(images_of(boxes)[777].scores, expected.scores.numpy())
    with TableReader(tmp_path / "boxes.parquet") as reader:
        assert reader.metadata["arguments"]["testing"]["precision"] == "bf16"
    both = ("basic", "bottleneck")
    assert shared_world.predict_masks(boxes, tmp_path / "masks.parquet", *other, models=both) == 0
    with TableReader(tmp_path / "masks.parquet") as reader:
        assert reader.metadata["arguments"]["testing"]["precision"] == {"basic": "bf16", "bottleneck": "fp32"}
    models, view = [shared_world.models[name] for name in both], render_images([picture], (64,), 192, False)
    given = [images_of(boxes)[777].boxes]
    found = images_of(tmp_path / "masks.parquet")[777].rles
    assert found == predict_rles(models, view, given, ["bf16", "fp32"])[0]
    assert found != predict_rles(models, view, given, ["fp32", "fp32"])[0]


def test_results_do_not_depend_on_the_number_of_shards(shared_world, boxes, tmp_path):
    whole = boxes.read_bytes()
    masks = {}
    for shards in (1, 3, 7):
        parts = [tmp_path / f"boxes-{shards}-{shard}.parquet" for shard in range(shards)]
        for shard, part in enumerate(parts):
            assert shared_world.predict_boxes(part, "--shard", str(shard), "--shards", str(shards)) == 0
        assert gather(tmp_path / "boxes.parquet", *reversed(parts)) == 0
        assert (tmp_path / "boxes.parquet").read_bytes() == whole
        parts = [tmp_path / f"masks-{shards}-{shard}.parquet" for shard in range(shards)]
        for shard, part in enumerate(parts):
            more = ("--shard", str(shard), "--shards", str(shards))
            assert shared_world.predict_masks(boxes, part, *more, models=("basic", "bottleneck")) == 0
        assert gather(tmp_path / "masks.parquet", *parts) == 0
        masks[shards] = (tmp_path / "masks.parquet").read_bytes()
    assert masks[1] == masks[3] == masks[7]


def test_masks_keep_all_rows_and_columns_and_add_run_lengths_even_empty_ones(shared_world, boxes, tmp_path):
    found = images_of(boxes)
    given = tmp_path / "boxes.parquet"
    merged = {}
    with TableWriter(given, {"arguments": {"split": "val"}}) as writer:
        for image_id in (777, 13):  # any order of images; a point has no mask; other sources and rank scores
            image = found[image_id]
            boxes_ = np.concatenate([image.boxes, image.boxes[:1], [[4, 4, 4, 4]]])
            count = len(boxes_)
            merged[image_id] = ImageDetections(
                image_id,
                np.arange(count) % 5,
                np.linspace(0.9, 0.1, count),
                np.linspace(1.0, 0.1, count),
                boxes_,
                [f"member {i % 3}" for i in range(count)],
            )
            writer.write_image(image_id, merged[image_id])
    assert shared_world.predict_masks(given, tmp_path / "shard.parquet", models=("basic", "bottleneck")) == 0
    assert gather(tmp_path / "masks.parquet", tmp_path / "shard.parquet") == 0
    result = images_of(tmp_path / "masks.parquet")
    assert list(result) == [13, 777]
    for image_id, before in merged.items():
        after = result[image_id]
        for name in ("category_ids", "scores", "rank_scores", "boxes", "sources"):
            assert np.array_equal(getattr(before, name), getattr(after, name)), name
        assert len(after.rles) == len(before)
        assert after.rles[0] == after.rles[-2], "equal boxes, equal masks"
    size = dict(zip(IDS, SIZES))[777]
    picture = cv2.imread(str(shared_world.image_file(777)))
    models = [shared_world.models[name] for name in ("basic", "bottleneck")]
    expected = predict_rles(models, render_images([picture], (64,), 192, False), [merged[777].boxes])[0]
    assert result[777].rles == expected
    from pycocotools import mask as coco_mask

    areas = coco_mask.area([{"size": size, "counts": rle} for rle in result[777].rles])
    assert areas[-1] == 0
    assert areas[:-1].max() > 0


def test_an_image_without_detections_has_no_rows(shared_world, tmp_path):
    recipe = yaml.safe_load(shared_world.recipe.read_text())
    recipe["testing"]["score_threshold"] = 0.9999
    other = tmp_path / "recipe.yaml"
    other.write_text(yaml.safe_dump(recipe))
    assert shared_world.predict_boxes(tmp_path / "boxes.parquet", "--recipe", str(other)) == 0
    assert images_of(tmp_path / "boxes.parquet") == {}
    assert gather(tmp_path / "all.parquet", tmp_path / "boxes.parquet") == 0
    assert shared_world.predict_masks(tmp_path / "all.parquet", tmp_path / "masks.parquet") == 0
    assert images_of(tmp_path / "masks.parquet") == {}


@pytest.fixture
def world(tmp_path):
    """To be damaged."""
    return World(tmp_path)


def fails(capsys, code: int, *words: str) -> None:
    message = capsys.readouterr().err.splitlines()[-1]
    assert code == 2
    assert message.startswith("error: ")
    for word in words:
        assert word in message


def test_a_missing_image_is_named(world, capsys, tmp_path):
    world.image_file(300).unlink()
    fails(capsys, world.predict_boxes(tmp_path / "boxes.parquet"), "image 300", "val2017/300.png")
    assert not (tmp_path / "boxes.parquet").exists()


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_a_damaged_image_is_named(world, capsys, tmp_path, content):
    world.image_file(300).write_bytes(content)
    fails(capsys, world.predict_boxes(tmp_path / "boxes.parquet"), "image 300", "val2017/300.png")


def test_an_image_of_another_size_is_named(world, capsys, tmp_path):
    cv2.imwrite(str(world.image_file(300)), make_image(0, 33, 44))
    fails(capsys, world.predict_boxes(tmp_path / "boxes.parquet"), "300.png", "44 x 33", "70 x 90")


def test_a_model_of_other_categories_is_refused(world, capsys, tmp_path):
    world.write_model("basic", world.models["basic"].state_dict(), [*CATEGORY_IDS[:-1], 5000])
    fails(capsys, world.predict_boxes(tmp_path / "boxes.parquet"), "model.pth", "5000", "88", "lvis_v0.5_val.json")


@pytest.mark.parametrize("expert", ["coco_expert", "openimages_expert"])
def test_an_expert_keeps_its_own_category_ids(world, tmp_path, expert):
    own = list(range(100, 100 + CATEGORIES))
    world.write_model(expert, world.models["basic"].state_dict(), own)
    assert world.predict_boxes(tmp_path / "boxes.parquet", model=expert) == 0
    ids = np.concatenate([image.category_ids for image in images_of(tmp_path / "boxes.parquet").values()])
    assert set(ids) <= set(own)


def test_wrong_models_and_shards_are_refused(world, capsys, tmp_path):
    output = tmp_path / "boxes.parquet"
    fails(capsys, world.predict_boxes(output, "--model", "resnet"), "'resnet'", "basic, bottleneck")
    fails(capsys, world.predict_boxes(output, "--shard", "3", "--shards", "3"), "numbered from 0 to 2")
    fails(capsys, world.predict_boxes(output, "--weights", str(world.recipe)), "model file")
    torch.save({"format": 1, "kind": "backbone", "model": {}}, tmp_path / "backbone.pth")
    fails(capsys, world.predict_boxes(output, "--weights", str(tmp_path / "backbone.pth")), "not a trained model")


def test_masks_for_boxes_of_another_data_set_or_split_are_refused(world, capsys, tmp_path):
    given, output = tmp_path / "boxes.parquet", tmp_path / "masks.parquet"

    def write(image_id: int, box: list[float], split: str = "val") -> None:
        with TableWriter(given, {"arguments": {"split": split}}) as writer:
            writer.write_image(image_id, ImageDetections(image_id, [1], [0.5], [0.5], [box], "m"))

    write(424242, [0, 0, 5, 5])
    fails(capsys, world.predict_masks(given, output), "424242", "another data set")
    write(13, [0, 0, 5, 500])
    fails(capsys, world.predict_masks(given, output), "image 13", "500", "60 x 80")
    write(13, [0, 0, 5, 5], "test")
    fails(capsys, world.predict_masks(given, output), "'test'", "'val'")
    write(13, [0, 0, 5, 5])
    fails(capsys, world.predict_masks(given, output, models=("basic", "basic")), "twice")
    assert not output.exists()


def test_gather_wants_all_shards_of_one_prediction(shared_world, capsys, tmp_path):
    parts = [tmp_path / f"{shard}.parquet" for shard in range(3)]
    for shard, part in enumerate(parts):
        with TableWriter(part, {"step": "x", "shard": {"index": shard, "count": 3}}) as writer:
            writer.write_image(shard, ImageDetections(shard, [1], [0.5], [0.5], [[0, 0, 5, 5]], "m"))
    output = tmp_path / "all.parquet"
    assert gather(output, *parts) == 0
    output.unlink()
    fails(capsys, gather(output, parts[0], parts[2]), "1 of 3 shards are missing", ": 1;")
    fails(capsys, gather(output, *parts, parts[1]), "shard 1 is given twice")
    fails(capsys, gather(output, *parts[:2], tmp_path / "none.parquet"), "none.parquet")
    with TableWriter(tmp_path / "other.parquet", {"step": "y", "shard": {"index": 2, "count": 3}}):
        pass
    fails(capsys, gather(output, *parts[:2], tmp_path / "other.parquet"), "not of one prediction", "step is y")
    with TableWriter(tmp_path / "four.parquet", {"step": "x", "shard": {"index": 2, "count": 4}}):
        pass
    fails(capsys, gather(output, *parts[:2], tmp_path / "four.parquet"), "one of 4 shards")
    with TableWriter(tmp_path / "whole.parquet", {"step": "x"}):
        pass
    fails(capsys, gather(output, tmp_path / "whole.parquet"), "not a shard")
    with TableWriter(tmp_path / "again.parquet", {"step": "x", "shard": {"index": 2, "count": 3}}) as writer:
        writer.write_image(1, ImageDetections(1, [1], [0.5], [0.5], [[0, 0, 5, 5]], "m"))
    fails(capsys, gather(output, *parts[:2], tmp_path / "again.parquet"), "image 1 is in two shards")
    assert not output.exists()
