"""Detectors and batches of the tests on a GPU, and what shrinks them so that the same tests run on a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pipeline_steps.modeling.build import build_detector
from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.load import resolve_recipe
from pipeline_steps.training.distributed import Processes
from pipeline_steps.training.loop import Trainer
from pipeline_steps.training.schedule import split_batch
from tests.benchmarks.gpu_training import CATEGORIES, samples_of

MEASURED: list[str] = []
"""What the tests found out on the way; told at the end of ``make gpu``."""

NARROW = [
    "MODEL.RESNETS.DEPTH 50",
    "MODEL.RESNETS.NUM_GROUPS 8",
    "MODEL.RESNETS.WIDTH_PER_GROUP 2",
    "MODEL.RESNETS.RES2_OUT_CHANNELS 32",
    "MODEL.FPN.OUT_CHANNELS 32",
    "MODEL.ROI_BOX_HEAD.FC_DIM 64",
    "MODEL.ROI_BOX_HEAD.CONV_DIM 16",
    "MODEL.ROI_MASK_HEAD.CONV_DIM 16",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 16",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN 50",
]
"""Options that make the X101 of the challenge small, with all its kinds of layers."""


@dataclass(frozen=True)
class Size:
    """What a test is run at."""

    device: torch.device
    options: tuple[str, ...]
    edges: tuple[int, ...]
    iterations: int

    @property
    def on_gpu(self) -> bool:
        """Whether this is the real thing."""
        return self.device.type == "cuda"


def size_on(device: str) -> Size:
    """The real sizes on a GPU: 4:3 images with shorter edges up to 1050 (longer edge 1400); tiny ones on a CPU."""
    if device == "cuda":
        return Size(torch.device("cuda"), (), (1050, 400, 608, 800, 1050), 10)
    return Size(torch.device("cpu"), tuple(NARROW), (96, 64), 2)


def challenge_recipe(size: Size, **training: Any) -> Recipe:
    """config/challenge.yaml itself, with two images in a batch and a small learning rate for random weights."""
    settings = {
        "images_per_batch": 2,
        "max_images_per_gpu": 2,
        "schedule": {"images": 10**6, "learning_rate": 1e-4},
        "detector_options": list(size.options),
        "log_images": 10**9,
        "checkpoint_images": 10**9,
        **training,
    }
    return resolve_recipe({"extends": "challenge.yaml", "training": settings, "compute": {"device": size.device.type}})


def batch(edge: int, images: int = 2, seed: int = 0, box_only: bool = True) -> list[dict[str, Any]]:
    """Random pictures of 4:3 with twelve objects each; the last one has no masks, as those of OpenImages."""
    samples = samples_of(images, edge)
    for number, sample in enumerate(samples):
        sample["sampling_seed"] = seed + number
    if box_only:
        samples[-1]["instances"].remove("gt_masks")
        samples[-1]["has_masks"] = False
    return samples


def trainer_of(recipe: Recipe, name: str, size: Size, seed: int = 0) -> Trainer:
    """A trainer of a model of the recipe with random weights."""
    torch.manual_seed(seed)
    model = build_detector(recipe, name, CATEGORIES, torch.arange(CATEGORIES) % 4 > 0, size.device)
    training = recipe.training_of(recipe.model(name))
    processes = Processes(0, 1, 0, size.device)
    return Trainer(model, training, split_batch(training.images_per_batch, training.max_images_per_gpu, 1), processes)


def train(trainer: Trainer, batches: list[list[dict[str, Any]]]) -> list[dict[str, float]]:
    """Train one iteration on each batch; the mean losses of each."""
    losses = []
    for samples in batches:
        trainer.iterations = trainer.iteration + 1
        told: list[dict[str, float]] = []

        class Report:
            def write(self, _iteration: int, _images: int, values: dict[str, float], _peak: float) -> None:
                told.append(values)  # noqa: B023

        trainer.run(iter([samples]), Report(), lambda: None, lambda: False)
        losses.append({name: value for name, value in told[0].items() if name.startswith("loss_")})
    return losses
