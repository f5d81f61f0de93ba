"""Mixed precision, the same in training and testing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from pipeline_steps.recipe.training import Precision

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Mixed precision on ``device``; nothing for ``fp32``."""
    return torch.autocast(device.type, TYPES[precision]) if precision in TYPES else nullcontext()
