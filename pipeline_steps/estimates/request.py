"""What decides the numbers of a traced detector."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

from pipeline_steps.estimates.sizes import Size
from pipeline_steps.recipe.training import Precision

Purpose = Literal["train", "boxes", "masks"]


@dataclass(frozen=True)
class Request:
    """What decides a trace."""

    detector: str  # digest of the detector files
    options: tuple[str, ...]  # ``training.detector_options``
    categories: int  # C
    purpose: Purpose  # a training step, or a view of box or mask testing
    images: int  # images that go through the network at once
    size: Size  # the largest size of an image
    precision: Precision  # autocast precision
    checkpointing: bool  # activation checkpointing
    proposals: int  # of an image in box testing

    @property
    def key(self) -> str:
        """Name of the trace."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]
