"""Missing annotations (the paper, figure 2): background proposals on objects that COCO annotates and LVIS does not.

Symbols: boxes are x1 y1 x2 y2 in pixels of the augmented image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torchvision.ops import box_iou

from pipeline_steps.analysis.samples.count import Batch
from pipeline_steps.report.page import data_uri, html_page, render

SAME_OBJECT_IOU = 0.5
"""A COCO box that overlaps an annotated object of LVIS by more than this is that object."""

POSITIVES_SHOWN, NEGATIVES_SHOWN = 2, 3
"""Proposals drawn for each object, those of the highest IoU first."""

LONGEST_EDGE = 640
"""Larger images are embedded at this size."""

_LEGEND = (
    ("annotated", "annotated in LVIS"),
    ("positive", "positive proposal"),
    ("coco", "annotated in COCO only"),
    ("negative", "background proposal on such an object"),
)
"""Kinds of boxes by the name of their style."""


@dataclass(frozen=True)
class Example:
    """An image with missing annotations."""

    image_id: int
    pixels: np.ndarray
    """uint8[H, W, 3], BGR."""
    annotated: np.ndarray
    """float[G, 4] of LVIS."""
    positives: np.ndarray
    """float[n, 4], the best proposals of each annotated object."""
    unannotated: np.ndarray
    """float[m, 4], objects that only COCO annotates and that some background proposal hits."""
    negatives: np.ndarray
    """float[k, 4], the best of these proposals for each of them."""


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


def _rectangles(boxes: np.ndarray) -> list[list[str]]:
    """x, y, width and height of each box as text."""
    return [[f"{value:.1f}" for value in (x1, y1, x2 - x1, y2 - y1)] for x1, y1, x2, y2 in boxes.tolist()]


def _picture(example: Example) -> dict[str, Any]:
    height, width = example.pixels.shape[:2]
    shrink = LONGEST_EDGE / max(height, width)
    pixels = example.pixels if shrink >= 1 else cv2.resize(example.pixels, None, fx=shrink, fy=shrink)
    content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
    layers = (("positive", example.positives), ("negative", example.negatives))
    layers += (("annotated", example.annotated), ("coco", example.unannotated))
    return {
        "image_id": example.image_id,
        "uri": data_uri(content, "image/jpeg"),
        "width": width,
        "height": height,
        "layers": [(kind, _rectangles(boxes)) for kind, boxes in layers],
        "told": f"{len(example.annotated)} annotated, {len(example.unannotated)} more that COCO annotates",
    }


def missing_page(title: str, lines: list[str], examples: list[Example]) -> str:
    """The page of missing annotations.

    Args:
        title: heading.
        lines: what was measured.
        examples: pictures to show; may be empty.
    """
    pictures = [_picture(example) for example in examples]
    return html_page(title, render("missing.html", lines=lines, pictures=pictures, legend=_LEGEND))
