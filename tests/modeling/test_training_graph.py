"""One whole training step of every detector of every shipped recipe, on the modules that train on a GPU.

``nn.SyncBatchNorm`` is plain batch normalisation as long as there is no process group: the real layer runs here.
"""

from __future__ import annotations

import copy
import gc
import math
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from torch import nn

from pipeline_steps.modeling.backbones.deformable import DeformableConv2d
from pipeline_steps.modeling.build import apply_switches, build_detector, detector_config
from pipeline_steps.modeling.cpu.modules import MatrixProductMaskHead, PyramidPooler
from pipeline_steps.modeling.cpu.normalization import ProcessBatchNorm2d
from pipeline_steps.recipe.layers import merged
from pipeline_steps.recipe.load import CONFIG_FOLDER, resolve_recipe
from pipeline_steps.recipe.schema import Recipe
from pipeline_steps.recipe.testing import Testing
from pipeline_steps.training.distributed import Processes
from pipeline_steps.training.loop import Trainer
from pipeline_steps.training.schedule import split_batch
from tests.modeling.samples import CATEGORIES, sample

TAIL = torch.arange(CATEGORIES) % 3 > 0

FEWER_PROPOSALS = "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 16"
"""What is changed in the detectors, for the sake of time: 512 proposals of an image go through four convolutions."""


class Switches(NamedTuple):
    """What may differ between two trainings of one detector."""

    checkpointing: bool
    precision: str
    channels_last: bool
    box_only: bool


PLAIN = Switches(False, "fp32", False, False)
CHECKPOINTED = PLAIN._replace(checkpointing=True)
OTHERS = [
    Switches(False, "bf16", True, True),
    Switches(True, "fp32", True, True),
    Switches(True, "bf16", False, True),
    Switches(True, "bf16", True, False),
]
"""With those above, any two of the four switches occur in all their combinations."""


def distinct_detectors() -> Iterator[tuple[str, str, bool]]:
    """(recipe, model, whether it is the first of its detector file) of all detectors that differ in training."""
    seen: set[str] = set()
    files: set[str] = set()
    for path in sorted(CONFIG_FOLDER.glob("*.yaml")):
        recipe = resolve_recipe({"extends": path.name}, CONFIG_FOLDER).model_copy(update={"testing": Testing()})
        for model in (*recipe.models, *recipe.pretraining, *recipe.experts):
            text = detector_config(recipe, model.name, CATEGORIES).dump()
            if text not in seen:
                yield path.name, model.name, model.detector not in files
            seen.add(text)
            files.add(model.detector)


DETECTORS = list(distinct_detectors())


class OneStep(Trainer):
    """Keeps the losses of its only step."""

    losses: dict[str, float]

    def _forward_backward(self, samples: list[dict[str, Any]], last: bool) -> dict[str, float]:
        self.losses = super()._forward_backward(samples, last)
        return self.losses


class Outcome(NamedTuple):
    """What is compared of a step; the model itself is dropped."""

    losses: dict[str, float]
    gradients: dict[str, torch.Tensor | None]
    batched: bool


def recipe_of(file: str, name: str) -> Recipe:
    """A shipped recipe, with standard modules and one iteration of two images for the model ``name``."""
    recipe = resolve_recipe({"extends": file}, CONFIG_FOLDER)
    model = recipe.model(name)
    changes = {
        "images_per_batch": 2,
        "max_images_per_gpu": 2,
        "schedule": {"images": 2, "warmup_images": 0, "learning_rate": 1e-3},
        "precision": "fp32",
        "channels_last": False,
        "detector_options": [*recipe.training_of(model).detector_options, FEWER_PROPOSALS],
    }
    changed = model.model_copy(update={"training": merged(model.training, changes)})
    lists = {
        key: [changed if entry.name == name else entry for entry in getattr(recipe, key)]
        for key in ("models", "pretraining", "experts")
    }
    compute = recipe.compute.model_copy(update={"fast_cpu_modules": False})
    return recipe.model_copy(update={**lists, "compute": compute})


