"""Numbers of traced detectors by what decides them: shipped with the code, or made by the step ``estimate``.

Planning must not import torch, so that it reads numbers here that :mod:`pipeline_steps.estimates.tracing` has made:
``traces.json`` beside this module for the detectors of config/, and ``results/traces.json`` for others. The key of a
trace is the content of the detector file and of those it inherits from, its options, and the sizes; the version of
torch is not part of it. After a change of the networks themselves: ``python -m pipeline_steps.estimate --shipped`` (a
test traces some of them again).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeline_steps.common.atomic import write_json
from pipeline_steps.estimates.request import Purpose, Request
from pipeline_steps.estimates.sizes import area, category_count, largest, padded
from pipeline_steps.recipe.detectors import detector_files
from pipeline_steps.recipe.schema import Recipe
from pipeline_steps.recipe.training import Model
from pipeline_steps.training.schedule import split_batch

SHIPPED = Path(__file__).with_name("traces.json")


@dataclass(frozen=True)
class Trace:
    """FLOPs and memory as straight lines over the pixels of an image (height times width, padded)."""

    pixels: tuple[int, int]  # of the smaller and of the larger image that were traced
    flops: Mapping[str, tuple[float, float]]  # by kind, at both sizes, of all images of the step
    peak_bytes: tuple[float, float]  # at both sizes
    weight_bytes: int  # parameters and buffers
    trained_bytes: int  # parameters that are trained

    def _at(self, values: tuple[float, float], pixels: float) -> float:
        low, high = self.pixels
        return values[0] + (values[1] - values[0]) * (pixels - low) / (high - low)

    def flops_at(self, pixels: float) -> dict[str, float]:
        """FLOPs of a step with images of so many pixels."""
        return {kind: self._at(values, pixels) for kind, values in self.flops.items()}

    def peak_at(self, pixels: float) -> float:
        """Bytes at the peak of a step with images of so many pixels."""
        return self._at(self.peak_bytes, pixels)


@cache
def _digest(files: tuple[str, ...]) -> str:
    content = b"\0".join(Path(file).read_bytes() for file in files)
    return hashlib.sha256(content).hexdigest()[:16]


def images_per_gpu(recipe: Recipe, model: Model) -> int:
    """Images that a training step of ``model`` puts on one GPU."""
    training, compute = recipe.training_of(model), recipe.compute
    processes = max(1, compute.training_gpus * compute.training_nodes)
    return split_batch(training.images_per_batch, training.max_images_per_gpu, processes).images_per_step


def request(recipe: Recipe, name: str, purpose: Purpose, images: int | None = None) -> Request:
    """What decides the numbers of a model for a purpose; ``images`` at once on a GPU, those of the recipe if not given.

    Raises:
        UserError: its detector file is missing, or the GPUs do not divide its batch.
    """
    model = recipe.model(name)
    training, testing = recipe.training_of(model), recipe.testing
    train = purpose == "train"
    limits = training.augmentation if train else testing
    edges = {"train": training.augmentation.shorter_edge, "boxes": testing.box_scales, "masks": testing.mask_scales}
    return Request(
        detector=_digest(tuple(detector_files(recipe, name))),
        options=tuple(training.detector_options),
        categories=category_count(recipe, model),
        purpose=purpose,
        images=images or (images_per_gpu(recipe, model) if train else testing.batch_images),
        size=largest(max(edges[purpose]), limits.longer_edge),
        precision=training.precision if train else recipe.test_precision(name),
        checkpointing=train and training.activation_checkpointing,
        proposals=testing.proposals if purpose == "boxes" else 0,
    )


def _read(path: Path) -> dict[str, Trace]:
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {
        key: Trace(
            (item["pixels"][0], item["pixels"][1]),
            {kind: (values[0], values[1]) for kind, values in item["flops"].items()},
            (item["peak_bytes"][0], item["peak_bytes"][1]),
            item["weight_bytes"],
            item["trained_bytes"],
        )
        for key, item in content.items()
    }


def known_traces(own: Path | None = None) -> dict[str, Trace]:
    """All traces by key: the shipped ones and those of the file ``own``."""
    return _read(SHIPPED) | (_read(own) if own else {})


def make_trace(recipe: Recipe, name: str, wanted: Request) -> Trace:
    """Trace a model at its largest size and at half of it (imports torch; 5 to 15 seconds)."""
    from pipeline_steps.estimates.tracing import trace_training, trace_view

    # A second size to draw a line through: everything but a constant grows with the pixels.
    sizes = (padded(wanted.size[0] / 2), padded(wanted.size[1] / 2)), wanted.size
    trace = trace_training if wanted.purpose == "train" else trace_view
    low, high = (trace(recipe, name, wanted, size) for size in sizes)
    return Trace(
        (area(sizes[0]), area(sizes[1])),
        {kind: (low.flops.get(kind, 0), value) for kind, value in high.flops.items()},
        (low.peak_bytes, high.peak_bytes),
        high.weight_bytes,
        high.trained_bytes,
    )


def write_traces(path: Path, traces: Mapping[str, Trace]) -> None:
    """Write traces to a file, sorted by key."""
    write_json(path, {key: asdict(traces[key]) for key in sorted(traces)}, indent=1)
