"""The losses against slow and obvious versions of their definitions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as mask_tools
from torch import Tensor

from pipeline_steps.modeling.losses import (
    GROUP_OVERLAP,
    classification_weights,
    equalization_weights,
    own_category_judged,
    region_row_weights,
    sigmoid_classification_loss,
    softmax_classification_loss,
)


def equation_4(labels: Tensor, image_index: Tensor, tail: Tensor, positive: list[set], negative: list[set]) -> Tensor:
    """w_rj of the paper's equation 4, letter by letter; background is the last label."""
    weights = torch.empty(len(labels), len(tail))
    for r, label in enumerate(labels.tolist()):
        for j in range(len(tail)):
            image = int(image_index[r])
            foreground = label != len(tail)
            unjudged = j not in positive[image] | negative[image]
            weights[r, j] = 0 if foreground and tail[j] and unjudged else 1
    return weights


def judged_matrix(positive: list[set], negative: list[set], categories: int) -> Tensor:
    judged = torch.zeros(len(positive), categories, dtype=torch.bool)
    for image, union in enumerate(p | n for p, n in zip(positive, negative)):
        judged[image, sorted(union)] = True
    return judged


class TestEqualizationWeights:
    @given(seed=st.integers(0, 2**31), images=st.integers(1, 4), categories=st.integers(1, 12), rows=st.integers(0, 20))
    def test_equal_equation_4_on_random_labels_and_sets(self, seed, images, categories, rows):
        generator = torch.Generator().manual_seed(seed)

        def random_sets() -> list[set]:
            chosen = torch.rand(images, categories, generator=generator) < 0.3
            return [set(row.nonzero()[:, 0].tolist()) for row in chosen]

        positive, negative = random_sets(), random_sets()
        labels = torch.randint(0, categories + 1, (rows,), generator=generator)
        image_index = torch.randint(0, images, (rows,), generator=generator)
        tail = torch.rand(categories, generator=generator) < 0.6
        ours = equalization_weights(labels, image_index, tail, judged_matrix(positive, negative, categories))
        assert torch.equal(ours, equation_4(labels, image_index, tail, positive, negative))

    # Categories: 0 rare (S_N), 1 rare (S_P through another object), 2 rare (not judged), 3 frequent (not judged),
    # 4 common (the proposal's own), 5 common (not judged).
    TAIL = torch.tensor([True, True, True, False, True, True])
    JUDGED = judged_matrix([{1, 4}, set()], [{0}, set()], 6)

    def weights_of(self, label: int, image: int = 0) -> list[float]:
        return equalization_weights(torch.tensor([label]), torch.tensor([image]), self.TAIL, self.JUDGED)[0].tolist()

    def test_background_proposal_keeps_every_category(self):
        assert self.weights_of(6) == [1, 1, 1, 1, 1, 1]
        assert self.weights_of(6, image=1) == [1, 1, 1, 1, 1, 1]

    def test_proposal_keeps_its_own_category(self):
        assert self.weights_of(4)[4] == 1

    def test_rare_category_verified_absent_keeps_its_loss(self):
        assert self.weights_of(4)[0] == 1

    def test_rare_category_annotated_through_another_object_keeps_its_loss(self):
        assert self.weights_of(4)[1] == 1

    def test_rare_and_common_categories_not_judged_get_no_loss(self):
        assert self.weights_of(4)[2] == 0
        assert self.weights_of(4)[5] == 0

    def test_frequent_category_keeps_its_loss(self):
        assert self.weights_of(4)[3] == 1

    def test_sets_of_one_image_do_not_reach_another(self):
        assert self.weights_of(3, image=1) == [0, 0, 0, 1, 0, 0]

    def test_without_sets_only_the_own_category_is_judged(self):
        labels = torch.tensor([4, 6, 2])
        index, judged = own_category_judged(labels, 6)
        expected = [[0, 0, 0, 1, 1, 0], [1] * 6, [0, 0, 1, 1, 0, 0]]
        assert equalization_weights(labels, index, self.TAIL, judged).tolist() == expected


