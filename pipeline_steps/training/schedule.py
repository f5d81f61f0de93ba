"""Length and learning rate of a training. Both are counted in images, so that they do not depend on the hardware.

Symbols: B images of one batch over all GPUs; *iteration* one optimizer step on B images, 0-based.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.training import Schedule


def iteration_count(schedule: Schedule, images_per_batch: int) -> int:
    """Iterations that it takes to see ``schedule.images`` images, the last batch being full."""
    return math.ceil(schedule.images / images_per_batch)


def learning_rate(schedule: Schedule, images_per_batch: int, iteration: int) -> float:
    """Learning rate of an iteration.

    The base rate follows the linear rule: ``learning_rate`` * B / ``reference_batch``. Warm-up multiplies it by a
    factor that rises linearly and reaches 1 with the iteration that completes ``warmup_images``, or the last of
    ``warmup_iterations_min`` if that is later: a large batch has a high rate, and counted in images it would come to
    it in few steps. The decay depends on the images seen before the iteration: times 0.1 at each of ``decay_at``, or
    half a cosine from 1 to 0.
    """
    rate = schedule.learning_rate * images_per_batch / schedule.reference_batch
    seen = iteration * images_per_batch
    warmup = schedule.warmup_images and max(schedule.warmup_images, schedule.warmup_iterations_min * images_per_batch)
    if seen + images_per_batch < warmup:
        rate *= (seen + images_per_batch) / warmup
    if schedule.decay == "cosine":
        return rate * 0.5 * (1 + math.cos(math.pi * min(seen / schedule.images, 1.0)))
    return rate * 0.1 ** sum(seen >= fraction * schedule.images for fraction in schedule.decay_at)


@dataclass(frozen=True)
class BatchSplit:
    """How one batch is worked off: ``steps`` times ``images_per_step`` images on each of ``world_size`` processes.

    The split over processes does not change the gradient. The steps of gradient accumulation change two things:
    batch statistics are those of one step; and the mask loss is the mean over steps of each one's mean over its
    foreground, so that masks weigh more in a step with few of them. How many there are in the whole batch is only known
    when the last step has made its proposals. All other losses are divided by numbers that are fixed by the
    configuration (anchors and proposals drawn per image), and their sum over steps is that of the whole batch.
    """

    world_size: int
    images_per_step: int
    steps: int


def split_batch(images_per_batch: int, max_images_per_gpu: int, world_size: int) -> BatchSplit:
    """Derive images per GPU and accumulation steps from the total batch: as few steps as the memory allows.

    Raises:
        UserError: the processes do not divide the batch.
    """
    each, remainder = divmod(images_per_batch, world_size)
    if remainder or not each:
        usable = [n for n in range(1, images_per_batch + 1) if images_per_batch % n == 0]
        raise UserError(
            f"training.images_per_batch {images_per_batch} cannot be divided among {world_size} GPUs: use "
            f"{' or '.join(map(str, usable))} (compute.training_gpus times compute.training_nodes), or set the batch "
            f"to {world_size * (each + 1)}, with which the learning rate grows"
        )
    per_step = max(n for n in range(1, min(each, max_images_per_gpu) + 1) if each % n == 0)
    return BatchSplit(world_size, per_step, each // per_step)


def check_batches(recipe: Recipe) -> None:
    """Refuse a recipe of which the trainings cannot run on the GPUs of its ``compute`` section, before anything runs.

    Raises:
        UserError: the GPUs of a training do not divide its batch.
    """
    processes = recipe.compute.training_nodes * max(1, recipe.compute.training_gpus)
    for model in recipe.trained:
        training = recipe.training_of(model)
        try:
            split_batch(training.images_per_batch, training.max_images_per_gpu, processes)
        except UserError as error:
            raise UserError(f"{model.name}: {error}") from None
