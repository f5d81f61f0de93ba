"""What a recipe takes, stage by stage, before anything has run: FLOPs, GPU memory, files, GPU hours, disk.

``recipe_estimate(recipe, results)`` is the entry; it reads recipe, detector files and traces only, in milliseconds, and
imports neither torch nor detectron2. ``one_line(estimate)`` and ``table_lines(estimate)`` put it into words;
``require_memory(recipe, estimate)`` refuses what ``compute.gpu_memory_gb`` cannot hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.recipe.schema import Recipe
from pipeline_steps.recipe.variants import boxes_folder, with_variants
from pipeline_steps.run.cards import CARDS, assumption, gpu_seconds
from pipeline_steps.run.disk import KEPT_CHECKPOINTS, Disk, data_bytes, table_bytes
from pipeline_steps.run.sizes import area, largest, split_images, test_sizes, training_pixels, training_sizes
from pipeline_steps.run.traces import Purpose, Request, Trace, images_per_gpu, known_traces, request

GIB = 2**30
MEMORY_FACTOR, MEMORY_RESERVE = 1.15, 1 * GIB
"""What a GPU must have beyond the tensors that are counted: buffers inside kernels, and CUDA itself. Counted as here,
detectron2's Mask R-CNN with R50, R101 and X101-32x8d at two images of 800 x 1344 takes 2.9, 3.9 and 6.2 GiB; its
model zoo states 3.4, 4.6 and 7.2 GB as measured, with the second copy of the gradients that its
DistributedDataParallel has (0.2, 0.2, 0.4 GB)."""


@dataclass(frozen=True)
class Job:
    """One training, or the testing of one model on one split. Numbers are None where the model is not traced yet.

    Attributes:
        stage: ``COCO pre-training``, ``LVIS fine-tuning``, ``experts``, ``box testing``, ``mask testing`` or
            ``variants for tables``.
        name: the model, or the ensemble.
        output: its result, relative to the recipe's.
        images: images trained on, or tested.
        precision: of the arithmetic.
        flops: by kind, all images together.
        memory: bytes of one GPU at the peak, at the largest 4:3 image.
        largest_memory: the same at the largest image of any aspect.
        model_bytes: the final model file.
        checkpoint_bytes: one checkpoint.
    """

    stage: str
    name: str
    output: str
    images: int
    precision: str
    flops: dict[str, float] | None = None
    memory: float | None = None
    largest_memory: float | None = None
    model_bytes: int | None = None
    checkpoint_bytes: int | None = None

    @property
    def known(self) -> bool:
        """Whether the numbers are known."""
        return self.flops is not None

    @property
    def total_flops(self) -> float:
        """FLOPs of all kinds; 0 if unknown."""
        return sum((self.flops or {}).values())

    @property
    def needed(self) -> float:
        """Bytes that a GPU must have for it; 0 if unknown."""
        return 0.0 if self.largest_memory is None else self.largest_memory * MEMORY_FACTOR + MEMORY_RESERVE

    def hours(self, card: str) -> float:
        """GPU hours on a card of :data:`pipeline_steps.run.cards.CARDS`; 0 if unknown."""
        return gpu_seconds(self.flops or {}, card, self.precision) / 3600


@dataclass(frozen=True)
class RecipeEstimate:
    """A recipe's jobs and disk.

    Attributes:
        jobs: all jobs that use a GPU.
        done: outputs that exist already.
        unknown: requests of models that are not traced yet, with the models' names.
        disk: bytes of disk.
        on_gpus: whether the recipe uses GPUs at all.
    """

    jobs: tuple[Job, ...]
    done: frozenset[str]
    unknown: dict[Request, str]
    disk: Disk
    on_gpus: bool

    @property
    def total_flops(self) -> float:
        """FLOPs of all jobs that are known."""
        return sum(job.total_flops for job in self.jobs)

    @property
    def memory_gb(self) -> float:
        """GiB that a GPU must have for every job."""
        return max((job.needed for job in self.jobs), default=0.0) / GIB

    def hours(self, card: str, missing_only: bool = False) -> float:
        """GPU hours of all jobs, or of those whose output is not there yet."""
        return sum(job.hours(card) for job in self.jobs if not (missing_only and job.output in self.done))


@dataclass
class _Estimator:
    recipe: Recipe
    traces: dict[str, Trace]
    unknown: dict[Request, str] = field(default_factory=dict)

    def trace(self, name: str, purpose: Purpose) -> Trace | None:
        wanted = request(self.recipe, name, purpose)
        found = self.traces.get(wanted.key)
        if found is None:
            self.unknown.setdefault(wanted, name)
        return found

    def training(self, stage: str, folder: str, name: str) -> Job:
        model = self.recipe.model(name)
        training = self.recipe.training_of(model)
        images, edges = images_per_gpu(self.recipe, model), training.augmentation
        output = f"{folder}/{name}/model.pth"
        job = Job(stage, name, output, training.schedule.images, training.precision)
        trace = self.trace(name, "train")
        if trace is None:
            return job
        of_step = trace.flops_at(training_pixels(edges, images))
        return Job(
            *(stage, name, output, job.images, job.precision),
            flops={kind: value * job.images / images for kind, value in of_step.items()},
            memory=trace.peak_at(area(training_sizes(edges)[-1])),
            largest_memory=trace.peak_at(area(largest(max(edges.shorter_edge), edges.longer_edge))),
            model_bytes=trace.weight_bytes,
            checkpoint_bytes=trace.weight_bytes + trace.trained_bytes,
        )

    def testing(self, stage: str, name: str, output: str, images: int, models: list[str], purpose: Purpose) -> Job:
        """Testing of ``images`` images with all of ``models``."""
        testing = self.recipe.testing
        sizes = test_sizes(testing.box_scales if purpose == "boxes" else testing.mask_scales, testing)
        precision = self.recipe.test_precision(models[0])
        job = Job(stage, name, output, images, precision)
        traces = [self.trace(model, purpose) for model in models]
        flops: dict[str, float] = {}
        for trace in traces:
            if trace is None:
                return job
            for size in sizes:
                for kind, value in trace.flops_at(area(size)).items():
                    flops[kind] = flops.get(kind, 0.0) + value * images / testing.batch_images
        known = [trace for trace in traces if trace is not None]
        return Job(
            *(stage, name, output, images, precision),
            flops=flops,
            # The models of one image's masks are all on the GPU, and work one after the other.
            memory=max(trace.peak_at(area(sizes[-1])) for trace in known) + _others(known),
            largest_memory=max(trace.peak_bytes[1] for trace in known) + _others(known),
        )


def _others(traces: list[Trace]) -> int:
    weights = [trace.weight_bytes for trace in traces]
    return sum(weights) - max(weights)


def _jobs(estimator: _Estimator) -> Iterator[Job]:
    recipe = estimator.recipe
    for stage, folder, models in (
        ("COCO pre-training", "pretrain", recipe.pretraining),
        ("LVIS fine-tuning", "finetune", recipe.models),
        ("experts", "experts", recipe.experts),
    ):
        for model in models:
            yield estimator.training(stage, folder, model.name)
    images = split_images(recipe)
    members = dict.fromkeys([m.name for m in recipe.models] + [member.name for member in recipe.ensemble.members])
    for split, count in images.items():
        for name in members:
            output = f"predictions/{split}/{name}/boxes.parquet"
            yield estimator.testing("box testing", name, output, count, [name], "boxes")
    for model in recipe.models:
        output = f"predictions/val/{model.name}/detections.parquet"
        yield estimator.testing("mask testing", model.name, output, images["val"], [model.name], "masks")
    for split, count in images.items():
        output = f"ensemble/{split}/detections.parquet"
        yield estimator.testing("mask testing", "ensemble", output, count, recipe.mask_models(), "masks")


def _variant_jobs(recipe: Recipe, estimators: dict[str, _Estimator]) -> Iterator[Job]:
    """Jobs of the tables' variants on val; boxes that are shared with the recipe, or each other, come once."""
    recipes = with_variants(recipe)
    images = split_images(recipe)["val"]
    seen = set()
    for folder, variant in list(recipes.items())[1:]:
        estimator = estimators[folder]
        shared = boxes_folder(recipes, folder)
        for member in variant.ensemble.members if shared else ():
            output = f"{shared}predictions/val/{member.name}/boxes.parquet"
            if output not in seen:
                seen.add(output)
                yield estimator.testing("variants for tables", member.name, output, images, [member.name], "boxes")
        output = f"{folder}ensemble/val/detections.parquet"
        name = folder.removeprefix("variants/").rstrip("/")
        yield estimator.testing("variants for tables", name, output, images, variant.mask_models(), "masks")


