"""Detectors on fake tensors: against real training steps, against published figures, and the shipped numbers anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline_steps.estimates.accounting import Accountant
from pipeline_steps.estimates.traces import known_traces, make_trace, request
from pipeline_steps.estimates.tracing import give_memory, skeleton, trace_training, training_loss
from pipeline_steps.recipe import load_recipe
from pipeline_steps.recipe.load import resolve_recipe
from pipeline_steps.training.optimizer import build_optimizer

CONFIG = Path(__file__).parents[2] / "config"


def one_model(detector="r50_fpn", options=(), **training):
    return resolve_recipe(
        {
            "extends": "challenge.yaml",
            "training": {"detector_options": list(options), **training},
            "pretraining": [],
            "experts": [],
            "models": [{"name": "m", "detector": f"config/detectors/{detector}.yaml", "init": "imagenet_x101"}],
            "ensemble": {"members": [{"name": "m"}]},
        }
    )


@pytest.mark.parametrize(
    ("name", "path", "purpose"),
    [("basic", "mini.yaml", "boxes"), ("x101", "challenge.yaml", "train")],
    ids=["mini, a view", "x101, a training step"],
)
def test_the_shipped_numbers_are_those_of_the_present_networks(name, path, purpose):
    """If this fails after a change of the networks: python -m pipeline_steps.estimate --shipped."""
    recipe = load_recipe(CONFIG / path)
    wanted = request(recipe, name, purpose)
    shipped, now = known_traces()[wanted.key], make_trace(recipe, name, wanted)
    assert now.weight_bytes == shipped.weight_bytes
    assert now.trained_bytes == shipped.trained_bytes
    assert now.flops.keys() == shipped.flops.keys()
    for kind, values in shipped.flops.items():
        assert now.flops[kind] == pytest.approx(values, rel=1e-6)
    # What is saved for the backward pass may differ a little between versions of torch.
    assert now.peak_bytes == pytest.approx(shipped.peak_bytes, rel=0.05)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_fake_step_takes_what_the_same_step_takes_on_real_tensors(checkpointing):
    """The mini detector, computed: equal FLOPs, and a peak within a few percent."""
    recipe = load_recipe(CONFIG / "mini.yaml")
    recipe = resolve_recipe(
        {**recipe.model_dump(), "training": {**recipe.training.model_dump(), "activation_checkpointing": checkpointing}}
    )
    wanted = request(recipe, "basic", "train")
    fake = trace_training(recipe, "basic", wanted, (128, 160))

    def step():
        model = skeleton(recipe, "basic", wanted.categories)
        give_memory(model, "cpu")
        with torch.no_grad():
            for tensor in [*model.parameters(), *model.buffers()]:
                tensor.zero_()
        optimizer = build_optimizer(model, recipe.training.schedule)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        with torch.autocast("cpu", torch.bfloat16):
            loss = training_loss(model, torch.zeros(wanted.images, 3, 128, 160))
        loss.backward()

    with Accountant() as real:
        step()
    assert real.flops == fake.flops
    assert real.peak == pytest.approx(fake.peak_bytes, rel=0.05)


@pytest.mark.parametrize(
    ("options", "published", "parameters"),
    [
        ([], 3.4, 44.4e6),
        (["MODEL.RESNETS.DEPTH 101", "MODEL.RESNETS.NUM_GROUPS 32", "MODEL.RESNETS.WIDTH_PER_GROUP 8"], 7.2, 107e6),
    ],
    ids=["R50-FPN", "X101-32x8d-FPN"],
)
def test_memory_is_near_what_detectron2_publishes(options, published, parameters):
    """Mask R-CNN of the model zoo, fp32, two images of up to 800 x 1344 pixels; its trainer holds each gradient
    twice."""
    recipe = one_model(options=options, precision="fp32", augmentation={"shorter_edge": [800], "longer_edge": 1333})
    account = trace_training(recipe, "m", request(recipe, "m", "train"), (800, 1344))
    gib = (account.peak_bytes + 4 * parameters) / 2**30
    assert 0.85 * published < gib < 1.05 * published


def test_recomputed_activations_take_less_memory_and_more_arithmetic():
    size = (512, 672)
    plain, recomputed = (one_model(detector="x101_fpn", activation_checkpointing=on) for on in (False, True))
    wanted = request(plain, "m", "train")
    of_plain, of_recomputed = (trace_training(recipe, "m", wanted, size) for recipe in (plain, recomputed))
    held = 3 * of_plain.trained_bytes  # weights, gradients, momentum
    assert of_recomputed.peak_bytes - held < 0.6 * (of_plain.peak_bytes - held)
    assert of_plain.flops["dense"] < of_recomputed.flops["dense"] < 4 / 3 * of_plain.flops["dense"]
    assert of_recomputed.weight_bytes == of_plain.weight_bytes


def test_fake_tensors_hold_the_same_on_a_gpu():
    """The forward pass on fake CUDA tensors, where torch chooses other kernels, saves the same activations."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    def held(device):
        options = ["MODEL.RESNETS.NORM SyncBN", "MODEL.RESNETS.DEFORM_ON_PER_STAGE [False,True,True,True]"]
        model = skeleton(one_model(options=options), "m", 80)
        with FakeTensorMode(allow_non_fake_inputs=True), Accountant() as accountant:
            give_memory(model, device)
            pixels = torch.empty(2, 3, 160, 224, device=device)
            # torch.autocast itself refuses a device that is not there.
            torch.set_autocast_dtype(device, torch.bfloat16)
            torch.set_autocast_enabled(device, True)
            try:
                features = model.backbone(pixels)
            finally:
                torch.set_autocast_enabled(device, False)
                torch.clear_autocast_cache()
            assert {level.dtype for level in features.values()} == {torch.bfloat16}
            return accountant.held

    assert held("cuda") == pytest.approx(held("cpu"), rel=0.005)