def region_weights_loop(
    boxes: Tensor, labels: Tensor, regions: Tensor, region_weights: Tensor, threshold: float, background: int
) -> Tensor:
    result = []
    for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist()):
        weight = 1.0
        for (a1, b1, a2, b2), w in zip(regions.tolist(), region_weights.tolist()):
            overlap = max(0.0, min(x2, a2) - max(x1, a1)) * max(0.0, min(y2, b2) - max(y1, b1))
            union = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - overlap
            if label == background and union > 0 and overlap / union > threshold:
                weight = min(weight, w)
        result.append(weight)
    return torch.tensor(result)


class TestRegionRowWeights:
    @given(seed=st.integers(0, 2**31), rows=st.integers(0, 30), regions=st.integers(0, 6))
    def test_equal_a_loop_over_proposals_and_regions(self, seed, rows, regions):
        generator = torch.Generator().manual_seed(seed)

        def random_boxes(count: int) -> Tensor:
            corners = torch.randint(0, 20, (count, 2), generator=generator)
            return torch.cat([corners, corners + torch.randint(1, 12, (count, 2), generator=generator)], 1).float()

        boxes, region_boxes = random_boxes(rows), random_boxes(regions)
        labels = torch.randint(0, 3, (rows,), generator=generator)
        region_weights = torch.rand(regions, generator=generator)
        ours = region_row_weights(boxes, labels, region_boxes, region_weights, 0.3, 2)
        assert torch.equal(ours, region_weights_loop(boxes, labels, region_boxes, region_weights, 0.3, 2))

    @given(seed=st.integers(0, 2**31), rows=st.integers(1, 30), regions=st.integers(1, 6))
    def test_overlaps_with_one_and_with_many_objects_are_those_of_the_coco_evaluation(self, seed, rows, regions):
        """pycocotools divides by the proposal's area where the other box is a crowd."""
        generator = torch.Generator().manual_seed(seed)
        corners = torch.randint(0, 20, (rows + regions, 2), generator=generator)
        # Regions are up to the whole image, proposals are small: IoU and intersection over area differ.
        extents = torch.randint(1, 8, (rows + regions, 2), generator=generator)
        extents[rows:] *= torch.randint(1, 6, (regions, 1), generator=generator)
        boxes = torch.cat([corners, corners + extents], 1).float()
        groups = torch.rand(regions, generator=generator) < 0.5
        xywh = torch.cat([corners, extents], 1).double().numpy()
        overlaps = torch.from_numpy(mask_tools.iou(xywh[:rows], xywh[rows:], groups.byte().tolist()))
        hit = torch.where(groups, overlaps > GROUP_OVERLAP, overlaps > 0.3)
        weights = torch.rand(regions, generator=generator)
        expected = torch.where(hit, weights, torch.ones(())).amin(dim=1)
        labels = torch.full((rows,), 2)
        assert torch.equal(region_row_weights(boxes[:rows], labels, boxes[rows:], weights, 0.3, 2, groups), expected)

    def test_a_small_proposal_inside_a_large_group_is_ignored_and_inside_a_large_object_is_not(self):
        box, region = torch.tensor([[40.0, 40, 60, 60]]), torch.tensor([[0.0, 0, 100, 100]])
        arguments = (box, torch.tensor([5]), region, torch.tensor([0.0]), 0.5, 5)
        assert region_row_weights(*arguments, torch.tensor([True])).tolist() == [0.0]
        assert region_row_weights(*arguments, torch.tensor([False])).tolist() == [1.0]

    def test_half_a_proposal_in_a_group_is_not_above_the_threshold(self):
        box, region = torch.tensor([[0.0, 0, 10, 10], [1.0, 0, 11, 10]]), torch.tensor([[5.0, -50, 90, 50]])
        weights = region_row_weights(
            box, torch.tensor([5, 5]), region, torch.tensor([0.0]), 0.5, 5, torch.tensor([True])
        )
        assert weights.tolist() == [1.0, 0.0]

    def test_iou_equal_to_the_threshold_is_not_above_it(self):
        box, region = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 10, 20]])
        weights = region_row_weights(box, torch.tensor([5]), region, torch.tensor([0.5]), 0.5, 5)
        assert weights.tolist() == [1.0]

    def test_foreground_proposal_keeps_its_weight(self):
        box = torch.tensor([[0.0, 0, 10, 10]])
        assert region_row_weights(box, torch.tensor([3]), box, torch.tensor([0.0]), 0.5, 5).tolist() == [1.0]

    def test_smallest_weight_wins_when_several_regions_are_hit(self):
        box = torch.tensor([[0.0, 0, 10, 10]])
        weights = region_row_weights(box, torch.tensor([5]), box.repeat(3, 1), torch.tensor([0.5, 0.0, 0.7]), 0.5, 5)
        assert weights.tolist() == [0.0]