@cache
def built(file: str, name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_detector(recipe_of(file, name), name, CATEGORIES, TAIL)


def batch(box_only: bool) -> list[dict[str, Any]]:
    """Two images, one or both without masks, the second as those of OpenImages are."""
    known = torch.ones(CATEGORIES, dtype=torch.bool)
    known[:2] = False
    regions = {
        "region_boxes": torch.tensor([[4.0, 4, 40, 40], [20, 8, 60, 50]]),
        "region_weights": torch.tensor([0, 0.5]),
    }
    return [
        sample(0, size=64, objects=3, has_masks=not box_only, sampling_seed=1),
        sample(1, size=64, objects=4, has_masks=False, sampling_seed=2, known=known, **regions),
    ]


def train_one_step(file: str, name: str, switches: Switches, fast: bool = False, batched: bool = False) -> Outcome:
    """Train a copy of the detector, and check losses, gradients and weights."""
    recipe = recipe_of(file, name)
    keys = {"activation_checkpointing": switches.checkpointing}
    keys |= {"precision": switches.precision, "channels_last": switches.channels_last}
    training = recipe.training_of(recipe.model(name)).model_copy(update=keys)
    gc.collect()  # a checkpointed model is part of a cycle, and large
    model = copy.deepcopy(built(file, name))
    compute = {"fast_cpu_modules": fast, "deformable_convolution": "batched" if batched else "torchvision"}
    apply_switches(model, training, recipe.compute.model_copy(update=compute))
    assert all(layer.batched == batched for layer in model.modules() if isinstance(layer, DeformableConv2d))
    kinds = {type(module) for module in model.modules()}
    standard, replacements = {ROIPooler, MaskRCNNConvUpsampleHead}, {PyramidPooler, MatrixProductMaskHead}
    assert kinds >= (replacements if fast else standard)
    assert kinds.isdisjoint({*standard, nn.SyncBatchNorm} if fast else {*replacements, ProcessBatchNorm2d})
    trainer = OneStep(model, training, split_batch(2, 2, 1), Processes(0, 1, 0, torch.device("cpu")))
    assert trainer.run(iter([batch(switches.box_only)]), None, lambda: None, lambda: False)
    trainer.check_finite()
    trainer.optimizer.state.clear()  # the momentum is as large as the model
    assert set(trainer.losses) == {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"}
    assert all(math.isfinite(loss) for loss in trainer.losses.values()), trainer.losses
    gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
    for key, parameter in model.named_parameters():
        gradient = gradients[key]
        assert (gradient is not None) == parameter.requires_grad, key
        assert gradient is None or gradient.isfinite().all(), key
    of_mask_head = [gradient for key, gradient in gradients.items() if ".mask_head." in key]
    assert of_mask_head
    assert any(gradient.any() for gradient in of_mask_head) != switches.box_only
    return Outcome(trainer.losses, gradients, batched)


def assert_fast_equals_standard(fast: Outcome, standard: Outcome) -> None:
    """Pooling gives the same bits; mask head and gradients are summed in another order.

    Deformable convolutions are, too, and 150 layers that normalise few values make much of it (5 % seen): each of
    them is compared in float64 elsewhere.
    """
    assert fast.losses == pytest.approx(standard.losses, rel=1e-4)
    for name, gradient in fast.gradients.items():
        if gradient is not None:
            expected = standard.gradients[name]
            difference = (gradient - expected).norm() / expected.norm().clamp(min=1e-6)
            assert difference < (0.15 if fast.batched else 1e-3), name


@pytest.mark.parametrize(("file", "name"), [entry[:2] for entry in DETECTORS if not entry[2]])
def test_a_training_step_of_every_detector_as_its_recipe_has_it(file, name):
    recipe = resolve_recipe({"extends": file}, CONFIG_FOLDER)
    training = recipe.training_of(recipe.model(name))
    switches = Switches(training.activation_checkpointing, training.precision, training.channels_last, False)
    train_one_step(file, name, switches, recipe.compute.fast_cpu_modules)
    built.cache_clear()


@pytest.mark.parametrize(("file", "name"), [entry[:2] for entry in DETECTORS if entry[2]])
def test_a_training_step_of_every_detector_file_with_all_pairs_of_switches(file, name):
    plain = train_one_step(file, name, PLAIN)
    assert_fast_equals_standard(train_one_step(file, name, PLAIN, fast=True), plain)
    assert_fast_equals_standard(train_one_step(file, name, CHECKPOINTED, fast=True, batched=True), plain)
    checkpointed = train_one_step(file, name, CHECKPOINTED)
    assert checkpointed.losses == plain.losses
    for key, gradient in checkpointed.gradients.items():
        assert gradient is None or torch.equal(gradient, plain.gradients[key]), key
    del plain, checkpointed, gradient
    for switches in OTHERS:
        train_one_step(file, name, switches)
    built.cache_clear()
