"""Numbers in pictures: never one over another, and near their objects where there is room."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipeline_steps.report.badges import Badge, place_badges, place_names


def overlap(one: Badge, two: Badge) -> bool:
    return abs(one.x - two.x) < (one.w + two.w) / 2 - 1e-6 and abs(one.y - two.y) < (one.h + two.h) / 2 - 1e-6


@pytest.mark.parametrize("edge", [(128, 128), (640, 427), (40, 300), (33, 500)])
@pytest.mark.parametrize("count", [0, 1, 12, 120])
@pytest.mark.parametrize("spread", [0.0, 0.05, 1.0, 3.0])
def test_no_number_covers_another_or_leaves_the_image(edge: tuple[int, int], count: int, spread: float) -> None:
    rng = np.random.default_rng(count)
    wanted = (np.array(edge) * (0.5 + spread * (rng.random((count, 2)) - 0.5))).tolist()
    badges = place_badges(wanted, edge)
    assert len(badges) == count
    assert not any(overlap(one, two) for one, two in itertools.combinations(badges, 2))
    for badge in badges:
        assert badge.w / 2 - 1e-6 <= badge.x <= edge[0] - badge.w / 2 + 1e-6
        assert badge.h / 2 - 1e-6 <= badge.y <= edge[1] - badge.h / 2 + 1e-6


def test_numbers_with_room_stand_where_they_are_wanted() -> None:
    wanted = [(20.0, 20.0), (60.0, 20.0), (20.0, 60.0), (100.0, 100.0)]
    assert [(badge.x, badge.y) for badge in place_badges(wanted, (128, 128))] == wanted


def test_a_number_that_had_to_move_far_is_led_to_its_object() -> None:
    badges = place_badges([(64.0, 64.0)] * 30, (128, 128))
    assert not badges[0].moved
    assert badges[-1].moved


@pytest.mark.parametrize("edge", [(320, 213), (320, 320), (90, 320)])
@pytest.mark.parametrize("count", [1, 5, 60])
@pytest.mark.parametrize("spread", [0.0, 0.3, 1.4])
def test_no_name_covers_another_or_leaves_the_picture(edge: tuple[int, int], count: int, spread: float) -> None:
    rng = np.random.default_rng(count)
    middles = np.array(edge) * (0.5 + spread * (rng.random((count, 2)) - 0.5))
    boxes = [(x - 20, y - 15, x + 20, y + 15) for x, y in middles.tolist()]
    sizes = [(40 + 70 * value, 17.0) for value in rng.random(count).tolist()]
    objects = (rng.random(edge[::-1]) < 0.3).astype(np.uint8)
    places = place_names(boxes, sizes, objects)
    named = [Badge(*place, *size, False) for place, size in zip(places, sizes) if place]
    assert places[0] or sizes[0][0] > edge[0]
    assert len(places) == count
    assert len(named) == count or count == 60 or edge[0] < 110
    assert not any(overlap(one, two) for one, two in itertools.combinations(named, 2))
    for badge in named:
        assert badge.w / 2 - 1e-6 <= badge.x <= edge[0] - badge.w / 2 + 1e-6
        assert badge.h / 2 - 1e-6 <= badge.y <= edge[1] - badge.h / 2 + 1e-6


def test_names_stand_beside_their_objects_and_off_all_objects_where_there_is_room() -> None:
    objects = np.zeros((200, 300), np.uint8)
    boxes = [(40, 60, 90, 110), (90, 60, 150, 110), (200, 0, 300, 40)]
    for x1, y1, x2, y2 in boxes:
        objects[y1:y2, x1:x2] = 1
    for (x1, y1, x2, y2), (x, y) in zip(boxes, place_names(boxes, [(60.0, 17.0)] * 3, objects)):
        assert not objects[int(y - 8.5) : int(y + 8.5), int(x - 30) : int(x + 30)].any()
        assert max(x1 - x - 30, x - 30 - x2, y1 - y - 8.5, y - 8.5 - y2) < 4  # beside its own object
