"""A page of pictures: ground truth beside predictions, good and bad examples of each frequency group.

Each image is embedded once; objects are drawn over it as vectors, with the same colour for the same category on both
sides.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from html import escape

import cv2

from pipeline_steps.data.category_list import GROUPS
from pipeline_steps.data.images import UnreadableImageError, read_image
from pipeline_steps.data.paths import DatasetPaths
from pipeline_steps.evaluation.matching import FALSE, IGNORED, TRUE, UNJUDGED
from pipeline_steps.report.page import data_uri, html_page
from pipeline_steps.report.scenes import MATCH_IOU, MISSED, Scene, SceneReader, Shape
from pipeline_steps.report.selection import Section

LONGEST_EDGE = 800
"""Larger images are embedded at this size."""

MARKS = {
    TRUE: ("✓", "right: the category is right and the overlap is at least half"),
    FALSE: ("✗", "wrong: no such object there, or another detection has it already"),
    IGNORED: ("~", "does not count: not every object of this category is annotated in this image"),
    UNJUDGED: ("·", "does not count: nobody looked for this category in this image"),
    MISSED: ("○", "missed"),
}

_STYLE = """
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0.9rem; }
@media (max-width: 44rem) { .pair { grid-template-columns: 1fr; } }
.panel .side { font-size: 0.95rem; font-weight: 600; margin: 0 0 0.3rem; }
.panel svg { display: block; width: 100%; height: auto;
  border-radius: 4px; background: #000; }
.shape { vector-effect: non-scaling-stroke; stroke-width: 2; fill-opacity: 0.32; }
.shape.false, .shape.missed { stroke-dasharray: 5 3; } .shape.unjudged, .shape.ignored { fill-opacity: 0.12;
  stroke-width: 1.2; }
.badge { paint-order: stroke; stroke: #000; stroke-width: 0.22em; fill: #fff; font-weight: 700; text-anchor: middle;
  dominant-baseline: central; font-family: system-ui, sans-serif; }
.objects { list-style: none; margin: 0.45rem 0 0; padding: 0; display: grid; gap: 0 0.9rem; font-size: 0.86rem;
  line-height: 1.5; grid-template-columns: repeat(auto-fill, minmax(13.5rem, 1fr)); }
.objects li { display: flex; gap: 0.35rem; align-items: baseline; min-width: 0; }
.objects .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.chip { flex: none; min-width: 1.5em; padding: 0 0.25em; border-radius: 3px; text-align: center; font-weight: 600;
  font-size: 0.8rem; color: #fff; text-shadow: 0 0 2px #000; }
.letter { flex: none; border: 1px solid var(--line); border-radius: 3px; padding: 0 0.28em; font-size: 0.78rem; }
.score { font-variant-numeric: tabular-nums; } .mark { flex: none; width: 1.1em; text-align: center; }
.mark.true { color: var(--good); } .mark.false, .mark.missed { color: var(--bad); }
.legend { display: grid; grid-template-columns: max-content 1fr; gap: 0 0.6rem; margin: 0.4rem 0; font-size: 0.92rem; }
.legend dt, .legend dd { margin: 0; }
"""


@dataclass(frozen=True)
class GallerySettings:
    """What the page says about its making."""

    title: str
    """Heading."""
    source: str
    """Which detections these are."""
    note: str = ""
    """A sentence below the heading."""


def colour(position: int) -> str:
    """Colour of a category as CSS: neighbours in the list differ, saturation and lightness suit both schemes."""
    return f"hsl({position * 137.508 % 360:.0f} 85% {(62, 50, 72)[position % 3]}%)"


def _path(shape: Shape) -> str:
    lines = ("M" + " ".join(f"{x:.1f},{y:.1f}" for x, y in contour) + "Z" for contour in shape.contours())
    return "".join(lines)


def _tooltip(shape: Shape) -> str:
    text = f"{shape.name} ({GROUPS[shape.letter]})"
    if shape.score is not None:
        text += f", score {shape.score:.2f}"
        if shape.rank_score is not None and shape.rank_score - shape.score > 0.005:
            text += f" (ranked with {shape.rank_score:.2f})"
        text += f", from {shape.source}" * bool(shape.source)
    return f"{text}; {MARKS[shape.verdict][1]}"


def _free_place(
    x: float, y: float, size: float, edge: tuple[int, int], taken: list[tuple[float, float]]
) -> tuple[float, float]:
    """Where a number of height ``size`` goes: at x, y inside the image, or beside the numbers that stand there."""
    x, y = min(max(x, size * 0.6), edge[0] - size * 0.6), min(max(y, size * 0.6), edge[1] - size * 0.6)
    for _ in range(8):
        if all(abs(x - other) > size or abs(y - another) > size * 0.8 for other, another in taken):
            break
        x = x + size * 1.05 if x + size * 1.65 < edge[0] else x - size * 2.1
    taken.append((x, y))
    return x, y


def _panel(scene: Scene, title: str, shapes: list[Shape], positions: dict[int, int]) -> str:
    width, height = scene.image.width, scene.image.height
    size = max(width, height) / 26
    drawn, badges, rows = [], [], []
    taken: list[tuple[float, float]] = []
    for number, shape in enumerate(shapes, 1):
        tint = colour(positions[shape.category_id])
        tooltip = f"<title>{escape(_tooltip(shape))}</title>"
        drawn.append(
            f'<path class="shape {shape.verdict}" d="{_path(shape)}" fill="{tint}" stroke="{tint}" fill-rule="evenodd">'
            f"{tooltip}</path>"
        )
        x, y = _free_place(*shape.centre(), size, (width, height), taken)
        badges.append(f'<text class="badge" x="{x:.1f}" y="{y:.1f}" font-size="{size:.1f}">{number}</text>')
        score = "" if shape.score is None else f'<span class="score">{shape.score:.2f}</span>'
        rows.append(
            f'<li title="{escape(_tooltip(shape))}"><span class="mark {shape.verdict}">{MARKS[shape.verdict][0]}</span>'
            f'<span class="chip" style="background:{tint}">{number}</span>'
            f'<span class="name">{escape(shape.name)}</span><span class="letter">{shape.letter}</span>{score}</li>'
        )
    empty = "" if shapes else '<p class="soft">nothing</p>'
    return (
        f'<div class="panel"><p class="side">{title}</p><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{title}, {len(shapes)} shapes"><use href="#image-{scene.image.id}"/>{"".join(drawn)}'
        f'{"".join(badges)}</svg><ul class="objects">{"".join(rows)}</ul>{empty}</div>'
    )


def _by_score(shape: Shape) -> float:
    return -(shape.score or 0.0)


def _names(shapes: list[Shape], verdict: str) -> str:
    return ", ".join(f"{escape(shape.name)} ({shape.letter})" for shape in shapes if shape.verdict == verdict)


def _caption(scene: Scene) -> str:
    found = sum(shape.verdict == TRUE for shape in scene.truths)
    text = f"Image {scene.image.id}: {found} of {len(scene.truths)} annotated objects found."
    if missed := _names(scene.truths, MISSED):
        text += f" Missed: {missed}."
    if wrong := _names(scene.detections, FALSE):
        text += f" Wrong: {wrong}."
    free = sum(shape.verdict in (UNJUDGED, IGNORED) for shape in scene.detections)
    if free:
        text += f" {free} more {'detection does' if free == 1 else 'detections do'} not count in this image."
    return text


def _embedded(scene: Scene, paths: DatasetPaths) -> str:
    """The image as an SVG definition that both panels use."""
    width, height = scene.image.width, scene.image.height
    pixels = read_image(paths.image_path(scene.image), height, width)
    shrink = LONGEST_EDGE / max(width, height)
    if shrink < 1:
        pixels = cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
    return (
        '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>'
        f'<image id="image-{scene.image.id}" href="{data_uri(content, "image/jpeg")}" width="{width}" '
        f'height="{height}" preserveAspectRatio="none"/></defs></svg>'
    )


def _section(section: Section, reader: SceneReader, paths: DatasetPaths, positions: dict[int, int]) -> tuple[str, int]:
    group = GROUPS[section.letter]
    what = (
        f"Images in which most {group} objects are found: look at how masks follow the objects, and at the scores."
        if section.good
        else f"Images with {group} objects that no detection matches, or with wrong detections of {group} categories: "
        "look for the object on the left, and for what was said instead on the right."
    )
    figures = []
    for image_id in section.image_ids:
        scene = reader.scene(image_id)
        try:
            embedded = _embedded(scene, paths)
        except UnreadableImageError as error:
            logging.warning("left out of the gallery: %s", error)
            continue
        panels = _panel(scene, "Ground truth", scene.truths, positions) + _panel(
            scene, "Predictions", sorted(scene.detections, key=_by_score), positions
        )
        figures.append(
            f'<figure>{embedded}<div class="pair">{panels}</div><figcaption>{_caption(scene)}</figcaption></figure>'
        )
    content = "".join(figures) or '<p class="soft">No image shows this.</p>'
    return f'<section id="{section.anchor}"><h2>{section.title}</h2><p>{what}</p>{content}</section>', len(figures)


def gallery_page(reader: SceneReader, sections: list[Section], paths: DatasetPaths, settings: GallerySettings) -> str:
    """The page as HTML.

    Args:
        reader: scenes; their detections of at least its ``min_score`` are drawn.
        sections: images to show.
        paths: where the images lie. Unreadable ones are left out, with a warning.
        settings: texts.
    """
    categories = reader.dataset.categories
    positions = {category_id: k for k, category_id in enumerate(categories.ids.tolist())}
    parts = [_section(section, reader, paths, positions) for section in sections]
    links = "".join(
        f'<a href="#{section.anchor}">{section.title} ({shown})</a>' for section, (_, shown) in zip(sections, parts)
    )
    used = [verdict for verdict in MARKS if verdict != MISSED]
    legend = "".join(f"<dt>{MARKS[v][0]}</dt><dd>{MARKS[v][1]}</dd>" for v in (*used, MISSED))
    body = (
        f"<h1>{escape(settings.title)}</h1><p>{escape(settings.source)} Left: what is annotated. Right: detections "
        f"with a score of at least {reader.min_score:g}, numbered from the highest score down. r, c and f stand for "
        "rare, common and frequent categories. A detection is right if its category is and its IoU with the object is "
        f"at least {MATCH_IOU:g}.</p>{f'<p>{escape(settings.note)}</p>' if settings.note else ''}"
        f'<dl class="legend">{legend}</dl><nav>{links}</nav>{"".join(text for text, _ in parts)}'
    )
    return html_page(settings.title, body, _STYLE)