def own_traces(results: str | Path) -> Path:
    """Where the step ``estimate`` keeps the traces that are not shipped: beside the folders of all recipes' results."""
    return Path(results).parent / "traces.json"


def recipe_estimate(
    recipe: Recipe,
    results: str | Path,
    exists: Callable[[str], bool] | None = None,
    traces: dict[str, Trace] | None = None,
) -> RecipeEstimate:
    """What a recipe takes.

    Args:
        recipe: the recipe.
        results: its folder of results, ``results/<name>``.
        exists: whether an output, named relative to ``results``, is there; looked up on the disk if not given.
        traces: numbers of the detectors; those that are shipped or kept by the step ``estimate`` if not given.

    Raises:
        UserError: a detector file is missing, or the GPUs do not divide the batch.
    """
    traces = known_traces(own_traces(results)) if traces is None else traces
    there = exists or (lambda output: Path(results, output).exists())
    recipes = with_variants(recipe)
    estimators = {folder: _Estimator(own, traces) for folder, own in recipes.items()}
    jobs = (*_jobs(estimators[""]), *_variant_jobs(recipe, estimators))
    unknown = {wanted: name for estimator in estimators.values() for wanted, name in estimator.unknown.items()}
    data, unpacking = data_bytes(recipe)
    disk = Disk(
        data,
        unpacking,
        sum((job.checkpoint_bytes or 0) * KEPT_CHECKPOINTS for job in jobs),
        table_bytes(recipe) + sum(job.model_bytes or 0 for job in jobs),
    )
    compute = recipe.compute
    on_gpus = compute.device != "cpu" and bool(compute.training_gpus or compute.inference_gpus)
    return RecipeEstimate(jobs, frozenset(job.output for job in jobs if there(job.output)), unknown, disk, on_gpus)


