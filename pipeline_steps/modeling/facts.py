"""What is known about the images of a batch beyond their annotated objects, as the losses need it.

Symbols:
    N: images of the batch; C: foreground categories; n: regions of one image
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class BatchFacts:
    """Per-image facts of a batch; see :meth:`from_samples` for what a sample may leave out."""

    judged: Tensor
    """BoolTensor[N, C]: categories annotated in the image or verified to be absent (S_P and S_N)."""
    known: Tensor | None
    """BoolTensor[N, C]: categories that get a loss in the image; None if all do in all images."""
    region_boxes: tuple[Tensor, ...]
    """N tensors [n, 4], x1 y1 x2 y2 in the augmented image."""
    region_weights: tuple[Tensor, ...]
    """N tensors [n]: weights of background proposals that hit a region."""
    region_groups: tuple[Tensor, ...]
    """N BoolTensors [n]: regions around many objects, which other overlaps hit than those around one."""
    has_masks: tuple[bool, ...]
    """Whether the image's objects have masks; if not, it takes no part in the mask loss."""
    generators: tuple[torch.Generator | None, ...]
    """Random generators for sampling anchors and proposals; None draws from torch's global generator."""

    @classmethod
    def from_samples(cls, samples: Sequence[dict[str, Any]], category_count: int, device: torch.device) -> BatchFacts:
        """Collect the facts of training samples.

        A sample may leave out: ``judged`` (then the categories of its instances), ``known`` (all), ``region_boxes``
        and ``region_weights`` (none), ``region_groups`` (no region is one), ``has_masks`` (whether its instances have
        ``gt_masks``), and ``sampling_seed`` (int; with it the anchors and proposals drawn for an image do not depend on
        the rest of the batch or on what the process has done before).
        """
        everything = torch.ones(category_count, dtype=torch.bool)
        known = torch.stack([sample.get("known", everything) for sample in samples])
        no_boxes, no_weights = torch.zeros(0, 4), torch.zeros(0)

        def moved(tensors: list[Tensor]) -> tuple[Tensor, ...]:
            return tuple(tensor.to(device, non_blocking=True) for tensor in tensors)

        return cls(
            judged=torch.stack([_judged(sample, category_count) for sample in samples]).to(device, non_blocking=True),
            known=None if bool(known.all()) else known.to(device, non_blocking=True),
            region_boxes=moved([sample.get("region_boxes", no_boxes) for sample in samples]),
            region_weights=moved([sample.get("region_weights", no_weights) for sample in samples]),
            region_groups=moved([sample.get("region_groups", _no_groups(sample)) for sample in samples]),
            has_masks=tuple(sample.get("has_masks", sample["instances"].has("gt_masks")) for sample in samples),
            generators=tuple(_generator(sample.get("sampling_seed"), device) for sample in samples),
        )


def _judged(sample: dict[str, Any], category_count: int) -> Tensor:
    if "judged" in sample:
        return sample["judged"]
    annotated = torch.zeros(category_count, dtype=torch.bool)
    annotated[sample["instances"].gt_classes] = True
    return annotated


def _no_groups(sample: dict[str, Any]) -> Tensor:
    return torch.zeros(len(sample.get("region_boxes", ())), dtype=torch.bool)


def _generator(seed: int | None, device: torch.device) -> torch.Generator | None:
    return None if seed is None else torch.Generator(device).manual_seed(seed)


def sample_labels(
    labels: Sequence[Tensor],
    count: int,
    positive_fraction: float,
    background: int,
    generators: Sequence[torch.Generator | None],
) -> list[tuple[Tensor, Tensor]]:
    """Draw positives and negatives of each image at random.

    At most ``count`` of an image, and at most ``count * positive_fraction`` positives. The host waits for the device
    once, for the numbers of candidates of all images.

    Args:
        labels: N LongTensors[K]; -1 is never drawn, ``background`` is negative, all others are positive.
        count: how many to draw from an image altogether.
        positive_fraction: share of positives; negatives fill up what positives leave.
        background: the negative label.
        generators: sources of randomness on the device of ``labels``, one for each image; None is torch's global one.

    Returns:
        N pairs of LongTensors of the indices drawn, positives and negatives.
    """
    candidates = [((own != -1) & (own != background), own == background) for own in labels]
    numbers = torch.stack([mask.sum() for pair in candidates for mask in pair]).view(-1, 2).tolist()
    drawn = []
    for (positive, negative), (positives, negatives), generator in zip(candidates, numbers, generators, strict=True):

        def draw(mask: Tensor, available: int, wanted: int, generator: torch.Generator | None = generator) -> Tensor:
            order = torch.randperm(available, device=mask.device, generator=generator)
            return torch.nonzero_static(mask, size=available)[:, 0][order[:wanted]]

        positive_count = min(int(count * positive_fraction), positives)
        chosen = draw(positive, positives, positive_count)
        drawn.append((chosen, draw(negative, negatives, min(count - positive_count, negatives))))
    return drawn
