"""What to do when a training runs out of memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe.training import Training


@contextmanager
def memory_explained(training: Training, rank: int) -> Iterator[None]:
    """Turn running out of memory into a message with the settings that help."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        smaller = "training.max_images_per_gpu" if training.max_images_per_gpu > 1 else "the image sizes"
        raise UserError(
            f"the GPU of process {rank} is out of memory with {training.max_images_per_gpu} images at once, "
            f"shorter edge up to {max(training.augmentation.shorter_edge)} and longer edge up to "
            f"{training.augmentation.longer_edge}: lower {smaller} first (the batch stays the same, a saved checkpoint "
            "can be continued); then set training.activation_checkpointing, or lower shorter_edge and longer_edge of "
            f"training.augmentation. ({str(error).splitlines()[0]})"
        ) from None
    except RuntimeError as error:
        text = str(error)
        if "DataLoader worker" in text:
            raise UserError(
                f"a loading process ended unexpectedly ({text.splitlines()[0]}); usually the memory of the job or "
                "/dev/shm was used up: lower training.loader_workers or raise compute.memory_gb"
            ) from None
        if "can't allocate memory" in text:
            raise UserError(
                f"out of memory: raise compute.memory_gb, or lower training.max_images_per_gpu ({text.splitlines()[0]})"
            ) from None
        raise
