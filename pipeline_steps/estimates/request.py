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
    """What decides a trace.

    Attributes:
        detector: digest of the detector files.
        options: ``training.detector_options``.
        categories: C.
        purpose: a training step, or a view of box or mask testing.
        images: images that go through the network at once.
        size: the largest size of an image.
        precision: autocast precision.
        checkpointing: activation checkpointing.
        proposals: of an image in box testing.
    """

    detector: str
    options: tuple[str, ...]
    categories: int
    purpose: Purpose
    images: int
    size: Size
    precision: Precision
    checkpointing: bool
    proposals: int

    @property
    def key(self) -> str:
        """Name of the trace."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]
