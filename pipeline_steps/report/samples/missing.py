"""Missing annotations (the report, figure 2): background proposals on objects that COCO annotates and LVIS does not.

Symbols: boxes are x1 y1 x2 y2 in pixels of the augmented image.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import cv2
import numpy as np
import torch
from torchvision.ops import box_iou

from pipeline_steps.report.page import data_uri, html_page
from pipeline_steps.report.samples.count import Batch

SAME_OBJECT_IOU = 0.5
"""A COCO box that overlaps an annotated object of LVIS by more than this is that object."""

POSITIVES_SHOWN, NEGATIVES_SHOWN = 2, 3
"""Proposals drawn for each object, those of the highest IoU first."""

LONGEST_EDGE = 640
"""Larger images are embedded at this size."""

STYLE = """
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 0.9rem; }
.examples figure { margin: 0; } .examples svg { display: block; width: 100%; height: auto; border-radius: 4px; }
.examples rect { fill: none; vector-effect: non-scaling-stroke; stroke-width: 2; }
.examples .annotated { stroke: #ff3b30; stroke-width: 2.6; } .examples .positive { stroke: #34d058; stroke-width: 1.3; }
.examples .coco { stroke: #ffd60a; stroke-width: 2.6; } .examples .negative { stroke: #2f9bff; stroke-width: 1.3; }
.colours { display: flex; flex-wrap: wrap; gap: 0.25rem 1.2rem; font-size: 0.92rem; margin: 0.5rem 0; }
.colours span::before { content: ""; display: inline-block; width: 0.85em; height: 0.85em; margin-right: 0.4em;
  border: 3px solid var(--tint); vertical-align: -0.1em; }
"""

_LEGEND = (
    ("#ff3b30", "annotated in LVIS"),
    ("#34d058", "positive proposal"),
    ("#ffd60a", "annotated in COCO only"),
    ("#2f9bff", "background proposal on such an object"),
)


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


def _rectangles(boxes: np.ndarray, kind: str) -> str:
    return "".join(
        f'<rect class="{kind}" x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}"/>'
        for x1, y1, x2, y2 in boxes.tolist()
    )


def _picture(example: Example) -> str:
    height, width = example.pixels.shape[:2]
    shrink = LONGEST_EDGE / max(height, width)
    pixels = example.pixels if shrink >= 1 else cv2.resize(example.pixels, None, fx=shrink, fy=shrink)
    content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
    layers = (("positive", example.positives), ("negative", example.negatives))
    layers += (("annotated", example.annotated), ("coco", example.unannotated))
    drawn = "".join(_rectangles(boxes, kind) for kind, boxes in layers)
    count = len(example.unannotated)
    told = f"{len(example.annotated)} annotated, {count} more that COCO annotates"
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="image {example.image_id}"><image href='
        f'"{data_uri(content, "image/jpeg")}" width="{width}" height="{height}"/>{drawn}</svg>'
        f"<figcaption>Image {example.image_id}: {told}.</figcaption></figure>"
    )


def missing_page(title: str, lines: list[str], examples: list[Example]) -> str:
    """The page of missing annotations.

    Args:
        title: heading.
        lines: what was measured.
        examples: pictures to show; may be empty.
    """
    legend = "".join(f'<span style="--tint:{tint}">{text}</span>' for tint, text in _LEGEND)
    pictures = "".join(map(_picture, examples))
    text = "".join(f"<p>{escape(line)}</p>" for line in lines)
    shown = (
        f'<div class="colours">{legend}</div><div class="examples">{pictures}</div>'
        if examples
        else '<p class="soft">No image shows this.</p>'
    )
    return html_page(title, f"<h1>{escape(title)}</h1>{text}{shown}", STYLE)
