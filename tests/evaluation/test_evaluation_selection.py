"""Caps against the obvious loop."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline_steps.evaluation.selection import most_per_image, within_cap

ROWS = st.lists(st.tuples(st.integers(1, 4), st.sampled_from([0.0, 0.25, 0.5, 1.0])), max_size=40)


def first_by_score(groups: list[int], scores: list[float], cap: int) -> list[bool]:
    """Keep the ``cap`` best of each group; Python's sort is stable."""
    kept: set[int] = set()
    for group in set(groups):
        rows = [row for row in range(len(groups)) if groups[row] == group]
        kept |= set(sorted(rows, key=lambda row: scores[row], reverse=True)[:cap])
    return [row in kept for row in range(len(groups))]


@given(ROWS, st.integers(1, 6))
def test_caps_keep_the_highest_scores_of_each_group_and_the_earlier_row_among_equals(
    rows: list[tuple[int, float]], cap: int
) -> None:
    groups, scores = [row[0] for row in rows], [row[1] for row in rows]
    expected = first_by_score(groups, scores, cap)
    assert within_cap(np.array(groups, np.int64), np.array(scores), cap).tolist() == expected


def test_most_per_image_counts_the_fullest_image() -> None:
    assert most_per_image(np.array([3, 5, 3, 3, 9])) == 3
    assert most_per_image(np.zeros(0, np.int64)) == 0