_TRAINING_KEYS = (
    "lower training.max_images_per_gpu (the batch stays the same), set training.activation_checkpointing: true or "
    "training.precision: bf16, or lower shorter_edge and longer_edge of training.augmentation"
)
_TESTING_KEYS = (
    "for testing lower testing.batch_images, testing.longer_edge or the largest scale, or set testing.precision: bf16"
)


def require_memory(recipe: Recipe, estimate: RecipeEstimate) -> None:
    """Refuse a recipe with a job that does not fit ``compute.gpu_memory_gb``; nothing if that is not set.

    Raises:
        UserError: naming the jobs, what they need, and the keys that help.
    """
    limit = recipe.compute.gpu_memory_gb
    if limit is None or not estimate.on_gpus:
        return
    large = [job for job in estimate.jobs if job.needed > limit * GIB]
    if large:
        named = dict.fromkeys(f"{job.name} ({job.stage}) {job.needed / GIB:.1f} GiB" for job in large)
        trained = [bool(job.checkpoint_bytes) for job in large]
        remedies = [_TRAINING_KEYS] * any(trained) + [_TESTING_KEYS] * (not all(trained))
        raise UserError(
            f"compute.gpu_memory_gb is {limit:g}, but by the estimate these need more: {listing(named, 8)}. "
            f"What helps: {'; '.join(remedies)}"
        )


def require_training_memory(recipe: Recipe, name: str, images: int, results: str | Path, on_gpu: float | None) -> str:
    """:func:`require_memory` for one training with ``images`` images at once on a GPU, before its first step.

    Args:
        on_gpu: bytes of the GPU that is there; None without one.

    Returns:
        A warning if ``compute.gpu_memory_gb`` is not set and the GPU that is there has less than the estimate; else "".

    Raises:
        UserError: the training does not fit ``compute.gpu_memory_gb``.
    """
    limit = recipe.compute.gpu_memory_gb
    trace = known_traces(own_traces(results)).get(request(recipe, name, "train", images).key)
    if trace is None or on_gpu is None:
        return ""
    needed = trace.peak_bytes[1] * MEMORY_FACTOR + MEMORY_RESERVE
    what = (
        f"by the estimate {name} needs {needed / GIB:.1f} GiB with {images} images of the largest size at once on a GPU"
    )
    if limit is not None and needed > limit * GIB:
        raise UserError(f"compute.gpu_memory_gb is {limit:g}, but {what}. What helps: {_TRAINING_KEYS}")
    if limit is None and needed > on_gpu:
        return f"{what}; this one has {on_gpu / GIB:.1f} GiB. If it runs out of memory: {_TRAINING_KEYS}"
    return ""


