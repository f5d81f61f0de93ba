"""One small picture of a few predictions with a message, for a README: what is annotated above, what is said below."""

import io
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from pipeline_steps.analysis.scenes import SceneReader, Shape
from pipeline_steps.analysis.showcase import ExampleGroup, Story, choose_stories
from pipeline_steps.common.atomic import atomic_output
from pipeline_steps.common.errors import UserError
from pipeline_steps.data.images import UnreadableImageError, read_image
from pipeline_steps.evaluation.matching import FALSE, TRUE
from pipeline_steps.report.badges import place_names
from pipeline_steps.report.gallery import colour
from pipeline_steps.run.data_files import DatasetPaths

TILE = 320  # longer edge of a tile, in pixels
TILES, SHOWN = 3, 4  # tiles side by side, and detections drawn in each
CANDIDATES = 300  # images to choose from
MAX_BYTES = 300_000  # the picture is made smaller until it has at most so many bytes

_GAP, _LINE, _FONT, _FAR = 8, 18, 12, 6
_PAPER, _INK = (255, 255, 255), (40, 46, 54)
_ROWS = ("Annotated, some of it (r rare, c common, f frequent)", "Best detections, with scores (red: wrong)")


def _chosen(story: Story) -> tuple[list[Shape], list[Shape]]:
    """Objects and detections to draw: those of the message, then the best ones."""
    scene = story.scene
    best = [k for k, shape in enumerate(scene.detections) if shape.verdict == TRUE]
    best.sort(key=lambda k: -(scene.detections[k].score or 0))
    told = [] if story.detection is None else [story.detection]
    detections = list(dict.fromkeys([*told, *best]))[:SHOWN]
    found = [int(scene.matches[0, k]) for k in detections]
    truths = list(dict.fromkeys(k for k in (story.truth, *found) if k >= 0)) or range(len(scene.truths))[:SHOWN]
    return [scene.truths[k] for k in truths], [scene.detections[k] for k in detections]


def _text(shape: Shape) -> str:
    name = textwrap.shorten(shape.name.replace("_", " "), 32, placeholder="…")
    return f"{name} ({shape.letter})" + ("" if shape.score is None else f" {shape.score:.2f}")


class Tile:
    """One image with shapes and their names."""

    def __init__(
        self, pixels: np.ndarray, shapes: list[Shape], objects: list[Shape], positions: dict[int, int]
    ) -> None:
        """Lay out names; :attr:`names` are their boxes x1 y1 x2 y2, None where there is no room.

        Args:
            pixels: uint8[H, W, 3], BGR.
            shapes: what to draw, the most important first.
            objects: what else no name should cover.
            positions: position of each category, which gives its colour.
        """
        zoom = TILE / max(pixels.shape[:2])
        self.size = round(pixels.shape[1] * zoom), round(pixels.shape[0] * zoom)
        self.pixels, self.shapes, self.positions = pixels, shapes, positions
        self.contours = [[contour * zoom for contour in shape.contours()] for shape in shapes]
        self.boxes = [tuple(value * zoom for value in shape.box) for shape in shapes]
        self.font = ImageFont.load_default(_FONT)
        covered = Image.new("L", self.size)
        for contour in (contour * zoom for shape in (*shapes, *objects) for contour in shape.contours()):
            ImageDraw.Draw(covered).polygon([tuple(point) for point in contour.tolist()], fill=1)
        sizes = [(self.font.getlength(_text(shape)) + 6, _FONT + 5) for shape in shapes]
        self.names = [
            None if place is None else (place[0] - w / 2, place[1] - h / 2, place[0] + w / 2, place[1] + h / 2)
            for place, (w, h) in zip(place_names(self.boxes, sizes, np.asarray(covered)), sizes)
        ]

    def draw(self) -> Image.Image:
        """The picture."""
        image = Image.fromarray(np.ascontiguousarray(self.pixels[..., ::-1]))
        tile = image.resize(self.size, Image.Resampling.LANCZOS).convert("RGBA")
        tints = [ImageColor.getrgb(colour(self.positions[s.category_id]).replace(" ", ",")) for s in self.shapes]
        for contours, tint in zip(self.contours, tints):
            layer = Image.new("RGBA", self.size)
            for points in ([tuple(point) for point in contour.tolist()] for contour in contours):
                ImageDraw.Draw(layer).polygon(points, fill=(*tint, 70))
                ImageDraw.Draw(layer).line([*points, points[0]], fill=(*tint, 255), width=2, joint="curve")
            tile = Image.alpha_composite(tile, layer)
        drawing = ImageDraw.Draw(tile)
        named = [
            (shape, box, name, tint)
            for shape, box, name, tint in zip(self.shapes, self.boxes, self.names, tints)
            if name
        ]
        for _, (x1, y1, x2, y2), (left, top, right, bottom), tint in named:
            end = min(max((x1 + x2) / 2, left), right), min(max((y1 + y2) / 2, top), bottom)
            if end[0] < x1 - _FAR or end[0] > x2 + _FAR or end[1] < y1 - _FAR or end[1] > y2 + _FAR:
                drawing.line([((x1 + x2) / 2, (y1 + y2) / 2), end], fill=(*tint, 255), width=1)
        for shape, _, name, tint in named:
            ground = (150, 20, 28, 255) if shape.verdict == FALSE else (20, 22, 26, 255)
            drawing.rectangle(name, fill=ground, outline=(*tint, 255))
            drawing.text((name[0] + 3, name[1] + 1), _text(shape), font=self.font, fill=(255, 255, 255, 255))
        return tile.convert("RGB")


