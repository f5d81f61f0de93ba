"""Merging per category against ensemble-boxes, torchvision and slow references, and its tie rule."""

from __future__ import annotations

import warnings

import ensemble_boxes
import numpy as np
import pytest
import torch
from ensemble_boxes.ensemble_boxes_wbf import get_weighted_box
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import nms as torchvision_nms

from pipeline_steps.detections.fusion import Merged, nms, soft_nms, weighted_fusion

Members = tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]


def tie_free(seed: int, members: int = 4, per_member: int = 120, categories: int = 60) -> Members:
    """Boxes in [0, 1] around common objects, all scores different, as members of an ensemble find them."""
    rng = np.random.default_rng(seed)
    centres, sizes = rng.uniform(0.2, 0.8, (12, 2)), np.exp(rng.uniform(-3, -1.2, (12, 2)))
    labels = rng.integers(0, categories, (12, 3))
    boxes, scores, categories_ = [], [], []
    for _ in range(members):
        which = rng.integers(0, 12, per_member)
        centre = centres[which] + rng.normal(size=(per_member, 2)) * sizes[which] * 0.1
        size = sizes[which] * np.exp(rng.normal(size=(per_member, 2)) * 0.15)
        boxes.append(np.concatenate([centre - size / 2, centre + size / 2], axis=1).clip(0, 1))
        scores.append(rng.beta(0.6, 4, per_member))
        guess = rng.integers(0, categories, per_member)
        categories_.append(
            np.where(rng.random(per_member) < 0.25, guess, labels[which, rng.integers(0, 3, per_member)])
        )
    return boxes, scores, categories_


def joined(members: Members) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    boxes, scores, categories = (np.concatenate(part) for part in members)
    return boxes, scores, categories


def canonical(boxes, scores, categories) -> np.ndarray:
    """One row for each result, in an order that does not depend on the order of the results."""
    rows = np.column_stack([-np.asarray(scores), categories, boxes])
    return rows[np.lexsort(rows.T[::-1])]


def assert_equal_results(merged: Merged, categories: np.ndarray, reference, rtol: float = 0) -> None:
    ours, theirs = canonical(merged.boxes, merged.scores, categories[merged.index]), canonical(*reference)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=0)


@given(
    seed=st.integers(0, 2**20),
    members=st.integers(1, 6),
    categories=st.sampled_from([1, 5, 60, 1230]),
    iou=st.sampled_from([0.3, 0.5, 0.55, 0.9]),
)
def test_nms_is_ensemble_boxes_on_tie_free_input(seed, members, categories, iou):
    data = tie_free(seed, members, 60, categories)
    boxes, scores, labels = joined(data)
    assert_equal_results(nms(boxes, scores, labels, iou), labels, ensemble_boxes.nms(*data, iou_thr=iou))


@given(
    seed=st.integers(0, 2**20),
    members=st.integers(1, 6),
    categories=st.sampled_from([1, 5, 60, 1230]),
    iou=st.sampled_from([0.3, 0.5, 0.55, 0.9]),
    weighted=st.booleans(),
)
def test_weighted_fusion_is_ensemble_boxes_on_tie_free_input(seed, members, categories, iou, weighted):
    data = tie_free(seed, members, 60, categories)
    weights = np.random.default_rng(seed).uniform(0.5, 3, members) if weighted else np.ones(members)
    boxes, _, labels = joined(data)
    scores = np.concatenate([score * weight for score, weight in zip(data[1], weights)])
    merged = weighted_fusion(
        boxes, scores, labels, iou, np.full(categories, members), np.full(categories, weights.sum())
    )
    reference = ensemble_boxes.weighted_boxes_fusion(*data, weights=weights, iou_thr=iou)
    assert_equal_results(merged, labels, reference)


@given(seed=st.integers(0, 2**20), sigma=st.sampled_from([0.1, 0.5, 2.0]), threshold=st.sampled_from([0.0, 0.001, 0.2]))
def test_soft_nms_keeps_what_ensemble_boxes_keeps(seed, sigma, threshold):
    data = tie_free(seed, 3, 50, 5)
    boxes, scores, labels = joined(data)
    merged = soft_nms(boxes, scores, labels, sigma, threshold)
    kept_boxes, undecayed, kept_labels = ensemble_boxes.soft_nms(*data, sigma=sigma, thresh=threshold)
    original = Merged(merged.index, merged.boxes, scores[merged.index])
    assert_equal_results(original, labels, (kept_boxes, undecayed, kept_labels))


