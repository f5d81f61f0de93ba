"""Backgrounds: muted floors, walls and fields with noise, and clutter that belongs to no category.

Whole-number arithmetic and OpenCV's bit-exact routines only. Grounds are int32 ``[S, S, 3]``, RGB.
"""

from __future__ import annotations

import cv2
import numpy as np

from pipeline_steps.mini_world.painting import color
from pipeline_steps.mini_world.randomness import chance


def _smooth_noise(rng: np.random.Generator, size: int, cells: int, channels: int = 1) -> np.ndarray:
    """Noise whose features are about ``size / cells`` pixels wide: int32 ``[size, size, channels]``, -128 to 127."""
    coarse = rng.integers(0, 256, size=(cells, cells, channels)).astype(np.uint8)
    noise = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR_EXACT)
    return noise.reshape(size, size, channels).astype(np.int32) - 128


def _muted(rng: np.random.Generator, low: int = 70, high: int = 200) -> np.ndarray:
    return color(int(rng.integers(360)), int(rng.integers(15, 95)), int(rng.integers(low, high)))


def _field(rng: np.random.Generator, size: int) -> np.ndarray:
    """Two muted colours mixed by clouds of noise."""
    mix = (_smooth_noise(rng, size, 4) + 128) * 2 // 3 + (_smooth_noise(rng, size, 9) + 128) // 3
    return (_muted(rng) * mix + _muted(rng) * (255 - mix)) // 255


def _planks(rng: np.random.Generator, size: int) -> np.ndarray:
    """Wooden boards with grain along them and dark gaps between them."""
    image = np.empty((size, size, 3), np.int32)
    wood = color(int(rng.integers(18, 44)), int(rng.integers(50, 120)), int(rng.integers(90, 190)))
    top = 0
    while top < size:
        height = int(rng.integers(size // 9, size // 4))
        board = wood * int(rng.integers(215, 290)) >> 8
        rows = min(height, size - top)
        noise = rng.integers(0, 256, size=(rows, 6)).astype(np.uint8)
        grain = cv2.resize(noise, (size, rows), interpolation=cv2.INTER_LINEAR_EXACT).astype(np.int32) - 128
        image[top : top + rows] = board * (256 + grain[..., None] // 5) >> 8
        image[top] = board // 2
        top += height
    return image if chance(rng, 0.5) else image.transpose(1, 0, 2).copy()


def _tiles(rng: np.random.Generator, size: int) -> np.ndarray:
    """Square tiles, each a little different, with light or dark joints."""
    edge = int(rng.integers(size // 8, size // 4))
    count = size // edge + 2
    base = _muted(rng)
    shades = rng.integers(225, 285, size=(count, count, 1))
    where = (np.arange(size) + int(rng.integers(edge))) // edge
    image = base * shades[where][:, where] >> 8
    joint = np.flatnonzero(np.diff(where, prepend=where[0]))
    joint_color = base * (310 if chance(rng, 0.5) else 150) >> 8
    image[joint] = joint_color
    image[:, joint] = joint_color
    return image + _smooth_noise(rng, size, 8) // 8


def _landscape(rng: np.random.Generator, size: int) -> np.ndarray:
    """A bright upper and a darker lower part with an uneven border."""
    sky, ground = _muted(rng, 150, 230), _muted(rng, 60, 150)
    profile = (_smooth_noise(rng, size, 6)[0, :, 0] * size // 1600) + int(rng.integers(size // 4, size * 3 // 5))
    rows = np.arange(size)[:, None]
    below = (rows > profile[None, :])[..., None]
    shade = (256 + (rows * 90 // size - 45))[..., None]
    return (np.where(below, ground, sky) * shade >> 8) + _smooth_noise(rng, size, 16) // 6


def _weave(rng: np.random.Generator, size: int) -> np.ndarray:
    """Cloth: crossing threads and a broad two-colour check."""
    first, second = _muted(rng), _muted(rng)
    width = int(rng.integers(size // 10, size // 5))
    band = (np.arange(size) // width) % 2
    check = (band[:, None] + band[None, :])[..., None]
    image = (first * (2 - check) + second * check) // 2
    thread = ((np.arange(size)[:, None] + np.arange(size)[None, :] * 3) % 4)[..., None]
    return image + thread * 5 - 8


_GROUNDS = (_field, _field, _planks, _tiles, _landscape, _weave)


def _scribble(rng: np.random.Generator, image: np.ndarray) -> None:
    size = image.shape[0]
    points = rng.integers(-size // 8, size + size // 8, size=(int(rng.integers(2, 5)), 2)).astype(np.int32)
    ink = [int(channel) for channel in _muted(rng, 40, 240)]
    cv2.polylines(image, [points], False, ink, int(rng.integers(1, 3)), cv2.LINE_AA)


def _pebble(rng: np.random.Generator, image: np.ndarray) -> None:
    """An irregular dull blob with a darker lower edge."""
    size = image.shape[0]
    corners = int(rng.integers(5, 9))
    steps = np.sort(rng.integers(0, 4096, size=corners))
    radii = rng.integers(size // 40 + 1, size // 10, size=corners)
    # A square instead of a circle to walk around: enough for an irregular blob, and exact.
    side, along = np.divmod(steps, 1024)
    along = along * 2 - 1024
    x = np.choose(side, [along, np.full(corners, 1024), -along, np.full(corners, -1024)])
    y = np.choose(side, [np.full(corners, -1024), along, np.full(corners, 1024), -along])
    center = rng.integers(0, size, size=2)
    points = np.stack([center[0] + x * radii // 1100, center[1] + y * radii // 1100], axis=1).astype(np.int32)
    paint = _muted(rng, 60, 210)
    cv2.fillPoly(image, [points + 1], [int(channel) for channel in paint // 2], cv2.LINE_AA)
    cv2.fillPoly(image, [points], [int(channel) for channel in paint], cv2.LINE_AA)


def draw_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A background with clutter: int32 ``[size, size, 3]``, 0 to 255, RGB."""
    ground = _GROUNDS[int(rng.integers(len(_GROUNDS)))](rng, size)
    ground = np.clip(ground + _smooth_noise(rng, size, 12, 3) // 14, 0, 255)
    image = np.ascontiguousarray(ground.astype(np.uint8))
    for _ in range(int(rng.integers(2, 8))):
        (_scribble if chance(rng, 0.4) else _pebble)(rng, image)
    return image.astype(np.int32)


def finish(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Light that falls off across the picture, and sensor noise: uint8 ``[S, S, 3]``."""
    size = image.shape[0]
    slope_x, slope_y = int(rng.integers(-26, 27)), int(rng.integers(-26, 27))
    across = (np.arange(size) - size // 2) * 2
    light = 256 + (across[None, :] * slope_x + across[:, None] * slope_y) // size
    noise = rng.integers(-6, 7, size=(size, size, 1))
    return np.clip((image * light[..., None] >> 8) + noise, 0, 255).astype(np.uint8)
