"""A page of pictures: ground truth beside predictions, good and bad examples of each frequency group.

Each image is embedded once; objects are drawn over it as vectors, with the same colour for the same category on both
sides. What the page shows can be narrowed in the browser by score and by verdict.
"""

import logging
from collections.abc import Sequence
from typing import Any

from pipeline_steps.analysis.scenes import MATCH_IOU, MISSED, Scene, SceneReader, Shape
from pipeline_steps.analysis.showcase import ExampleGroup
from pipeline_steps.data.categories import GROUPS
from pipeline_steps.data.images import UnreadableImageError, read_image
from pipeline_steps.evaluation.matching import FALSE, IGNORED, TRUE, UNJUDGED
from pipeline_steps.report.badges import place_badges
from pipeline_steps.report.page import html_page, pixels_uri, render
from pipeline_steps.run.data_files import DatasetPaths

LONGEST_EDGE = 800  # larger images are embedded at this size

MARKS = {
    TRUE: ("✓", "right: the category is right and the overlap is at least half"),
    FALSE: ("✗", "wrong: no such object there, or another detection has it already"),
    IGNORED: ("~", "does not count: not every object of this category is annotated in this image"),
    UNJUDGED: ("·", "does not count: nobody looked for this category in this image"),
    MISSED: ("○", "missed"),
}

KINDS = {TRUE: "right", FALSE: "wrong", UNJUDGED: "not judged"}
"""Kinds of detections that can be switched off; ignored ones are not judged either."""


def colour(position: int) -> str:
    """Colour of a category as CSS: neighbours in the list differ, saturation and lightness suit both schemes."""
    return f"hsl({position * 137.508 % 360:.0f} 85% {(62, 50, 72)[position % 3]}%)"


def _tooltip(shape: Shape) -> str:
    text = f"{shape.name} ({GROUPS[shape.letter]})"
    if shape.score is not None:
        text += f", score {shape.score:.2f}"
        if shape.rank_score is not None and shape.rank_score - shape.score > 0.005:
            text += f" (ranked with {shape.rank_score:.2f})"
        text += f", from {shape.source}" * bool(shape.source)
    return f"{text}; {MARKS[shape.verdict][1]}"


def _panel(title: str, scene: Scene, shapes: list[tuple[str, str, Shape]], positions: dict[int, int]) -> dict[str, Any]:
    """One side of a scene.

    Args:
        shapes: in the order of their numbers, each with its name, unique in the scene, and the name of the object that
            it matches, or an empty text.
        positions: position of each category, which gives its colour.
    """
    centres = [shape.centre() for *_, shape in shapes]
    badges = place_badges(centres, (scene.image.width, scene.image.height))
    drawn = []
    for number, ((key, match, shape), (x, y), badge) in enumerate(zip(shapes, centres, badges), 1):
        drawn.append(
            {
                "key": key,
                "match": match,
                "number": number,
                "name": shape.name,
                "letter": shape.letter,
                "verdict": shape.verdict,
                "kind": UNJUDGED if shape.verdict == IGNORED else shape.verdict,
                "mark": MARKS[shape.verdict][0],
                "score": None if shape.score is None else f"{shape.score:.2f}",
                "exact": None if shape.score is None else f"{shape.score:.4f}",
                "tooltip": _tooltip(shape),
                "tint": colour(positions[shape.category_id]),
                "outline": shape.outline(),
                "line": f"M{x:.1f},{y:.1f}L{badge.x:.1f},{badge.y:.1f}" if badge.moved else "",
                **{name: round(getattr(badge, name), 2) for name in "xywh"},
            }
        )
    return {"title": title, "shapes": drawn}


def _scene(scene: Scene, paths: DatasetPaths, positions: dict[int, int]) -> dict[str, Any]:
    """What the template needs of a scene.

    Raises:
        UnreadableImageError: the image cannot be read.
    """
    found = [f"t{object_}" if object_ >= 0 else "" for object_ in scene.matches[0].tolist()]
    detections = [(f"d{k}", match, shape) for k, (match, shape) in enumerate(zip(found, scene.detections))]
    detections.sort(key=lambda entry: -(entry[2].score or 0.0))
    truths = [(f"t{k}", "", shape) for k, shape in enumerate(scene.truths)]
    pixels = read_image(paths.image_path(scene.image), scene.image.height, scene.image.width)
    return {
        "image_id": scene.image.id,
        "width": scene.image.width,
        "height": scene.image.height,
        "uri": pixels_uri(pixels, LONGEST_EDGE),
        "found": sum(shape.verdict == TRUE for shape in scene.truths),
        "panels": [
            _panel("Ground truth", scene, truths, positions),
            _panel("Predictions", scene, detections, positions),
        ],
    }


def _group(
    section: ExampleGroup, reader: SceneReader, paths: DatasetPaths, positions: dict[int, int]
) -> dict[str, Any]:
    group = GROUPS[section.letter]
    told = (
        f"Images in which most {group} objects are found: look at how masks follow the objects, and at the scores."
        if section.good
        else f"Images with {group} objects that no detection matches, or with wrong detections of {group} categories: "
        "look for the object on the left, and for what was predicted instead on the right."
    )
    scenes = []
    for image_id in section.image_ids:
        try:
            scenes.append(_scene(reader.scene(image_id), paths, positions))
        except UnreadableImageError as error:
            logging.warning("left out of the gallery: %s", error)
    return {"anchor": section.anchor, "title": section.title, "told": told, "scenes": scenes}


def gallery_page(
    reader: SceneReader,
    sections: list[ExampleGroup],
    paths: DatasetPaths,
    title: str,
    source: str,
    lead: Sequence[str] = (),
) -> str:
    """The page as HTML.

    Args:
        reader: scenes; their detections of at least its ``min_score`` are drawn.
        paths: where the images lie. Unreadable ones are left out, with a warning.
        source: which detections these are.
    """
    positions = {category_id: k for k, category_id in enumerate(reader.dataset.categories.ids.tolist())}
    groups = [_group(section, reader, paths, positions) for section in sections]
    lines = [
        f"{source} Left: what is annotated. Right: detections with a score of at least {reader.min_score:g}, "
        "numbered from the highest score down; it is the model's own, before re-scoring. r, c and f stand for rare, "
        "common and frequent categories. A detection is right if its category is and its IoU with the object is at "
        f"least {MATCH_IOU:g}. A line of a list and its object light up together, and so do a detection and the object "
        "that it matches.",
    ]
    content = render(
        "gallery.html",
        lines=lines,
        legend=MARKS.values(),
        least=reader.min_score,
        kinds=KINDS.items(),
        groups=groups,
    )
    links = [(group["anchor"], f"{group['title']} ({len(group['scenes'])})") for group in groups]
    return html_page(title, content, lead, links, heading="Good and bad detections")
