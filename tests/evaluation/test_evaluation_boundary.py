"""Boundaries and their overlap against whole-image erosion, and boundary AP against the rules of the challenge."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from pipeline_steps.evaluation.boundary import boundaries, boundary_ious
from pipeline_steps.evaluation.overlaps import Overlaps, Shapes, mask_shapes


def whole_image_boundary(mask: np.ndarray, d: int) -> np.ndarray:
    """The definition: the mask without the pixels whose square of side 2 d + 1 is all mask, zeros around the image."""
    height, width = mask.shape
    padded = np.pad(mask, d)
    kept = mask.copy()
    for dy in range(2 * d + 1):
        for dx in range(2 * d + 1):
            kept &= padded[dy : dy + height, dx : dx + width]
    return mask & ~kept


def official_boundary(mask: np.ndarray, d: int) -> np.ndarray:
    """The same by the steps of the LVIS challenge 2021."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    kept = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=d)[1:-1, 1:-1]
    return mask & (kept == 0)


def shapes_of(*masks: np.ndarray) -> Shapes:
    rles = [mask_utils.encode(np.asfortranarray(mask, np.uint8))["counts"] for mask in masks]
    return mask_shapes(rles, np.array([len(mask) for mask in masks]))


def boundary_of(mask: np.ndarray, d: int) -> np.ndarray:
    """Ours, as pixels."""
    edge = boundaries(shapes_of(mask), np.array([0]), np.array([len(mask)]), np.array([d]))
    found = pixels(edge.edges, mask.shape)
    assert edge.areas[0] == found.sum()
    return found


def pixels(edges: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    flat = np.zeros(shape[0] * shape[1], bool)
    for start, end in edges.reshape(-1, 2).tolist():
        flat[start:end] = True
    return flat.reshape(shape, order="F")


@st.composite
def masks(draw: st.DrawFn, height: int, width: int) -> np.ndarray:
    """Empty, full, thin, speckled, with holes, at the border: what models and annotators write, and worse."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["noise", "dense", "boxes", "polygons", "full", "empty", "line"]))
    mask = np.zeros((height, width), bool)
    if kind in ("noise", "dense"):
        mask = rng.random((height, width)) < (0.3 if kind == "noise" else 0.97)
    elif kind == "full":
        mask[:] = True
    elif kind == "line":
        mask[rng.integers(height)] = True
        mask[:, rng.integers(width)] = True
    elif kind != "empty":
        canvas = np.zeros((height, width), np.uint8)
        for _ in range(rng.integers(1, 4)):
            if kind == "boxes":
                y, x = rng.integers(-3, height), rng.integers(-3, width)
                canvas[max(y, 0) : y + rng.integers(1, height + 3), max(x, 0) : x + rng.integers(1, width + 3)] ^= 1
            else:
                points = rng.integers(-5, max(height, width) + 5, (rng.integers(3, 9), 1, 2), dtype=np.int32)
                cv2.fillPoly(canvas, [points], 1)
        mask = canvas.astype(bool)
    return mask


@st.composite
def pairs_of_masks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    return draw(masks(height, width)), draw(masks(height, width)), draw(st.integers(1, 6))


@settings(max_examples=150)
@given(pairs_of_masks())
def test_boundaries_and_their_overlap_are_those_of_the_pixels(case: tuple[np.ndarray, np.ndarray, int]) -> None:
    mask, other, d = case
    expected = [whole_image_boundary(each, d) for each in (mask, other)]
    assert np.array_equal(expected[0], official_boundary(mask, d))
    assert np.array_equal(boundary_of(mask, d), expected[0])
    shapes = shapes_of(mask, other)
    sizes = np.array([mask.shape] * 2)
    zero, one = np.array([0]), np.ones(1)
    pair = Overlaps(zero, zero, zero, zero + 1, one)
    if mask.any() and other.any():
        iou = boundary_ious(shapes, shapes, pair, np.zeros(2, bool), sizes[:, 0], np.full(2, d))[0]
        assert iou == (expected[0] & expected[1]).sum() / (expected[0] | expected[1]).sum()
        assert boundary_ious(shapes, shapes, pair, np.ones(2, bool), sizes[:, 0], np.full(2, d))[0] == 1


@pytest.mark.parametrize("d", [1, 7, 16])
def test_boundary_of_large_outlines_with_holes_is_that_of_the_pixels(d: int) -> None:
    rng = np.random.default_rng(d)
    for _ in range(5):
        canvas = np.zeros((331, 240), np.uint8)
        angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        radii = rng.uniform(60, 190, 40)
        outline = np.stack([120 + radii * np.cos(angles), 160 + radii * np.sin(angles)], axis=1).astype(np.int32)
        cv2.fillPoly(canvas, [outline], 1)
        cv2.circle(canvas, (int(rng.integers(240)), int(rng.integers(331))), int(rng.integers(1, 60)), 0, -1)
        mask = canvas.astype(bool)
        expected = official_boundary(mask, d)
        assert 0 < expected.sum() < mask.sum()
        assert np.array_equal(boundary_of(mask, d), expected)
