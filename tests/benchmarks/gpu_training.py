"""Training throughput and peak GPU memory at the report's sizes, beside detectron2's own trainer.

``python -m tests.benchmarks gpu_training [--detectors r50_fpn x101_dcn_fpn] [--images 2] [--edge 800] [--rounds 20]``

Needs a GPU (``--device cpu`` exists to try the script with small settings). One process, bf16, channels-last, random
pictures of ``edge`` x 4/3 ``edge`` pixels with twelve polygons of 1,230 categories each, samples in memory. The
baseline is detectron2's AMPTrainer on its GeneralizedRCNN around the same backbone, with plain sigmoid loss; ours runs
with the Equalization Loss and COCO Ignore on. Times are of the wall clock with the GPU's queue emptied; the contenders
take turns. A third row shows what recomputed activations save.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.load import CONFIG_FOLDER, resolve_recipe
from tests.benchmarks.measure import Row, in_turns
from tests.benchmarks.training_iteration import Endless, polygon, their_detector, their_optimizer

CATEGORIES = 1230
OBJECTS = 12


def recipe_for(detector: str, images: int, device: str) -> Recipe:
    """The challenge recipe with ``detector`` for its first model, and a schedule without end."""
    training = {
        "images_per_batch": images,
        "max_images_per_gpu": images,
        "activation_checkpointing": False,
        "schedule": {"images": 10**9, "learning_rate": 1e-4},
        "log_images": 10**9,
        "checkpoint_images": 10**9,
    }
    model = {"name": "x101", "detector": f"config/detectors/{detector}.yaml", "datasets": ["lvis_train"]}
    values = {
        "extends": "challenge.yaml",
        "training": training,
        "models": [model],
        "ensemble": {"members": [{"name": "x101"}]},
        "compute": {"device": device},
    }
    return resolve_recipe(values, CONFIG_FOLDER)


def samples_of(count: int, edge: int) -> list[dict[str, Any]]:
    """Random pictures with polygons, as the mapper makes them."""
    from detectron2.structures import Boxes, Instances, PolygonMasks

    generator = np.random.default_rng(0)
    width = edge * 4 // 3
    samples = []
    for number in range(count):
        drawn = [polygon(generator, width, edge) for _ in range(OBJECTS)]
        boxes = torch.tensor([[x, y, x + w, y + h] for _, (x, y, w, h) in drawn])
        instances = Instances((edge, width), gt_boxes=Boxes(boxes))
        instances.gt_classes = torch.from_numpy(generator.integers(0, CATEGORIES, OBJECTS))
        instances.gt_masks = PolygonMasks([[np.array(outline)] for outline, _ in drawn])
        pixels = generator.integers(0, 255, (edge, width, 3), dtype=np.uint8)
        samples.append(
            {
                "image": torch.from_numpy(pixels).permute(2, 0, 1),
                "height": edge,
                "width": width,
                "image_id": number,
                "file_name": f"{number}.jpg",
                "sampling_seed": number,
                "has_masks": True,
                "instances": instances,
                "judged": torch.from_numpy(generator.random(CATEGORIES) < 0.02),
                "known": torch.ones(CATEGORIES, dtype=torch.bool),
                "region_boxes": boxes[:4] + 5,
                "region_weights": torch.full((4,), 0.5),
            }
        )
    return samples


def our_rounds(recipe: Recipe, batches: list[list[dict[str, Any]]], device: torch.device, recompute: bool) -> Callable:
    """A function that trains one iteration with our trainer."""
    from pipeline_steps.modeling.build import build_detector
    from pipeline_steps.modeling.recompute import checkpoint_activations
    from pipeline_steps.training.distributed import Processes
    from pipeline_steps.training.loop import Trainer
    from pipeline_steps.training.schedule import split_batch

    model = build_detector(recipe, "x101", CATEGORIES, torch.rand(CATEGORIES) < 0.74, device)
    if recompute:
        checkpoint_activations(model.backbone.bottom_up)
    training = recipe.training_of(recipe.model("x101"))
    size = training.images_per_batch
    trainer = Trainer(model, training, split_batch(size, size, 1), Processes(0, 1, 0, device))
    endless = iter(Endless(batches))

    def run() -> None:
        trainer.iterations = trainer.iteration + 1
        trainer.run(endless, None, lambda: None, lambda: False)

    return run


def their_rounds(recipe: Recipe, batches: list[list[dict[str, Any]]], device: torch.device) -> Callable:
    """A function that trains one iteration with detectron2's trainer."""
    from detectron2.engine import AMPTrainer, SimpleTrainer
    from detectron2.utils.events import EventStorage

    model = their_detector(recipe, "x101", CATEGORIES, str(device))
    optimizer = their_optimizer(model, recipe.training_of(recipe.model("x101")))
    if device.type == "cuda":
        trainer: Any = AMPTrainer(model, Endless(batches), optimizer, precision=torch.bfloat16)
    else:
        trainer = SimpleTrainer(model, Endless(batches), optimizer)
    trainer.iter = 0

    def run() -> None:
        with EventStorage(trainer.iter) as storage, _autocast(device):
            trainer.storage = storage
            trainer.run_step()
        trainer.iter += 1

    return run


def _autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16)


def _finished(function: Callable, device: torch.device) -> Callable:
    """``function`` until its work on the GPU is done."""

    def run() -> None:
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run


def _peak(make: Callable[[], Callable]) -> float:
    """Peak MiB of three iterations of a freshly made trainer."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run = make()
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**20


def rows_of(detector: str, images: int, edge: int, rounds: int, device: torch.device) -> Iterator[Row]:
    """Time and memory of one detector."""
    recipe = recipe_for(detector, images, device.type)
    samples = samples_of(4 * images, edge)
    batches = [samples[start : start + images] for start in range(0, len(samples), images)]
    name = f"{detector}, {images} images of {edge} x {edge * 4 // 3}"
    makers = {
        "theirs": lambda: their_rounds(recipe, batches, device),
        "ours": lambda: our_rounds(recipe, batches, device, recompute=False),
        "recomputed": lambda: our_rounds(recipe, batches, device, recompute=True),
    }
    peaks = {key: _peak(make) for key, make in makers.items()} if device.type == "cuda" else {}
    theirs, ours = (_finished(makers[key](), device) for key in ("theirs", "ours"))
    measured = in_turns(theirs, ours, [()] * rounds, clock=time.perf_counter)
    yield measured.row(f"train {name} ({images / measured.ours:.1f} images/s)", "detectron2 AMPTrainer, sigmoid")
    if peaks:
        baseline = ("detectron2 AMPTrainer, sigmoid", peaks["theirs"])
        yield Row(f"train {name}", *baseline, peaks["ours"], "MiB")
        yield Row(f"train {name}, recomputed", *baseline, peaks["recomputed"], "MiB")


def main(argv: list[str]) -> list[Row]:
    """Rows of the table; none without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--detectors", nargs="+", default=["r50_fpn", "x101_dcn_fpn"], help="config/detectors/<name>.yaml"
    )
    parser.add_argument("--images", type=int, default=2, help="images of a batch")
    parser.add_argument("--edge", type=int, default=800, help="shorter edge in pixels")
    parser.add_argument("--rounds", type=int, default=20, help="measured iterations")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options = parser.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu_training: no GPU here, nothing measured", file=sys.stderr)
        return []
    device = torch.device(options.device)
    return [
        row
        for detector in options.detectors
        for row in rows_of(detector, options.images, options.edge, options.rounds, device)
    ]
