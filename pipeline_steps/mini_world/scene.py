"""A finished picture and the truth about it: which object is visible where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline_steps.mini_world.background import draw_background, finish
from pipeline_steps.mini_world.layout import USUAL_SIZES, Arrangement, Placed, Wish
from pipeline_steps.mini_world.painting import draw_look, paint, paint_frame
from pipeline_steps.mini_world.stencil import SUPERSAMPLING, PlacedMask, cover


@dataclass
class SceneObject:
    """One object in a picture."""

    wish: Wish  # what it is
    visible: PlacedMask  # its visible part on the fine grid
    visible_share: float  # visible pixels over all its pixels inside the image
    truncated: bool  # the image's border cuts it

    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of the visible part in fine pixels; right and bottom exclusive."""
        rows = np.flatnonzero(self.visible.mask.any(1))
        columns = np.flatnonzero(self.visible.mask.any(0))
        x, y = self.visible.x, self.visible.y
        return x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1

    def pixel_mask(self, image_size: int) -> np.ndarray:
        """Image pixels that the visible part covers by half or more: bool ``[image_size, image_size]``."""
        fine = np.zeros((image_size * SUPERSAMPLING,) * 2, bool)
        fine[self.visible.window()] = self.visible.mask
        return cover(fine) * 2 >= SUPERSAMPLING**2


@dataclass
class DrawnScene:
    """A picture, uint8 RGB ``[S, S, 3]``, and its objects from bottom to top."""

    image: np.ndarray
    objects: list[SceneObject]

    @property
    def present(self) -> set[int]:
        """LVIS categories (0-based) of which the picture shows an object."""
        return {item.wish.key for item in self.objects if item.wish.key is not None}


def _visible_parts(order: Sequence[Placed], image_size: int) -> list[SceneObject]:
    covered = np.zeros((image_size * SUPERSAMPLING,) * 2, bool)
    objects = []
    for item in reversed(order):
        window = item.mask.window()
        visible = item.mask.mask & ~covered[window]
        # A picture belongs to its frame: it takes nothing of it away.
        if item.frame is None:
            covered[window] |= item.mask.mask
        count = int(np.count_nonzero(visible))
        truncated = item.area < np.count_nonzero(item.stencil.mask)
        if count:
            part = PlacedMask(item.mask.x, item.mask.y, visible)
            objects.append(SceneObject(item.wish, part, count / item.area, bool(truncated)))
    return objects[::-1]


def draw_scene(
    rng: np.random.Generator,
    wishes: Sequence[Wish],
    image_size: int,
    hue_jitter: int,
    sizes: tuple[float, float] = USUAL_SIZES,
) -> DrawnScene:
    """Draw a picture of ``wishes``; what finds no room without hiding too much of others is left out.

    Args:
        rng: the picture's own random stream; the same stream gives the same pixels.
        image_size: edge S in pixels.
        hue_jitter: greatest deviation of an object's hue, in degrees.
        sizes: smallest and largest object as parts of the image's edge.
    """
    image = draw_background(rng, image_size)
    layout = Arrangement(rng, image_size, sizes)
    layout.fill(wishes)
    order = layout.by_depth()
    for item in order:
        if item.wish.shape == "frame":
            paint_frame(image, item.stencil, item.column, item.row, rng)
            continue
        hue = int(rng.integers(360)) if item.wish.hue is None else item.wish.hue
        look = draw_look(rng, hue, hue_jitter, item.wish.depicted)
        paint(image, item.stencil, item.column, item.row, look, rng)
    return DrawnScene(finish(rng, image), _visible_parts(order, image_size))
