"""Counted samples of the box head, against counting one proposal and one category after the other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.ops import box_iou

from pipeline_steps.analysis.samples.count import Batch, SampleCounts, add_batch, sample_proposals
from pipeline_steps.analysis.samples.examples import Examples
from pipeline_steps.common.cli import call_step
from pipeline_steps.count_samples import main, parser
from pipeline_steps.data.loader import Share, load_training_set, training_batches
from pipeline_steps.modeling.build import build_detector
from pipeline_steps.modeling.weights import FORMAT
from pipeline_steps.training.checkpoint import save_tensors
from tests.one_thread import one_thread  # noqa: F401
from tests.training.world import LVIS_IDS, make_recipe, write_recipe, write_world

CATEGORIES = len(LVIS_IDS)
IGNORE = {"coco_ignore": {"enabled": True}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training world in which the first object of every LVIS image is annotated by COCO only."""
    root = write_world(tmp_path_factory.mktemp("world"))
    path = root / "lvis/lvis_v0.5_train.json"
    lvis = json.loads(path.read_text())
    regions = json.loads((root / "derived/coco_boxes_train.json").read_text())["boxes"]

    def missing(annotation: dict[str, Any]) -> bool:
        return regions[str(annotation["image_id"])][0][:2] == annotation["bbox"][:2]

    lvis["annotations"] = [annotation for annotation in lvis["annotations"] if not missing(annotation)]
    path.write_text(json.dumps(lvis))
    return root


def make_model(root: Path, **training: Any) -> Any:
    torch.manual_seed(0)
    recipe = make_recipe(root, **training)
    model = build_detector(recipe, "basic", CATEGORIES, torch.ones(CATEGORIES, dtype=torch.bool), "cpu")
    return recipe, model.train(False)


def batches(root: Path, model: Any, recipe: Any) -> tuple[list[Batch], torch.Tensor]:
    training_set = load_training_set(recipe, "basic")
    training = recipe.training_of(recipe.model("basic"))
    loaded = training_batches(training_set.images, training, 0, 0, 0, 6, Share(images_per_step=4))
    return [sample_proposals(model, samples) for samples in loaded], torch.from_numpy(training_set.tail.copy())


def inside(box: torch.Tensor, group: torch.Tensor) -> float:
    """Part of a box that lies in a group."""
    x1, y1, x2, y2 = box.tolist()
    a1, b1, a2, b2 = group.tolist()
    return max(0, min(x2, a2) - max(x1, a1)) * max(0, min(y2, b2) - max(y1, b1)) / ((x2 - x1) * (y2 - y1))


def slow_counts(drawn: list[Batch], tail: torch.Tensor, judged_categories: bool) -> dict[str, list[int]]:
    """One pair of proposal and category after the other, in the words of the paper."""
    names = ("positives", "from_objects", "from_objects_equalized", "from_background")
    counts = {name: [0] * CATEGORIES for name in names}
    for batch in drawn:
        for sample, image in zip(batch.samples, batch.sampled):
            proposals = image.proposal_boxes.tensor
            overlaps = box_iou(proposals, sample["region_boxes"])
            if sample["region_groups"].any():  # images of OpenImages: all regions are groups
                overlaps = torch.tensor([[inside(box, group) for group in sample["region_boxes"]] for box in proposals])
            for label, row in zip(image.gt_classes.tolist(), overlaps):
                background = label == CATEGORIES
                hit = sample["region_weights"][row > 0.5].tolist()
                if background and 0.0 in hit:  # a group of objects: no loss
                    continue
                for j in range(CATEGORIES):
                    if not sample["known"][j]:
                        continue
                    if j == label:
                        counts["positives"][j] += 1
                    elif background:
                        counts["from_background"][j] += 1
                    else:
                        counts["from_objects"][j] += 1
                        spared = bool(tail[j]) and not (judged_categories and bool(sample["judged"][j]))
                        counts["from_objects_equalized"][j] += not spared
    return counts


@pytest.mark.parametrize("judged_categories", [True, False])
def test_counts_are_those_of_the_rules_applied_one_by_one(world: Path, judged_categories: bool) -> None:
    recipe, model = make_model(world, **IGNORE)
    drawn, tail = batches(world, model, recipe)
    counts = SampleCounts.zeros(CATEGORIES)
    for batch in drawn:
        add_batch(counts, batch, tail, judged_categories)
    expected = slow_counts(drawn, tail, judged_categories)
    assert {name: getattr(counts, name).tolist() for name in expected} == expected
    assert sum(expected["from_objects_equalized"]) < sum(expected["from_objects"])
    assert counts.images == 24
    assert counts.proposals == sum(len(image) for batch in drawn for image in batch.sampled)
    assert 0 < counts.background_on_coco < counts.background_in_lvis


