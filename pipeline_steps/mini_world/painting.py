"""Painting an object: hue, texture, light from the upper left, dark rim, and a soft shadow on whatever lies below.

All arithmetic is on whole numbers, so that every platform paints the same pixels. Colours are R, G, B, 0 to 255.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from pipeline_steps.mini_world.randomness import chance
from pipeline_steps.mini_world.stencil import SUPERSAMPLING, Stencil, cover, rotate

Texture = Literal["plain", "stripes", "checks", "dots", "core", "glossy"]
TEXTURES: tuple[Texture, ...] = ("plain", "stripes", "checks", "dots", "core", "glossy", "glossy")

_FULL = SUPERSAMPLING * SUPERSAMPLING


def color(hue: int, saturation: int, value: int) -> np.ndarray:
    """RGB, int32 ``[3]``, of a hue in degrees and a saturation and value of 0 to 255."""
    sector, rest = divmod(hue % 360 * 256 // 60, 256)
    low = value * (255 - saturation) // 255
    falling = value * (255 * 256 - saturation * rest) // (255 * 256)
    rising = value * (255 * 256 - saturation * (256 - rest)) // (255 * 256)
    table = (
        (value, rising, low), (falling, value, low), (low, value, rising),
        (low, falling, value), (rising, low, value), (value, low, falling),
    )  # fmt: skip
    return np.array(table[sector], np.int32)


@dataclass(frozen=True)
class Look:
    """How one object is painted. Texture and brightness vary within a category; shape and hue alone make it."""

    main: np.ndarray
    second: np.ndarray
    texture: Texture
    period: int
    phase: int
    shadow: int
    flat: bool = False


def draw_look(rng: np.random.Generator, hue: int, hue_jitter: int, depicted: bool = False) -> Look:
    """A random look with a hue within ``hue_jitter`` degrees of ``hue``; depicted objects look flat and faded."""
    angle = hue + int(rng.integers(-hue_jitter, hue_jitter + 1))
    saturation, value = int(rng.integers(165, 246)), int(rng.integers(150, 251))
    if chance(rng, 0.6):
        second = color(angle, saturation, value * 5 // 9)
    else:
        second = color(angle, saturation * 4 // 9, min(255, value + 50))
    texture = TEXTURES[int(rng.integers(len(TEXTURES)))]
    period, phase, shadow = int(rng.integers(9, 15)), int(rng.integers(4096)), int(rng.integers(55, 95))
    main = color(angle, saturation, value)
    if depicted:
        main, second, texture = (main * 3 + 240) // 4, (second * 3 + 240) // 4, "plain"
    return Look(main, second, texture, period, phase, shadow, flat=depicted)


def _pattern(look: Look, u: np.ndarray, v: np.ndarray) -> np.ndarray | None:
    """Where the second colour goes: bool ``[h, w]``; u, v are 0 at the centre and +-256 at the object's edges."""
    wave = 256 * 4 // look.period
    match look.texture:
        case "stripes":
            return (u + look.phase) % (2 * wave) < wave
        case "checks":
            return ((u + look.phase) % (2 * wave) < wave) ^ ((v + look.phase // 2) % (2 * wave) < wave)
        case "dots":
            du, dv = (u + look.phase) % (2 * wave) - wave, (v + look.phase // 2) % (2 * wave) - wave
            return du * du + dv * dv < wave * wave * 3 // 10
        case "core":
            return u * u + v * v < 120 * 120
    return None


def _window(
    column: int, row: int, width: int, height: int, size: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Indices of a patch's part inside the image: into the image, and into the patch."""
    left, top = max(0, -column), max(0, -row)
    right, bottom = max(left, min(width, size - column)), max(top, min(height, size - row))
    image = slice(row + top, row + bottom), slice(column + left, column + right)
    return image, (slice(top, bottom), slice(left, right))


def cast_shadow(image: np.ndarray, coverage: np.ndarray, column: int, row: int, strength: int) -> None:
    """Darken ``image`` in place under a blurred copy of the object, moved to the lower right.

    Args:
        image: int32 ``[H, W, 3]``.
        coverage: int32 ``[h, w]``, 0 to 16.
        column, row: corner of the patch in the image.
        strength: darkening of the darkest part, of 256.
    """
    soft = cv2.boxFilter(np.pad(coverage, 4).astype(np.uint8), cv2.CV_32S, (5, 5), normalize=False)
    into, patch = _window(column - 4 + 2, row - 4 + 3, soft.shape[1], soft.shape[0], image.shape[0])
    light: np.ndarray = 256 - soft[patch][..., None] * strength // (25 * _FULL)
    image[into] = image[into] * light >> 8


def paint(image: np.ndarray, stencil: Stencil, column: int, row: int, look: Look, rng: np.random.Generator) -> None:
    """Paint one object over ``image``, int32 ``[H, W, 3]`` RGB, in place; parts outside are cut off."""
    coverage = stencil.coverage
    height, width = coverage.shape
    cast_shadow(image, coverage, column, row, look.shadow // (3 if look.flat else 1))

    s = SUPERSAMPLING
    x = np.arange(width, dtype=np.int64)[None, :] * s + s // 2 - stencil.center[0]
    y = np.arange(height, dtype=np.int64)[:, None] * s + s // 2 - stencil.center[1]
    u, v = rotate(x, y, -stencil.angle)
    u, v = u * 256 // max(1, stencil.half[0]), v * 256 // max(1, stencil.half[1])

    pattern = _pattern(look, u, v)
    paint_ = np.broadcast_to(look.main, (height, width, 3))
    if pattern is not None:
        paint_ = np.where(pattern[..., None], look.second, look.main)

    reach = sum(stencil.half)
    light = 256 - (x + y) * 46 // max(1, reach)  # the upper left is lit
    if not look.flat:
        relief = cv2.boxFilter(np.pad(coverage, 1).astype(np.uint8), cv2.CV_32S, (3, 3), normalize=False)
        slope = relief[2:, 2:] - relief[:-2, :-2]
        light = light + slope * 70 // (9 * _FULL)
        inner = cover(cv2.erode(stencil.mask.view(np.uint8), np.ones((2 * s - 1, 2 * s - 1), np.uint8)).view(bool))
        light = light - (coverage - inner) * 80 // _FULL  # a darker rim, about one pixel wide
    light = light + rng.integers(-9, 10, size=(height, width))
    lit = paint_ * light[..., None] >> 8
    if look.texture == "glossy" and not look.flat:
        du, dv = x * 256 // max(1, stencil.half[0]) + 85, y * 256 // max(1, stencil.half[1]) + 95
        shine = np.maximum(0, 130 - (du * du + dv * dv) * 130 // (105 * 105))
        lit = lit + shine[..., None]
    lit = np.clip(lit, 0, 255)

    into, patch = _window(column, row, width, height, image.shape[0])
    alpha = coverage[patch][..., None]
    image[into] = (image[into] * (_FULL - alpha) + lit[patch] * alpha + _FULL // 2) // _FULL


def paint_frame(image: np.ndarray, stencil: Stencil, column: int, row: int, rng: np.random.Generator) -> None:
    """Paint a picture frame: a wooden border around a pale canvas."""
    wood = color(int(rng.integers(22, 42)), int(rng.integers(90, 150)), int(rng.integers(90, 170)))
    look = Look(wood, wood * 3 // 4, "plain", 10, 0, 80)
    paint(image, stencil, column, row, look, rng)
    border = max(8, 2 * min(stencil.half) // 6)
    inner = cv2.erode(stencil.mask.view(np.uint8), np.ones((2 * border + 1, 2 * border + 1), np.uint8)).view(bool)
    canvas = color(int(rng.integers(360)), 18, int(rng.integers(215, 246)))
    inset = Stencil(inner, stencil.center, stencil.half, stencil.angle)
    paint(image, inset, column, row, Look(canvas, canvas, "plain", 10, 0, 0, flat=True), rng)
