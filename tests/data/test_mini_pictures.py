"""Geometry, layout and painting of the mini world against slow or independent versions."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from pipeline_steps.mini_world import World
from pipeline_steps.mini_world.coco_format import run_lengths
from pipeline_steps.mini_world.layout import MIN_VISIBLE, MIN_VISIBLE_IN_GROUP, USUAL_SIZES, Wish, draw_size
from pipeline_steps.mini_world.painting import Look, color, paint
from pipeline_steps.mini_world.polygons import Polygon, area_of, polygons_of
from pipeline_steps.mini_world.randomness import geometric_weights, pick, stream
from pipeline_steps.mini_world.scene import draw_scene
from pipeline_steps.mini_world.shapes import EXTRA_SHAPES, SHAPES, UNIT, outlines
from pipeline_steps.mini_world.stencil import SUPERSAMPLING, TURN, PlacedMask, cover, make_stencil, place, rotate
from pipeline_steps.mini_world.vocabulary import HUES, build_vocabulary
from pipeline_steps.recipe.data import MiniWorld

S = SUPERSAMPLING


@pytest.fixture(scope="module")
def world() -> World:
    settings = MiniWorld(train_images=60, val_images=32, test_images=4, openimages_images=30, group_fraction=0.3)
    return World(settings)


def rasterize(polygons: list[Polygon], height: int, width: int) -> np.ndarray:
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))


def on_canvas(part: PlacedMask, edge: int) -> np.ndarray:
    canvas = np.zeros((edge, edge), bool)
    canvas[part.window()] = part.mask
    return canvas


def test_polygons_rasterise_to_the_visible_mask(world: World) -> None:
    ious = []
    for index in range(40):
        for item in world.scene("train", index).objects:
            truth = item.pixel_mask(128)
            drawn = rasterize(polygons_of(item.visible), 128, 128).astype(bool)
            ious.append((truth & drawn).sum() / (truth | drawn).sum())
    assert len(ious) > 200
    assert np.mean(ious) > 0.97
    assert min(ious) > 0.88


def test_the_polygon_of_a_rectangle_of_whole_pixels_is_exact() -> None:
    polygons = polygons_of(PlacedMask(3 * S, 5 * S, np.ones((7 * S, 10 * S), bool)))
    assert len(polygons) == 1
    assert sorted(zip(polygons[0][::2], polygons[0][1::2], strict=True)) == [(3, 5), (3, 12), (13, 5), (13, 12)]
    assert area_of(polygons, 20, 20) == 70


def test_a_ring_keeps_its_hole() -> None:
    ring = place(make_stencil("ring", (16 * S * 16, 16 * S * 16), 0), 2, 2, 40)
    assert ring is not None
    polygons = polygons_of(ring)
    assert len(polygons) == 1  # a key-hole, not a filled disk with another polygon
    drawn = rasterize(polygons, 40, 40)
    truth = cover(on_canvas(ring, 40 * S)) * 2 >= S * S
    assert drawn.sum() == pytest.approx(math.pi * 16**2 * (1 - 0.25), rel=0.04)
    assert (drawn.astype(bool) ^ truth).sum() < 0.05 * truth.sum()
    row, column = np.argwhere(truth).mean(0).round().astype(int)
    assert drawn[row - 6 : row + 7, column - 4 : column + 5].sum() == 0


def test_a_part_hidden_in_the_middle_becomes_two_polygons_without_specks() -> None:
    mask = np.ones((4 * S, 30 * S), bool)
    mask[:, 10 * S : 20 * S] = False
    mask[0, 15 * S] = True
    polygons = polygons_of(PlacedMask(0, 0, mask))
    assert len(polygons) == 2
    assert area_of(polygons, 32, 32) == 4 * 20


def test_the_largest_part_stays_however_small_and_nothing_gives_nothing() -> None:
    mask = np.zeros((8, 8), bool)
    assert polygons_of(PlacedMask(0, 0, mask)) == []
    mask[2:5, 2:4] = True
    assert len(polygons_of(PlacedMask(0, 0, mask))) == 1


def test_visible_parts_do_not_overlap_and_enough_of_every_object_is_seen(world: World) -> None:
    for index in range(20):
        scene = world.scene("train", index)
        total = np.zeros((128 * S, 128 * S), np.int64)
        for item in scene.objects:
            total[item.visible.window()] += item.visible.mask
            assert item.visible_share >= (MIN_VISIBLE_IN_GROUP if item.wish.group else MIN_VISIBLE)
        assert total.max() == 1


def test_objects_are_occluded_now_and_then(world: World) -> None:
    shares = [item.visible_share for index in range(40) for item in world.scene("train", index).objects]
    assert 0.08 < np.mean(np.array(shares) < 0.95) < 0.4


@pytest.mark.parametrize("hues", [1, 3, 4, 8])
def test_up_to_eight_hues_are_the_far_apart_ones_and_spread_evenly(hues: int) -> None:
    settings = MiniWorld(hues=hues, coco_matching=1)
    used = sorted({category.hue for category in build_vocabulary(settings).categories})
    assert used == [k * 8 // hues for k in range(hues)]


def test_sixteen_hues_make_categories_with_names_of_their_own_at_least_14_degrees_apart() -> None:
    categories = build_vocabulary(MiniWorld(hues=16)).categories
    assert len({category.synset for category in categories}) == len(categories) == 12 * 16
    words = [word for first, second, _ in HUES for word in (first, second)]
    assert len(set(words)) == len(words)
    angles = sorted(angle for _, _, angle in HUES)
    assert min((b - a) % 360 for a, b in zip(angles, angles[1:] + angles[:1])) == 14


def test_objects_are_as_large_as_the_settings_say() -> None:
    def extents(sizes: tuple[float, float]) -> np.ndarray:
        rng = stream(0, "sizes")
        return np.array([draw_size(rng, 128, sizes) for _ in range(300)]) / (16 * SUPERSAMPLING * 128)

    small = extents((0.14, 0.24))
    assert 0.1399 < small.min() < 0.142
    assert 0.22 < small.max() <= 0.2401
    assert extents(USUAL_SIZES).max() > 0.32


def test_certain_objects_are_always_in_the_picture() -> None:
    wishes = [Wish("star", 10, 5, certain=True), Wish("disk", 90, 7, certain=True), Wish("bar", 90, 8, certain=True)]
    wishes += [Wish("square", None, 1)] * 9
    for index in range(30):
        assert {5, 7, 8} <= draw_scene(stream(1, "crowded", index), wishes, 64, 10).present


def test_a_depicted_object_lies_inside_its_frame(world: World) -> None:
    wishes = [Wish("heart", 0, 3, depicted=True)]
    scene = draw_scene(stream(3, "depiction"), wishes, 128, 5)
    frame = next(item for item in scene.objects if item.wish.shape == "frame").box()
    picture = next(item for item in scene.objects if item.wish.depicted).box()
    assert frame[0] < picture[0] < picture[2] < frame[2]
    assert frame[1] < picture[1] < picture[3] < frame[3]


def test_painting_changes_exactly_the_covered_pixels() -> None:
    image = np.full((64, 64, 3), 128, np.int32)
    stencil = make_stencil("gear", (12 * 16 * S, 10 * 16 * S), 100, (1, 3))
    look = Look(color(0, 230, 220), color(0, 230, 120), "plain", 10, 0, shadow=0)
    paint(image, stencil, 20, 15, look, stream(0, "paint"))
    height, width = stencil.coverage.shape
    changed = (image != 128).any(2)
    assert not changed[:15].any()
    assert not changed[:, :20].any()
    inside = changed[15 : 15 + height, 20 : 20 + width]
    assert inside[stencil.coverage >= S * S // 2].all()
    assert not inside[stencil.coverage == 0].any()


@given(st.integers(0, 719), st.integers(0, 255), st.integers(0, 255))
def test_colours_are_those_of_the_standard_library(hue: int, saturation: int, value: int) -> None:
    expected = colorsys.hsv_to_rgb(hue % 360 / 360, saturation / 255, value / 255)
    assert np.abs(color(hue, saturation, value) - np.array(expected) * 255).max() <= 3


@given(st.integers(-30, 80), st.integers(-30, 80), st.integers(-30, 80), st.integers(-30, 80))
def test_overlap_is_the_overlap_of_whole_pictures(x1: int, y1: int, x2: int, y2: int) -> None:
    first = place(make_stencil("star", (500, 700), 30), x1, y1, 60)
    second = place(make_stencil("cross", (900, 400), 900), x2, y2, 60)
    if first is None or second is None:
        return
    both = on_canvas(first, 60 * S) & on_canvas(second, 60 * S)
    common = first.overlap(second)
    if common is None:
        assert not both.any()
    else:
        assert np.count_nonzero(first.mask[common[0]] & second.mask[common[1]]) == np.count_nonzero(both)


@given(st.integers(-40, 80), st.integers(-40, 80))
def test_placing_cuts_at_the_border_and_nowhere_else(column: int, row: int) -> None:
    stencil = make_stencil("heart", (700, 700), 0)
    wide = np.zeros((240 * S, 240 * S), bool)
    height, width = stencil.mask.shape
    wide[(80 + row) * S : (80 + row) * S + height, (80 + column) * S : (80 + column) * S + width] = stencil.mask
    expected = wide[80 * S : 140 * S, 80 * S : 140 * S]
    placed = place(stencil, column, row, 60)
    found = np.zeros_like(expected) if placed is None else on_canvas(placed, 60 * S)
    assert (found == expected).all()


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=6))
def test_run_lengths_are_what_pycocotools_decodes(rows: list[list[bool]]) -> None:
    mask = np.array(rows, bool)
    code = run_lengths(mask)
    assert (coco_mask.decode(coco_mask.frPyObjects(code, *mask.shape)).astype(bool) == mask).all()


@pytest.mark.parametrize("shape", [*SHAPES, *EXTRA_SHAPES])
def test_shapes_fill_the_unit_square_without_leaving_it(shape: str) -> None:
    outline = outlines(shape)[0]
    assert np.abs(outline).max() <= UNIT * 1.04
    assert (outline.max(0) - outline.min(0)).max() > 1.5 * UNIT
    coverage = make_stencil(shape, (20 * 16 * S, 20 * 16 * S), 0).coverage
    assert 0.15 < coverage.sum() / S**2 / 40**2 < 0.85


def test_rotation_by_a_quarter_turns_right_into_down() -> None:
    x, y = rotate(np.array([1000]), np.array([0]), TURN // 4)
    assert (int(x[0]), int(y[0])) == (0, 1000)


def test_the_tail_is_geometric_with_a_step_behind_the_head() -> None:
    cumulative = geometric_weights(6, 0.5, head=2, bonus=3.0)
    weights = np.diff(cumulative, prepend=0)
    assert weights[1:] / weights[:-1] == pytest.approx([0.5, 0.5 / 3, 0.5, 0.5, 0.5])
    assert cumulative[-1] == 1.0
    drawn = np.bincount(pick(stream(0, "pick"), cumulative, 20000), minlength=6) / 20000
    assert drawn == pytest.approx(weights, abs=0.015)