class TestClassificationWeights:
    def test_parts_multiply(self):
        generator = torch.Generator().manual_seed(3)
        labels = torch.tensor([0, 4, 2, 4, 1])
        image_index = torch.tensor([0, 0, 1, 1, 1])
        tail = torch.tensor([True, False, True, True])
        judged = torch.rand(2, 4, generator=generator) < 0.5
        known = torch.tensor([[True, False, True, False], [True, True, True, True]])
        rows = torch.tensor([1.0, 0.5, 1.0, 0.0, 1.0])
        ours = classification_weights(labels, image_index, tail=tail, judged=judged, known=known, row_weights=rows)
        equalization = equalization_weights(labels, image_index, tail, judged)
        for r in range(5):
            for j in range(4):
                assert ours[r, j] == equalization[r, j] * known[image_index[r], j] * rows[r]

    def test_unknown_category_gets_no_loss_from_background_or_foreground(self):
        known = torch.tensor([[True, False, True]])
        labels, index = torch.tensor([3, 0]), torch.tensor([0, 0])
        logits = torch.randn(2, 3, requires_grad=True)
        sigmoid_classification_loss(logits, labels, classification_weights(labels, index, known=known)).backward()
        assert (logits.grad[:, 1] == 0).all()
        assert (logits.grad[:, [0, 2]] != 0).all()

    def test_nothing_to_weight_is_none(self):
        assert classification_weights(torch.tensor([0]), torch.tensor([0])) is None

    def test_tables_of_the_caller_are_left_alone(self):
        known = torch.tensor([[True, False]])
        rows = torch.tensor([0.5])
        classification_weights(torch.tensor([2]), torch.tensor([0]), known=known, row_weights=rows)
        assert known.tolist() == [[True, False]]
        assert rows.tolist() == [0.5]


def plain_sigmoid_loss(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    target = F.one_hot(labels, logits.shape[1] + 1)[:, :-1].to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, target, weight=weights, reduction="sum") / len(logits)


