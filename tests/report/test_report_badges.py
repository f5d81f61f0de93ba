"""Numbers in pictures: never one over another, and near their objects where there is room."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipeline_steps.report.badges import Badge, place_badges


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
