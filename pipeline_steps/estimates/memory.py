"""Recipes and trainings that do not fit the memory of a GPU are refused before they start."""

from pathlib import Path

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.estimates.estimates import GIB, RecipeEstimate, needed_bytes, own_traces
from pipeline_steps.estimates.traces import known_traces, request
from pipeline_steps.recipe.schema import Recipe

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
    needed = needed_bytes(trace.peak_bytes[1])
    what = (
        f"by the estimate {name} needs {needed / GIB:.1f} GiB with {images} images of the largest size at once on a GPU"
    )
    if limit is not None and needed > limit * GIB:
        raise UserError(f"compute.gpu_memory_gb is {limit:g}, but {what}. What helps: {_TRAINING_KEYS}")
    if limit is None and needed > on_gpu:
        return f"{what}; this one has {on_gpu / GIB:.1f} GiB. If it runs out of memory: {_TRAINING_KEYS}"
    return ""