def iou_of(a: np.ndarray, b: np.ndarray) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union else 0.0


def slow_soft_nms(boxes, scores, categories, sigma, threshold):
    """Figure 2 of the paper, category by category; the earliest of several best goes first."""
    kept = []
    for category in np.unique(categories):
        left = {int(i): float(scores[i]) for i in np.flatnonzero(categories == category)}
        while left:
            best = max(left, key=lambda i: (left[i], -i))
            score = left.pop(best)
            if score > threshold:
                kept.append((best, score))
            left = {i: s * np.exp(-(iou_of(boxes[best], boxes[i]) ** 2) / sigma) for i, s in left.items()}
    return sorted(kept, key=lambda pair: (-pair[1], pair[0]))


@given(seed=st.integers(0, 2**20))
def test_soft_nms_returns_the_decayed_scores_of_the_paper(seed):
    boxes, scores, labels = joined(tie_free(seed, 2, 30, 3))
    merged = soft_nms(boxes, scores, labels, 0.5)
    expected = slow_soft_nms(boxes, scores, labels, 0.5, 0.0)
    assert merged.index.tolist() == [index for index, _ in expected]
    np.testing.assert_allclose(merged.scores, [score for _, score in expected], rtol=1e-12)


def grid_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes on a coarse grid: many identical, many without area, IoUs exactly at common thresholds."""
    corners = np.sort(rng.integers(0, 5, (count, 2, 2)), axis=1)
    return corners.reshape(-1, 4).astype(np.float64)


@given(
    seed=st.integers(0, 2**20),
    count=st.integers(0, 80),
    levels=st.sampled_from([1, 2, 5, 1000]),
    categories=st.sampled_from([1, 3]),
    iou=st.sampled_from([0.25, 0.5, 1.0]),
)
def test_nms_is_torchvision_per_category_with_ties_and_boxes_without_area(seed, count, levels, categories, iou):
    rng = np.random.default_rng(seed)
    boxes, scores = grid_boxes(rng, count), rng.integers(0, levels, count) / levels
    labels = rng.integers(0, categories, count)
    expected = []
    for category in range(categories):
        rows = np.flatnonzero(labels == category)
        kept = torchvision_nms(torch.from_numpy(boxes[rows]), torch.from_numpy(scores[rows]), iou)
        expected += rows[kept.numpy()].tolist()
    merged = nms(boxes, scores, labels, iou)
    assert merged.index.tolist() == sorted(expected, key=lambda row: (-scores[row], row))
    np.testing.assert_array_equal(merged.boxes, boxes[merged.index])
    np.testing.assert_array_equal(merged.scores, scores[merged.index])


def slow_weighted_fusion(boxes, scores, categories, iou, members):
    """Clusters as lists, fused by ensemble-boxes; ties by input position, equal overlaps to the older cluster."""
    results = []
    for category in np.unique(categories):
        clusters: list[list[int]] = []
        fused: list[np.ndarray] = []
        for row in sorted(np.flatnonzero(categories == category).tolist(), key=lambda row: (-scores[row], row)):
            overlaps = [iou_of(box, boxes[row]) for box in fused]
            best = int(np.argmax(overlaps)) if overlaps else -1
            if overlaps and overlaps[best] > iou:
                clusters[best].append(row)
                rows = [np.array([category, scores[i], 1, 0, *boxes[i]]) for i in clusters[best]]
                fused[best] = get_weighted_box(rows)[4:].astype(np.float64)
            else:
                clusters.append([row])
                fused.append(boxes[row])
        for cluster, box in zip(clusters, fused):
            score = np.float64(np.float32(scores[cluster].mean())) * min(len(cluster), members) / members
            results.append((cluster[0], score, box))
    return sorted(results, key=lambda result: (-result[1], result[0]))


@given(seed=st.integers(0, 2**20), count=st.integers(0, 60), levels=st.sampled_from([1, 4]))
def test_weighted_fusion_follows_its_tie_rule(seed, count, levels):
    rng = np.random.default_rng(seed)
    boxes, labels = grid_boxes(rng, count) / 4, rng.integers(0, 2, count)
    scores = 2.0 ** -rng.integers(0, levels, count)  # exact sums: ties stay ties on both sides
    merged = weighted_fusion(boxes, scores, labels, 0.4, np.full(2, 3), np.full(2, 3.0))
    expected = slow_weighted_fusion(boxes, scores, labels, 0.4, 3)
    assert merged.index.tolist() == [first for first, _, _ in expected]
    np.testing.assert_array_equal(merged.scores, [score for _, score, _ in expected])
    np.testing.assert_array_equal(merged.boxes, np.reshape([box for _, _, box in expected], (-1, 4)))


@pytest.mark.parametrize(
    "merge",
    [
        lambda *data: nms(*data, 0.5),
        lambda *data: soft_nms(*data, 0.5),
        lambda *data: weighted_fusion(*data, 0.5, np.full(9, 2), np.full(9, 2.0)),
    ],
    ids=["nms", "soft_nms", "wbf"],
)
class TestAdversarialInput:
    def test_nothing_gives_nothing(self, merge):
        merged = merge(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
        assert merged.index.shape == merged.scores.shape == (0,)
        assert merged.boxes.shape == (0, 4)

    def test_the_earlier_of_identical_detections_comes_first(self, merge):
        merged = merge(np.tile([0.1, 0.1, 0.6, 0.6], (5, 1)), np.full(5, 0.7), np.full(5, 3))
        assert merged.index[0] == 0
        assert merged.scores[0] == pytest.approx(0.7)

    def test_categories_never_touch_each_other(self, merge):
        merged = merge(np.tile([0.1, 0.1, 0.6, 0.6], (4, 1)), np.full(4, 0.7), np.array([2, 0, 8, 1]))
        assert merged.index.tolist() == [0, 1, 2, 3]

    def test_boxes_without_area_suppress_nothing(self, merge):
        boxes = np.array([[0.2, 0.2, 0.2, 0.8], [0.2, 0.2, 0.2, 0.8], [0.1, 0.1, 0.9, 0.9]])
        merged = merge(boxes, np.array([0.9, 0.8, 0.7]), np.zeros(3, int))
        assert merged.index.tolist() == [0, 1, 2]
        assert np.isfinite(merged.boxes).all()

    def test_scores_of_zero_give_finite_boxes(self, merge):
        merged = merge(np.tile([0.1, 0.1, 0.6, 0.6], (3, 1)), np.zeros(3), np.zeros(3, int))
        assert np.isfinite(merged.boxes).all()
        assert np.isfinite(merged.scores).all()

    def test_300_saturated_boxes_of_one_category(self, merge):
        rng = np.random.default_rng(0)
        corner = rng.uniform(0, 0.9, (300, 2))
        boxes = np.concatenate([corner, corner + 0.1], axis=1)
        merged = merge(boxes, np.ones(300), np.full(300, 7))
        assert 0 < len(merged.index) <= 300
        assert len(set(merged.index.tolist())) == len(merged.index)
        again = merge(boxes, np.ones(300), np.full(300, 7))
        for first, second in zip(merged, again):
            np.testing.assert_array_equal(first, second)

    def test_the_input_is_left_as_it_was(self, merge):
        boxes, scores, labels = joined(tie_free(0, 2, 40, 9))
        copies = boxes.copy(), scores.copy(), labels.copy()
        merge(boxes, scores, labels)
        for given_, copy in zip((boxes, scores, labels), copies):
            np.testing.assert_array_equal(given_, copy)


def test_members_that_cannot_know_a_category_do_not_lower_its_fused_scores():
    boxes, scores, labels = np.tile([0.1, 0.1, 0.6, 0.6], (2, 1)), np.array([0.8, 0.8]), np.array([0, 1])
    merged = weighted_fusion(boxes, scores, labels, 0.5, np.array([4, 2]), np.array([4.0, 2.0]))
    assert dict(zip(merged.index.tolist(), merged.scores.tolist())) == {0: 0.8 / 4, 1: 0.8 / 2}


def test_ensemble_boxes_warns_where_we_are_quiet():
    """The oracle drops boxes without area; the ensemble does so before merging, see the tests of the ensemble."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        empty = ensemble_boxes.weighted_boxes_fusion([[[0.2, 0.2, 0.2, 0.8]]], [[0.9]], [[0]])
    assert len(empty[0]) == 0
    assert "Zero area box skipped" in str(caught[0].message)