def _gb(value: float | None) -> str:
    return "?" if value is None else f"{value / 1e9:,.1f}"


def one_line(estimate: RecipeEstimate) -> str:
    """GPU hours that are still to do, memory and disk in one line of text."""
    disk = f"{estimate.disk.total / 1e9:,.0f} GB of disk"
    if not estimate.on_gpus:
        return f"runs on CPUs; {disk}"
    hours = ", ".join(f"{card} {estimate.hours(card, missing_only=True):,.0f}" for card in CARDS)
    unknown = f"; without {listing(dict.fromkeys(estimate.unknown.values()), 4)}, not traced yet" * bool(
        estimate.unknown
    )
    return f"GPU hours to do: {hours}; GPU memory {estimate.memory_gb:.0f} GiB; {disk}{unknown}"


def _groups(jobs: Iterable[Job]) -> Iterator[tuple[str, list[Job]]]:
    """Jobs of a stage with equal numbers together, both splits of a model too; and what they are called."""
    groups: dict[tuple, list[Job]] = {}
    for job in jobs:
        numbers = (job.total_flops / job.images, job.memory, job.precision, job.checkpoint_bytes)
        groups.setdefault((job.stage, *(numbers if job.known else (job.name,))), []).append(job)
    for (stage, *_), found in groups.items():
        yield f"{stage}: {listing(dict.fromkeys(job.name for job in found), 3)}", found


def table_lines(estimate: RecipeEstimate, recipe_name: str = "R") -> list[str]:
    """The estimate as a table, with its assumptions below."""
    cards = list(CARDS)
    head = f"{'stage':48}{'images':>11}{'PFLOP':>10}{'GiB':>7}{'at most':>9}{'model':>8}{'checkpoint':>12}"
    lines = [head + "".join(f"{card + ' h':>9}" for card in cards)]
    for name, jobs in _groups(estimate.jobs):
        images = f"{sum(job.images for job in jobs):,}"
        if not jobs[0].known:
            lines.append(f"{name[:47]:48}{images:>11}{'not traced yet':>17}")
            continue
        memory, most = ((value or 0) / GIB for value in (jobs[0].memory, jobs[0].largest_memory))
        files = "".join(
            f"{_gb(value) + ' GB' if value else '':>{width}}"
            for value, width in ((jobs[0].model_bytes, 8), (jobs[0].checkpoint_bytes, 12))
        )
        hours = "".join(f"{sum(job.hours(card) for job in jobs):9,.1f}" for card in cards)
        flops = sum(job.total_flops for job in jobs) / 1e15
        lines.append(f"{name[:47]:48}{images:>11}{flops:10,.1f}{memory:7.1f}{most:9.1f}{files}{hours}")
    for name, missing in (("all", False), ("not done yet", True)):
        hours = "".join(f"{estimate.hours(card, missing):9,.0f}" for card in cards)
        total = sum(job.total_flops for job in estimate.jobs if not (missing and job.output in estimate.done)) / 1e15
        lines.append(f"{name:48}{'':11}{total:10,.0f}{'':36}{hours}")
    disk = estimate.disk
    lines += [
        f"disk: data {_gb(disk.data)} GB, archives while unpacking {_gb(disk.unpacking)} GB, checkpoints in training "
        f"{_gb(disk.checkpoints)} GB, models, tables, submission {_gb(disk.results)} GB; together {_gb(disk.total)} GB",
        "GiB: tensors of one GPU at its peak, at the largest 4:3 image and at the largest of any aspect; the card "
        f"needs {100 * (MEMORY_FACTOR - 1):.0f} % and {MEMORY_RESERVE / GIB:.0f} GiB more",
        *(f"GPU hours: {assumption(precision)}" for precision in sorted({job.precision for job in estimate.jobs})),
        "(origin of the constants: pipeline_steps/run/cards.py)",
    ]
    if not estimate.on_gpus:
        lines.append("this recipe runs on CPUs: the hours are what GPUs would take")
    if estimate.unknown:
        lines.append(f"not traced yet: python -m pipeline_steps.estimate --recipe {recipe_name}")
    return lines
