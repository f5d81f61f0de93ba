"""One small picture of a few predictions, for a README: ground truth above, predictions below."""

from __future__ import annotations

import colorsys
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline_steps.analysis.scenes import Scene, SceneReader, Shape
from pipeline_steps.analysis.selection import Section
from pipeline_steps.common.atomic import atomic_output
from pipeline_steps.common.errors import UserError
from pipeline_steps.data.images import UnreadableImageError, read_image
from pipeline_steps.evaluation.matching import FALSE, TRUE
from pipeline_steps.run.data_files import DatasetPaths

TILE = 304
"""Longer edge of a tile, in pixels."""

TILES = 3
MAX_BYTES = 300_000
"""The picture is made smaller until it has at most so many bytes."""

_GAP, _TITLE, _FONT = 8, 22, 12
_PAPER, _INK = (255, 255, 255), (40, 46, 54)


def _colour(position: int) -> tuple[int, int, int]:
    """The colour that the gallery page gives the category."""
    lightness = (0.62, 0.50, 0.72)[position % 3]
    red, green, blue = colorsys.hls_to_rgb(position * 137.508 % 360 / 360, lightness, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def _place(box: np.ndarray, size: tuple[float, float], taken: list[np.ndarray], edge: tuple[int, int]) -> np.ndarray:
    """Where a label of ``size`` covers least of the labels that stand already: above, below or inside its box."""
    width, height = size
    x1, y1, x2, y2 = box
    middle = (x1 + x2 - width) / 2
    best, least = np.zeros(4), np.inf
    for left, top in (
        (middle, y1 - height),
        (middle, y2),
        (x1, y1),
        (x2, y1),
        (x1 - width, y2 - height),
        (x1, y2 - height),
    ):
        left, top = np.clip(left, 0, edge[0] - width), np.clip(top, 0, edge[1] - height)
        place = np.array([left, top, left + width, top + height])
        covered = sum(
            max(0.0, min(place[2], t[2]) - max(place[0], t[0])) * max(0.0, min(place[3], t[3]) - max(place[1], t[1]))
            for t in taken
        )
        if covered < least:
            best, least = place, covered
    return best


def _tile(scene: Scene, pixels: np.ndarray, shapes: list[Shape], positions: dict[int, int], zoom: float) -> Image.Image:
    size = round(scene.image.width * zoom), round(scene.image.height * zoom)
    tile = (
        Image.fromarray(np.ascontiguousarray(pixels[..., ::-1])).resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    )
    for shape in shapes:
        layer = Image.new("RGBA", size)
        drawing = ImageDraw.Draw(layer)
        tint = _colour(positions[shape.category_id])
        for contour in shape.contours():
            points = [tuple(point) for point in (contour * zoom).tolist()]
            drawing.polygon(points, fill=(*tint, 85))
            drawing.line([*points, points[0]], fill=(*tint, 255), width=2, joint="curve")
        tile = Image.alpha_composite(tile, layer)
    drawing = ImageDraw.Draw(tile)
    font = ImageFont.load_default(_FONT)
    taken: list[np.ndarray] = []
    for shape in shapes:
        text = f"{shape.name} ({shape.letter})" + ("" if shape.score is None else f" {shape.score:.2f}")
        left, top, right, bottom = drawing.textbbox((0, 0), text, font=font)
        extent = right - left + 4, bottom - top + 4
        place = _place(np.array(shape.box) * zoom, extent, taken, size)
        taken.append(place)
        drawing.rectangle(place.tolist(), fill=(150, 20, 28, 255) if shape.verdict == FALSE else (20, 22, 26, 255))
        drawing.text((place[0] + 2 - left, place[1] + 2 - top), text, font=font, fill=(255, 255, 255, 255))
    return tile.convert("RGB")


def _pick(reader: SceneReader, sections: list[Section], paths: DatasetPaths) -> list[tuple[Scene, np.ndarray]]:
    """Scenes to show: found examples first, one of each group, then whatever there is."""
    ids = [image_id for section in sorted(sections, key=lambda s: not s.good) for image_id in section.image_ids]
    picked = []
    for image_id in ids or list(reader.dataset.image_by_id):
        scene = reader.scene(image_id)
        try:
            pixels = read_image(paths.image_path(scene.image), scene.image.height, scene.image.width)
        except UnreadableImageError:
            continue
        picked.append((scene, pixels))
        if len(picked) == TILES:
            break
    if not picked:
        raise UserError(f"no image of {reader.dataset.path} can be read below {paths.root}: nothing to draw")
    return picked


def _compose(picked: list[tuple[Scene, np.ndarray]], positions: dict[int, int]) -> Image.Image:
    rows: list[list[Image.Image]] = [[], []]
    for scene, pixels in picked:
        zoom = TILE / max(scene.image.height, scene.image.width)
        # Right or wrong only: what does not count in an image would only be in the way here.
        judged = [shape for shape in scene.detections if shape.verdict in (TRUE, FALSE)]
        rows[0].append(_tile(scene, pixels, scene.truths, positions, zoom))
        rows[1].append(_tile(scene, pixels, judged, positions, zoom))
    width = sum(tile.width + _GAP for tile in rows[0]) + _GAP
    height = max(tile.height for tile in rows[0])
    canvas = Image.new("RGB", (width, 2 * (height + _TITLE) + _GAP), _PAPER)
    drawing = ImageDraw.Draw(canvas)
    titles = ("Ground truth: r rare, c common, f frequent", "Predictions, with scores (red: wrong)")
    for row, (title, tiles) in enumerate(zip(titles, rows)):
        top = row * (height + _TITLE)
        drawing.text((_GAP, top + 4), title, font=ImageFont.load_default(14), fill=_INK)
        left = _GAP
        for tile in tiles:
            canvas.paste(tile, (left, top + _TITLE))
            left += tile.width + _GAP
    return canvas


def _encoded(picture: Image.Image, suffix: str) -> bytes:
    buffer = io.BytesIO()
    if suffix == ".png":
        picture.quantize(192, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "JPEG", quality=85, optimize=True)
    return buffer.getvalue()


def write_picture(reader: SceneReader, sections: list[Section], paths: DatasetPaths, output: Path) -> None:
    """Draw a few scenes into one file of at most :data:`MAX_BYTES` bytes.

    Args:
        reader: scenes.
        sections: examples to take from; found ones come first.
        paths: where the images lie.
        output: ``.png`` or ``.jpg``.

    Raises:
        UserError: another suffix, or no image can be read.
    """
    suffix = output.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"--picture {output}: the name must end in .png or .jpg")
    positions = {category_id: k for k, category_id in enumerate(reader.dataset.categories.ids.tolist())}
    picture = _compose(_pick(reader, sections, paths), positions)
    content = _encoded(picture, suffix)
    while len(content) > MAX_BYTES:
        picture = picture.resize((round(picture.width * 0.9), round(picture.height * 0.9)), Image.Resampling.LANCZOS)
        content = _encoded(picture, suffix)
    with atomic_output(output) as temporary:
        temporary.write_bytes(content)