def test_proposals_are_drawn_as_in_training_and_leave_the_model_as_it_was(world: Path) -> None:
    recipe, model = make_model(world)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    drawn, _ = batches(world, model, recipe)
    again, _ = batches(world, model, recipe)
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for one, two in zip(drawn, again, strict=True):
        for a, b, sample in zip(one.sampled, two.sampled, one.samples):
            assert torch.equal(a.proposal_boxes.tensor, b.proposal_boxes.tensor)
            assert len(a) <= 16  # ROI_HEADS.BATCH_SIZE_PER_IMAGE
            objects = sample["instances"].gt_boxes.tensor
            positive = a.proposal_boxes.tensor[a.gt_classes < CATEGORIES]
            assert (box_iou(positive, objects).amax(dim=1) >= 0.5).all()


def test_examples_show_objects_of_coco_that_lvis_does_not_annotate_and_proposals_on_them(world: Path) -> None:
    recipe, model = make_model(world, **IGNORE)
    drawn, _ = batches(world, model, recipe)
    examples = Examples(3)
    for batch in drawn:
        examples.add(batch)
    best = examples.best()
    assert 1 <= len(best) <= 3
    assert len({example.image_id for example in best}) == len(best)
    for example in best:
        missing = torch.from_numpy(example.unannotated)
        assert (box_iou(missing, torch.from_numpy(example.annotated)) <= 0.5).all()
        assert (box_iou(torch.from_numpy(example.negatives), missing).amax(dim=1) > 0.5).all()
        assert example.image_id < 10_000_000_000  # of LVIS


def write_model(path: Path, model: Any, category_ids: list[int] = LVIS_IDS) -> Path:
    content = {"format": FORMAT, "kind": "detector", "model": model.state_dict(), "model_name": "basic"}
    save_tensors({**content, "recipe_name": "tiny", "category_ids": category_ids, "metadata": {}}, path)
    return path


def run(folder: Path, root: Path, weights: Path, *options: str, **training: Any) -> int:
    recipe = write_recipe(folder / "recipe.yaml", root, **training)
    arguments = ["--recipe", str(recipe), "--model", "basic", "--weights", str(weights), "--images", "10"]
    arguments += ["--output", str(folder / "samples.json"), "--page", str(folder / "page.html")]
    return call_step(parser, main, [*arguments, *options])


@pytest.mark.parametrize("training", [IGNORE, {"loss": "softmax", "coco_ignore": {"enabled": False}}])
def test_step_writes_counts_and_a_page_for_any_loss(world: Path, tmp_path: Path, training: dict[str, Any]) -> None:
    _, model = make_model(world, **training)
    assert run(tmp_path, world, write_model(tmp_path / "model.pth", model), **training) == 0
    content = json.loads((tmp_path / "samples.json").read_text())
    assert [row["category_id"] for row in content["categories"]] == LVIS_IDS
    assert content["images"] == 12  # whole batches
    assert content["recipe"] == "tiny"
    page = (tmp_path / "page.html").read_text()
    assert f"{content['background_on_coco']:,} of {content['background_in_lvis']:,} background proposals" in page
    assert page.count("<figure>") == page.count('href="data:image/jpeg') > 0
    assert all(link.startswith("data:") for link in re.findall(r'(?:href|src)="([^"]*)"', page))


def test_without_coco_boxes_the_counts_are_written_and_the_page_says_so(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = write_world(tmp_path_factory.mktemp("bare"))
    (root / "derived/coco_boxes_train.json").unlink()
    training = {"coco_ignore": {"enabled": False}}
    _, model = make_model(root, **training)
    assert run(tmp_path, root, write_model(tmp_path / "model.pth", model), **training) == 0
    assert "no COCO boxes" in (tmp_path / "page.html").read_text()
    assert json.loads((tmp_path / "samples.json").read_text())["proposals"] > 0


def test_models_of_another_kind_or_other_data_are_refused(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, model = make_model(world)
    weights = write_model(tmp_path / "model.pth", model, [1, 2, 3, 4, 7])
    assert run(tmp_path, world, weights) == 2
    assert "trained with other categories" in capsys.readouterr().err
    assert run(tmp_path, world, weights, "--model", "coco_expert") == 2
    assert "not an LVIS model" in capsys.readouterr().err
    assert run(tmp_path, world, tmp_path / "gone.pth") == 2
    assert "gone.pth" in capsys.readouterr().err
    assert not (tmp_path / "samples.json").exists()
