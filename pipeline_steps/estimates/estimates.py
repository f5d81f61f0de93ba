"""What a recipe takes, stage by stage, before anything has run: FLOPs, GPU memory, files, GPU hours, disk.

``recipe_estimate(recipe, results)`` is the entry; it reads recipe, detector files and traces only, in milliseconds, and
imports neither torch nor detectron2. ``one_line(estimate)`` and ``table_lines(estimate)`` of
:mod:`pipeline_steps.estimates.text` put it into words; ``require_memory(recipe, estimate)`` of
:mod:`pipeline_steps.estimates.memory` refuses what ``compute.gpu_memory_gb`` cannot hold.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline_steps.estimates.cards import gpu_seconds
from pipeline_steps.estimates.disk import KEPT_CHECKPOINTS, Disk, data_bytes, table_bytes
from pipeline_steps.estimates.request import Purpose, Request
from pipeline_steps.estimates.sizes import area, largest, split_images, test_sizes, training_pixels, training_sizes
from pipeline_steps.estimates.traces import Trace, images_per_gpu, known_traces, request
from pipeline_steps.recipe.schema import ENSEMBLE, Recipe, names
from pipeline_steps.run.result_files import ResultFiles, variant_folder

GIB = 2**30
VARIANTS = "variants for tables"
MEMORY_FACTOR, MEMORY_RESERVE = 1.15, 1 * GIB
"""What a GPU must have beyond the tensors that are counted: buffers inside kernels, and CUDA itself. Counted as here,
detectron2's Mask R-CNN with R50, R101 and X101-32x8d at two images of 800 x 1344 takes 2.9, 3.9 and 6.2 GiB; its
model zoo states 3.4, 4.6 and 7.2 GB as measured, with the second copy of the gradients that its
DistributedDataParallel has (0.2, 0.2, 0.4 GB)."""


def needed_bytes(tensors: float) -> float:
    """Bytes that a GPU must have for so many bytes of tensors."""
    return tensors * MEMORY_FACTOR + MEMORY_RESERVE


@dataclass(frozen=True)
class Job:
    """One training, or the testing of one model on one split. Numbers are None where the model is not traced yet."""

    # ``COCO pre-training``, ``LVIS fine-tuning``, ``experts``, ``box testing``, ``mask testing`` or ``variants for
    # tables``
    stage: str
    name: str  # the model, or the ensemble
    output: str  # its result, relative to the recipe's
    images: int  # images trained on, or tested
    precision: str  # of the arithmetic
    flops: dict[str, float] | None = None  # by kind, all images together
    memory: float | None = None  # bytes of one GPU at the peak, at the largest 4:3 image
    largest_memory: float | None = None  # the same at the largest image of any aspect
    model_bytes: int | None = None  # the final model file
    checkpoint_bytes: int | None = None  # one checkpoint

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
        return 0.0 if self.largest_memory is None else needed_bytes(self.largest_memory)

    def hours(self, card: str) -> float:
        """GPU hours on a card of :data:`pipeline_steps.estimates.cards.CARDS`; 0 if unknown."""
        return gpu_seconds(self.flops or {}, card, self.precision) / 3600


@dataclass(frozen=True)
class RecipeEstimate:
    """A recipe's jobs and disk."""

    jobs: tuple[Job, ...]  # those that use a GPU
    done: frozenset[str]  # outputs that exist already
    unknown: dict[Request, str]  # requests of models that are not traced yet, with the models' names
    disk: Disk
    on_gpus: bool  # whether the recipe uses GPUs at all

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

    def training(self, stage: str, name: str, output: Path) -> Job:
        model = self.recipe.model(name)
        training = self.recipe.training_of(model)
        images, edges = images_per_gpu(self.recipe, model), training.augmentation
        job = Job(stage, name, str(output), training.schedule.images, training.precision)
        trace = self.trace(name, "train")
        if trace is None:
            return job
        of_step = trace.flops_at(training_pixels(edges, images))
        return replace(
            job,
            flops={kind: value * job.images / images for kind, value in of_step.items()},
            memory=trace.peak_at(area(training_sizes(edges)[-1])),
            largest_memory=trace.peak_at(area(largest(max(edges.shorter_edge), edges.longer_edge))),
            model_bytes=trace.weight_bytes,
            checkpoint_bytes=trace.weight_bytes + trace.trained_bytes,
        )

    def testing(self, stage: str, name: str, output: Path, images: int, models: list[str], purpose: Purpose) -> Job:
        """Testing of ``images`` images with all of ``models``."""
        testing = self.recipe.testing
        sizes = test_sizes(testing.box_scales if purpose == "boxes" else testing.mask_scales, testing)
        job = Job(stage, name, str(output), images, self.recipe.test_precision(models[0]))
        traces = [self.trace(model, purpose) for model in models]
        known = [trace for trace in traces if trace is not None]
        if len(known) < len(models):
            return job
        flops: dict[str, float] = {}
        for trace in known:
            for size in sizes:
                for kind, value in trace.flops_at(area(size)).items():
                    flops[kind] = flops.get(kind, 0.0) + value * images / testing.batch_images
        return replace(
            job,
            flops=flops,
            # The models of one image's masks are all on the GPU, and work one after the other.
            memory=max(trace.peak_at(area(sizes[-1])) for trace in known) + _others(known),
            largest_memory=max(trace.peak_bytes[1] for trace in known) + _others(known),
        )


def _others(traces: list[Trace]) -> int:
    weights = [trace.weight_bytes for trace in traces]
    return sum(weights) - max(weights)


STAGES = {"pretrain": "COCO pre-training", "finetune": "LVIS fine-tuning", "experts": "experts"}


def _jobs(estimators: Mapping[str, _Estimator], files: ResultFiles) -> Iterator[Job]:
    recipe, estimator = files.recipe, estimators[""]
    for stage, models in recipe.stages.items():
        for name in names(models):
            yield estimator.training(STAGES[stage], name, files.model(name))
    images = split_images(recipe)
    for split, count in images.items():
        for name in files.predicted:
            output = files.member_boxes.of(split=split, member=name)
            yield estimator.testing("box testing", name, output, count, [name], "boxes")
    for name in names(recipe.models):
        yield estimator.testing("mask testing", name, files.evaluated[name], images["val"], [name], "masks")
    for split, count in images.items():
        masks = recipe.mask_models()
        yield estimator.testing("mask testing", ENSEMBLE, files.ensemble(split), count, masks, "masks")
    # Variants on val, for tables; boxes that are shared with the recipe, or each other, come once.
    seen = {files.member_boxes.of(split="val", member=name) for name in files.predicted}
    for name, output in files.variants.items():
        folder = variant_folder(name)
        for member, boxes in files.members_boxes("val", folder).items():
            if boxes not in seen:
                seen.add(boxes)
                yield estimators[folder].testing(VARIANTS, member, boxes, images["val"], [member], "boxes")
        masks = files.tested[folder].mask_models()
        yield estimators[folder].testing(VARIANTS, name, output, images["val"], masks, "masks")


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
        results: its folder of results, ``results/<name>``.
        exists: whether an output, named relative to ``results``, is there; looked up on the disk if not given.
        traces: numbers of the detectors; those that are shipped or kept by the step ``estimate`` if not given.

    Raises:
        UserError: a detector file is missing, or the GPUs do not divide the batch.
    """
    traces = known_traces(own_traces(results)) if traces is None else traces
    there = exists or (lambda output: Path(results, output).exists())
    files = ResultFiles(recipe, Path())
    estimators = {folder: _Estimator(own, traces) for folder, own in files.tested.items()}
    jobs = tuple(_jobs(estimators, files))
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
