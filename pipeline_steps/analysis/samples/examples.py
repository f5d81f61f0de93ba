"""Which training images show missing annotations best: background proposals on objects that only COCO annotates.

The report, figure 2. Symbols: boxes are x1 y1 x2 y2 in pixels of the augmented image.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import box_iou

from pipeline_steps.analysis.samples.count import Batch

SAME_OBJECT_IOU = 0.5  # A COCO box that overlaps an annotated object of LVIS by more than this is that object
POSITIVES_SHOWN, NEGATIVES_SHOWN = 2, 3  # proposals drawn for each object, those of the highest IoU first


@dataclass(frozen=True)
class Example:
    """An image with missing annotations."""

    image_id: int
    pixels: np.ndarray  # uint8[H, W, 3], BGR
    annotated: np.ndarray  # float[G, 4] of LVIS
    positives: np.ndarray  # float[n, 4], the best proposals of each annotated object
    unannotated: np.ndarray  # float[m, 4], objects that only COCO annotates and that some background proposal hits
    negatives: np.ndarray  # float[k, 4], the best of these proposals for each of them


def _best(proposals: torch.Tensor, objects: torch.Tensor, count: int) -> torch.Tensor:
    """The ``count`` proposals of each object with the highest IoU above one half, without the objects themselves."""
    if not len(proposals) or not len(objects):
        return proposals[:0]
    overlaps = box_iou(proposals, objects)
    overlaps[overlaps > 0.999] = 0  # the annotated boxes are among the proposals
    values, rows = overlaps.topk(min(count, len(proposals)), dim=0)
    return proposals[rows[values > SAME_OBJECT_IOU].unique()]


def _example(batch: Batch, index: int) -> Example | None:
    sample, image = batch.samples[index], batch.sampled[index]
    regions, hits = batch.facts.region_boxes[index].cpu(), batch.on_region[index].cpu()
    if not sample["has_masks"] or not hits.any():
        return None
    annotated = sample["instances"].gt_boxes.tensor.cpu()
    proposals, labels = image.proposal_boxes.tensor.cpu(), image.gt_classes.cpu()
    if len(annotated):
        regions = regions[box_iou(regions, annotated).amax(dim=1) <= SAME_OBJECT_IOU]
    negatives = _best(proposals[hits], regions, NEGATIVES_SHOWN)
    if not len(negatives):
        return None
    hit = (box_iou(negatives, regions) > SAME_OBJECT_IOU).any(dim=0)
    return Example(
        image_id=sample["image_id"],
        pixels=sample["image"].permute(1, 2, 0).numpy(),
        annotated=annotated.numpy(),
        positives=_best(proposals[labels < batch.facts.judged.shape[1]], annotated, POSITIVES_SHOWN).numpy(),
        unannotated=regions[hit].numpy(),
        negatives=negatives.numpy(),
    )


class Examples:
    """The images with the most unannotated objects, each image once."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._found: dict[int, Example] = {}

    def add(self, batch: Batch) -> None:
        """Look at the images of a batch."""
        for index in range(len(batch.samples)):
            found = _example(batch, index)
            if found is not None and found.image_id not in self._found:
                self._found[found.image_id] = found
        self._found = {example.image_id: example for example in self.best()}

    def best(self) -> list[Example]:
        """At most ``count`` examples, those with the most unannotated objects first."""
        ranked = sorted(self._found.values(), key=lambda e: (-len(e.unannotated), e.image_id))
        return ranked[: self.count]