def _pick(reader: SceneReader, sections: list[ExampleGroup], paths: DatasetPaths) -> list[tuple[Story, np.ndarray]]:
    """Stories to show, one of each kind and no image twice; where there are too few, examples without a message."""
    ids = list(dict.fromkeys(image_id for section in sections for image_id in section.image_ids))
    scenes = [reader.scene(image_id) for image_id in (ids or list(reader.dataset.image_by_id)[:CANDIDATES])]
    others = [Story(f"Image {scene.image.id}", 0.0, scene, -1) for scene in scenes]
    picked: dict[int, tuple[Story, np.ndarray]] = {}
    for stories in [*choose_stories(scenes), *[others] * TILES]:
        for story in stories:
            image = story.scene.image
            if image.id in picked or len(picked) == TILES:
                continue
            try:
                picked[image.id] = story, read_image(paths.image_path(image), image.height, image.width)
                break
            except UnreadableImageError:
                continue
    if not picked:
        raise UserError(f"no image of {reader.dataset.path} can be read below {paths.root}: nothing to draw")
    return list(picked.values())


def tiles(story: Story, pixels: np.ndarray, positions: dict[int, int]) -> tuple[Tile, Tile]:
    """The two tiles of a story: what is annotated, and what is said."""
    truths, detections = _chosen(story)
    objects = story.scene.truths
    return Tile(pixels, truths, objects, positions), Tile(pixels, detections, objects, positions)


def _compose(picked: list[tuple[Story, np.ndarray]], positions: dict[int, int]) -> Image.Image:
    columns = [tiles(story, pixels, positions) for story, pixels in picked]
    titles = [textwrap.wrap(story.title.replace("_", " "), 42)[:2] for story, _ in picked]
    head = _LINE * max(map(len, titles)) + _GAP
    height = max(above.size[1] for above, _ in columns)
    width = sum(above.size[0] + _GAP for above, _ in columns) + _GAP
    canvas = Image.new("RGB", (width, head + 2 * (height + _LINE + _GAP)), _PAPER)
    drawing, left = ImageDraw.Draw(canvas), _GAP
    for row, told in enumerate(_ROWS):
        drawing.text((_GAP, head + row * (height + _LINE + _GAP)), told, font=ImageFont.load_default(13), fill=_INK)
    for column, title in zip(columns, titles):
        for line, text in enumerate(title):
            drawing.text((left, 4 + line * _LINE), text, font=ImageFont.load_default(15), fill=_INK)
        for row, tile in enumerate(column):
            canvas.paste(tile.draw(), (left, head + row * (height + _LINE + _GAP) + _LINE))
        left += column[0].size[0] + _GAP
    return canvas


def _encoded(picture: Image.Image, suffix: str) -> bytes:
    buffer = io.BytesIO()
    if suffix == ".png":
        picture.quantize(192, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "JPEG", quality=85, optimize=True)
    return buffer.getvalue()


def write_picture(reader: SceneReader, sections: list[ExampleGroup], paths: DatasetPaths, output: Path) -> None:
    """Draw a few scenes into one file of at most :data:`MAX_BYTES` bytes.

    Args:
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
