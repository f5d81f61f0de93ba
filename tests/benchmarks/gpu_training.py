"""Training throughput and peak GPU memory at the paper's sizes, beside detectron2's own trainer.

``python -m tests.benchmarks gpu_training [--cases r50_fpn:800 x101_dcn_fpn:800 x101_dcn_fpn:1050] [--images 2]``

A case is a detector and the shorter edge of its images: 800 pixels as for tables 1 to 3; for the challenge model also
1050, the largest 4:3 image of its training (longer edge 1400). Needs a GPU; ``--device cpu`` goes through the same
steps with small cases, to try the script. One process, bf16, channels-last, random pictures with twelve polygons of
1,230 categories each, samples in memory. The baseline is detectron2's AMPTrainer on its GeneralizedRCNN around the same
backbone, with plain sigmoid loss and without gradient scaling; ours runs with the Equalization Loss and COCO Ignore on.
Times are of the wall clock with the GPU's queue emptied; the contenders take turns. The last row of a case shows what
recomputed activations save. ``inf``: out of memory.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.load import CONFIG_FOLDER, resolve_recipe
from tests.benchmarks.measure import Row, in_turns
from tests.benchmarks.training_iteration import Endless, polygon, their_detector, their_optimizer

CATEGORIES = 1230
OBJECTS = 12
PRECISION = "bf16"
CASES = [("r50_fpn", 800), ("x101_dcn_fpn", 800), ("x101_dcn_fpn", 1050)]


def recipe_for(detector: str, images: int, device: str) -> Recipe:
    """The challenge recipe with ``detector`` for its first model, and a schedule without end."""
    training = {
        "images_per_batch": images,
        "max_images_per_gpu": images,
        "activation_checkpointing": False,
        "precision": PRECISION,
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
    from pipeline_steps.modeling.activation_checkpointing import checkpoint_activations
    from pipeline_steps.modeling.build import build_detector
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
        unscaled = torch.amp.GradScaler("cuda", enabled=False)
        trainer: Any = AMPTrainer(model, Endless(batches), optimizer, grad_scaler=unscaled, precision=torch.bfloat16)
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


def _fits(function: Callable[[], float]) -> float:
    """What ``function`` returns; infinite if the GPU's memory does not suffice."""
    try:
        return function()
    except torch.OutOfMemoryError:
        return math.inf


def _peak(make: Callable[[], Callable], device: torch.device) -> float:
    """Peak MiB of tensors in three iterations of a freshly made trainer; on a CPU NaN after a single one."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    run = _finished(make(), device)
    for _ in range(3 if device.type == "cuda" else 1):
        run()
    return torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else math.nan


def rows_of(detector: str, edge: int, images: int, rounds: int, device: torch.device) -> Iterator[Row]:
    """Time and memory of one case."""
    recipe = recipe_for(detector, images, device.type)
    samples = samples_of(4 * images, edge)
    batches = [samples[start : start + images] for start in range(0, len(samples), images)]
    name = f"train {detector}, {images} images of {edge} x {edge * 4 // 3}, {PRECISION}"
    baseline = "detectron2 AMPTrainer, sigmoid"
    makers = {
        "theirs": lambda: their_rounds(recipe, batches, device),
        "ours": lambda: our_rounds(recipe, batches, device, recompute=False),
        "recomputed": lambda: our_rounds(recipe, batches, device, recompute=True),
    }
    peaks = {key: _fits(partial(_peak, make, device)) for key, make in makers.items()}
    if math.isinf(peaks["theirs"] + peaks["ours"]):
        yield Row(f"{name}: no time, out of memory", baseline, peaks["theirs"], peaks["ours"], "MiB")
    else:
        theirs, ours = (_finished(makers[key](), device) for key in ("theirs", "ours"))
        measured = in_turns(theirs, ours, [()] * rounds, clock=time.perf_counter)
        speeds = f"{images / measured.ours:.2f} images/s, detectron2 {images / measured.baseline:.2f}"
        yield measured.row(f"{name} ({speeds})", baseline)
    if device.type == "cpu":
        return
    yield Row(f"{name}: peak memory", baseline, peaks["theirs"], peaks["ours"], "MiB")
    yield Row(f"{name}: peak memory, recomputed", baseline, peaks["theirs"], peaks["recomputed"], "MiB")


def images_per_second(row: Row) -> float:
    """Images in a second of ours, as told in the name of a row of times."""
    return float(row.hot_path.split("(")[-1].split(" images/s")[0])


def case(text: str) -> tuple[str, int]:
    """Argument type for DETECTOR:EDGE."""
    detector, _, edge = text.partition(":")
    if not edge.isdigit():
        raise argparse.ArgumentTypeError(f"expected DETECTOR:EDGE, for example r50_fpn:800, got {text!r}")
    return detector, int(edge)


def main(argv: list[str]) -> list[Row]:
    """Rows of the table; none without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", type=case, default=CASES, metavar="DETECTOR:EDGE", help="what to train")
    parser.add_argument("--images", type=int, default=2, help="images of a batch")
    parser.add_argument("--rounds", type=int, default=20, help="measured iterations")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options = parser.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu_training: no GPU here, nothing measured", file=sys.stderr)
        return []
    device = torch.device(options.device)
    return [
        row
        for detector, edge in options.cases
        for row in rows_of(detector, edge, options.images, options.rounds, device)
    ]
