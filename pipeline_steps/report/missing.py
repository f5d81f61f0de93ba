"""Missing annotations (the paper, figure 2): background proposals on objects that COCO annotates and LVIS does not.

Symbols: boxes are x1 y1 x2 y2 in pixels of the augmented image.
"""

from typing import Any

import numpy as np

from pipeline_steps.analysis.samples.examples import Example
from pipeline_steps.report.page import html_page, pixels_uri, render

LONGEST_EDGE = 640  # larger images are embedded at this size

_LEGEND = (
    ("annotated", "annotated in LVIS"),
    ("positive", "positive proposal"),
    ("coco", "annotated in COCO only"),
    ("negative", "background proposal on such an object"),
)
"""Kinds of boxes by the name of their style."""


def _rectangles(boxes: np.ndarray) -> list[list[str]]:
    """x, y, width and height of each box as text."""
    return [[f"{value:.1f}" for value in (x1, y1, x2 - x1, y2 - y1)] for x1, y1, x2, y2 in boxes.tolist()]


def _picture(example: Example) -> dict[str, Any]:
    height, width = example.pixels.shape[:2]
    layers = [("positive", example.positives), ("negative", example.negatives)]
    layers += [("annotated", example.annotated), ("coco", example.unannotated)]
    return {
        "image_id": example.image_id,
        "uri": pixels_uri(example.pixels, LONGEST_EDGE),
        "width": width,
        "height": height,
        "layers": [(kind, _rectangles(boxes)) for kind, boxes in layers],
        "told": f"{len(example.annotated)} annotated, {len(example.unannotated)} more that COCO annotates",
    }


def missing_page(title: str, lines: list[str], examples: list[Example]) -> str:
    """The page of missing annotations."""
    pictures = [_picture(example) for example in examples]
    return html_page(title, render("missing.html", lines=lines, pictures=pictures, legend=_LEGEND))
