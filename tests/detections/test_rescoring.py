"""Re-scoring: what the rule of the paper says goes where, and nothing else moves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_steps.detections.rescoring import alpha_by_category, keep_top, rank_scores
from pipeline_steps.recipe.testing import RescoringAlpha

RARE, COMMON, FREQUENT = 3, 5, 9
ALPHAS = alpha_by_category([RARE, COMMON, FREQUENT], ["r", "c", "f"], RescoringAlpha())

scores_lists = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60)


def ranked(scores, categories, alphas=ALPHAS, cap=300):
    scores = np.array(scores, np.float32)
    return keep_top(scores, rank_scores(scores, np.array(categories), alphas), cap).tolist()


def test_the_report_adds_a_tenth_to_rare_and_a_twentieth_to_common_scores():
    ranks = rank_scores(np.full(3, 0.5, np.float32), np.array([RARE, COMMON, FREQUENT]), ALPHAS)
    np.testing.assert_array_equal(ranks, np.array([0.6, 0.55, 0.5], np.float32))
    assert ranks.dtype == np.float32


@given(scores=scores_lists, seed=st.integers(0, 999), rare=st.floats(0, 2), common=st.floats(0, 2))
def test_within_a_category_the_order_never_changes(scores, seed, rare, common):
    alphas = alpha_by_category([RARE, COMMON, FREQUENT], "rcf", RescoringAlpha(rare=rare, common=common))
    categories = np.random.default_rng(seed).choice([RARE, COMMON, FREQUENT], len(scores))
    order = ranked(scores, categories, alphas)
    plain = np.argsort(-np.array(scores, np.float32), kind="stable").tolist()
    for category in (RARE, COMMON, FREQUENT):
        assert [i for i in order if categories[i] == category] == [i for i in plain if categories[i] == category]


@given(scores=scores_lists, seed=st.integers(0, 999))
def test_alpha_zero_is_the_identity(scores, seed):
    alphas = alpha_by_category([RARE, COMMON, FREQUENT], "rcf", RescoringAlpha(rare=0, common=0, frequent=0))
    categories = np.random.default_rng(seed).choice([RARE, COMMON, FREQUENT], len(scores))
    scores = np.array(scores, np.float32)
    np.testing.assert_array_equal(rank_scores(scores, categories, alphas), scores)


@given(rare=st.floats(0, 1), frequent=st.floats(0, 1))
def test_rare_goes_before_frequent_exactly_if_its_score_plus_alpha_is_above(rare, frequent):
    ranks = rank_scores(np.array([rare, frequent], np.float32), np.array([RARE, FREQUENT]), ALPHAS)
    first = ranked([rare, frequent], [RARE, FREQUENT])[0]
    # The rule on the stored numbers: both sides are float32.
    above = ranks[0] > np.float32(frequent) or (ranks[0] == np.float32(frequent) and np.float32(rare) >= ranks[1])
    assert (first == 0) == above


def test_equal_sums_leave_the_frequent_detection_in_front():
    """The rule is a strict inequality; 0.5 + 0.25 and 0.75 are equal without any rounding."""
    alphas = alpha_by_category([RARE, FREQUENT], "rf", RescoringAlpha(rare=0.25))
    assert ranked([0.5, 0.75], [RARE, FREQUENT], alphas) == [1, 0]


def test_with_a_binding_cap_a_rare_detection_displaces_the_frequent_one_that_the_rule_names():
    scores = [0.90, 0.42, 0.35, 0.30, 0.33, 0.24]
    categories = [FREQUENT, FREQUENT, FREQUENT, FREQUENT, RARE, RARE]
    without = alpha_by_category([RARE, FREQUENT], "rf", RescoringAlpha(rare=0))
    assert ranked(scores, categories, without, cap=4) == [0, 1, 2, 4]
    # 0.33 + 0.1 passes 0.42 and 0.35; 0.24 + 0.1 passes 0.30 but not 0.35: of the frequent ones, only 0.30 is out.
    assert ranked(scores, categories, cap=4) == [0, 4, 1, 2]
    assert ranked(scores, categories, cap=5) == [0, 4, 1, 2, 5]
    assert ranked(scores, categories, cap=6) == [0, 4, 1, 2, 5, 3]


def test_common_passes_frequent_by_half_as_much_and_rare_passes_common():
    assert ranked([0.46, 0.50], [COMMON, FREQUENT]) == [0, 1]
    assert ranked([0.44, 0.50], [COMMON, FREQUENT]) == [1, 0]
    assert ranked([0.46, 0.50], [RARE, COMMON]) == [0, 1]
    assert ranked([0.44, 0.50], [RARE, COMMON]) == [1, 0]


def test_tied_detections_keep_their_order():
    assert ranked([0.5, 0.5, 0.5], [FREQUENT] * 3, cap=2) == [0, 1]


def test_a_category_that_the_data_set_lacks_gets_no_number():
    assert np.isnan(rank_scores(np.array([0.5], np.float32), np.array([4]), ALPHAS)).all()


def test_an_unknown_frequency_letter_is_an_error():
    with pytest.raises(KeyError):
        alpha_by_category([1], ["x"], RescoringAlpha())
