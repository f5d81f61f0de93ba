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
        judged, known = [], []
        for sample in samples:
            if "judged" in sample:
                judged.append(sample["judged"])
            else:
                row = torch.zeros(category_count, dtype=torch.bool)
                row[sample["instances"].gt_classes] = True
                judged.append(row)
            known.append(sample.get("known"))
        all_known = all(row is None or bool(row.all()) for row in known)
        everything = torch.ones(category_count, dtype=torch.bool)
        no_boxes, no_weights = torch.zeros(0, 4), torch.zeros(0)
        return cls(
            judged=torch.stack(judged).to(device, non_blocking=True),
            known=None
            if all_known
            else torch.stack([everything if row is None else row for row in known]).to(device, non_blocking=True),
            region_boxes=tuple(sample.get("region_boxes", no_boxes).to(device) for sample in samples),
            region_weights=tuple(sample.get("region_weights", no_weights).to(device) for sample in samples),
            region_groups=tuple(_region_groups(sample).to(device) for sample in samples),
            has_masks=tuple(sample.get("has_masks", sample["instances"].has("gt_masks")) for sample in samples),
            generators=tuple(_generator(sample.get("sampling_seed"), device) for sample in samples),
        )


def _region_groups(sample: dict[str, Any]) -> Tensor:
    if "region_groups" in sample:
        return sample["region_groups"]
    return torch.zeros(len(sample.get("region_boxes", ())), dtype=torch.bool)


def _generator(seed: int | None, device: torch.device) -> torch.Generator | None:
    return None if seed is None else torch.Generator(device).manual_seed(seed)


def sample_labels(
    labels: Tensor, count: int, positive_fraction: float, background: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Draw positives and negatives at random: at most ``count``, at most ``count * positive_fraction`` positives.

    Args:
        labels: LongTensor[K]; -1 is never drawn, ``background`` is negative, all others are positive.
        count: how many to draw altogether.
        positive_fraction: share of positives; negatives fill up what positives leave.
        background: the negative label.
        generator: source of randomness on the device of ``labels``; None is torch's global one.

    Returns:
        LongTensors of the indices drawn, positives and negatives.
    """
    positive = ((labels != -1) & (labels != background)).nonzero()[:, 0]
    negative = (labels == background).nonzero()[:, 0]
    positive_count = min(int(count * positive_fraction), len(positive))
    negative_count = min(count - positive_count, len(negative))

    def draw(candidates: Tensor, number: int) -> Tensor:
        order = torch.randperm(len(candidates), device=candidates.device, generator=generator)
        return candidates[order[:number]]

    return draw(positive, positive_count), draw(negative, negative_count)
