"""Where a network computes and in which precision, the same in training and testing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe.training import Precision

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(choice: str, local_rank: int = 0) -> torch.device:
    """The device of a process: ``choice`` is ``compute.device``, of which ``auto`` is a GPU if there is one.

    Raises:
        UserError: there is no GPU, or fewer than processes on this node.
    """
    available = torch.cuda.is_available()
    if choice == "cuda" and not available:
        raise UserError("compute.device is 'cuda', but there is no usable GPU: check the driver, or choose 'cpu'")
    if choice == "cpu" or not available:
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"process {local_rank} of this node has no GPU: {torch.cuda.device_count()} visible; start one process for "
            "each GPU (torchrun --nproc_per_node)"
        )
    return torch.device("cuda", local_rank)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Mixed precision on ``device``; nothing for ``fp32``."""
    return torch.autocast(device.type, TYPES[precision]) if precision in TYPES else nullcontext()