def random_case(rows: int = 300, categories: int = 40, spread: float = 6.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    logits = torch.randn(rows, categories, generator=generator, dtype=torch.float64) * spread - 4
    labels = torch.randint(0, categories + 1, (rows,), generator=generator)
    weights = torch.rand(rows, categories, generator=generator, dtype=torch.float64)
    weights[weights < 0.3] = 0
    return logits, labels, weights


class TestSigmoidLoss:
    @pytest.mark.parametrize("shape", ["none", "rows", "full"])
    @pytest.mark.parametrize("rows", [1, 127, 128, 300])
    def test_value_and_gradient_equal_binary_cross_entropy_in_float64(self, rows, shape):
        logits, labels, weights = random_case(rows)
        weights = {"none": None, "rows": weights[:, :1], "full": weights}[shape]
        ours, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        loss = sigmoid_classification_loss(ours, labels, weights)
        expected = plain_sigmoid_loss(plain, labels, None if weights is None else weights.expand_as(logits))
        (loss * 3).backward()
        (expected * 3).backward()
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-10, atol=1e-15)

    def test_float32_gradient_keeps_its_relative_precision_for_tiny_scores(self):
        """A rare category's logit of -30 has a score of 1e-13: its gradient must not be rounding noise."""
        logits = torch.tensor([[-30.0, -12.0, 30.0, 100.0, -100.0]], requires_grad=True)
        sigmoid_classification_loss(logits, torch.tensor([5])).backward()
        expected = torch.sigmoid(logits.detach().double()).float()
        torch.testing.assert_close(logits.grad, expected, rtol=2e-5, atol=0)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_low_precision_logits_are_computed_in_float32(self, dtype):
        logits, labels, weights = random_case()
        low = logits.to(dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            loss = sigmoid_classification_loss(low, labels, weights.float())
        loss.backward()
        exact = low.detach().double().requires_grad_()
        expected = plain_sigmoid_loss(exact, labels, weights)
        expected.backward()
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
        assert low.grad.dtype == dtype
        torch.testing.assert_close(low.grad, exact.grad.to(dtype), rtol=1e-2, atol=1e-6)

    def test_without_proposals_is_zero_with_a_gradient_of_zero(self):
        features = torch.randn(0, 8)
        layer = torch.nn.Linear(8, 5)
        loss = sigmoid_classification_loss(layer(features), torch.zeros(0, dtype=torch.long), torch.zeros(0, 5))
        loss.backward()
        assert loss.item() == 0
        assert (layer.weight.grad == 0).all()

    def test_only_background_or_only_zero_weights(self):
        logits = torch.randn(3, 4, requires_grad=True)
        background = torch.full((3,), 4)
        torch.testing.assert_close(
            sigmoid_classification_loss(logits, background), plain_sigmoid_loss(logits, background, None)
        )
        loss = sigmoid_classification_loss(logits, torch.tensor([0, 1, 4]), torch.zeros(3, 4))
        loss.backward()
        assert loss.item() == 0
        assert (logits.grad == 0).all()

    def test_nonfinite_logits_are_not_hidden(self):
        logits = torch.zeros(2, 3)
        logits[0, 1] = torch.nan
        assert sigmoid_classification_loss(logits, torch.tensor([3, 0])).isnan()

    def test_rare_category_not_judged_gets_no_gradient_from_another_objects_proposal(self):
        tail, judged = torch.tensor([True, True, False]), torch.tensor([[True, False, True]])
        labels, index = torch.tensor([0, 3]), torch.tensor([0, 0])
        logits = torch.randn(2, 3, requires_grad=True)
        weights = classification_weights(labels, index, tail=tail, judged=judged)
        sigmoid_classification_loss(logits, labels, weights).backward()
        assert logits.grad[0, 1] == 0, "the proposal of category 0 must not push category 1 down"
        assert logits.grad[1, 1] > 0, "background does"
        assert logits.grad[0, 0] < 0, "the own category is pulled up"

    def test_saves_one_tensor_for_the_backward_pass(self):
        saved: list[int] = []
        logits, labels, weights = random_case()
        logits = logits.float().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.nbytes) or t, lambda t: t):
            sigmoid_classification_loss(logits, labels, weights.float())
        assert saved == [logits.nbytes]


class TestSoftmaxLoss:
    def test_equals_cross_entropy_without_weights(self):
        logits, labels, _ = random_case(50, 11)
        torch.testing.assert_close(
            softmax_classification_loss(logits, labels.clamp(max=10)), F.cross_entropy(logits, labels.clamp(max=10))
        )

    def test_row_weights_scale_the_rows_but_not_the_normaliser(self):
        logits, labels, _ = random_case(20, 7)
        labels = labels.clamp(max=6)
        rows = torch.rand(20, dtype=torch.float64)
        expected = sum(rows[r] * F.cross_entropy(logits[r : r + 1], labels[r : r + 1]) for r in range(20)) / 20
        torch.testing.assert_close(softmax_classification_loss(logits, labels, rows), expected)

    def test_unknown_categories_get_no_gradient(self):
        logits = torch.randn(2, 5, requires_grad=True)
        known = torch.tensor([[True, False, True, True], [True, False, False, True]])
        labels = torch.tensor([4, 0])
        loss = softmax_classification_loss(logits, labels, known=known)
        loss.backward()
        assert (logits.grad[:, :4][~known] == 0).all()
        kept = torch.cat([known, torch.ones(2, 1, dtype=torch.bool)], 1)
        by_hand = sum(torch.logsumexp(logits[r][kept[r]], 0) - logits[r, labels[r]] for r in range(2)) / 2
        torch.testing.assert_close(loss, by_hand)

    def test_without_proposals_is_zero_with_a_gradient_of_zero(self):
        logits = torch.zeros(0, 4, requires_grad=True)
        loss = softmax_classification_loss(logits, torch.zeros(0, dtype=torch.long))
        loss.backward()
        assert loss.item() == 0


def test_gradient_equals_the_public_formulations_with_a_third_of_its_saved_memory():
    """The benchmark's comparison on a small case; its times are no claim here."""
    from tests.benchmarks.eql_loss import measure

    (_, _, baseline), *ours = measure(rows=200, categories=60, device="cpu", repeats=1)
    assert all(saved <= 0.4 * baseline for _, _, saved in ours)
