"""The gradient record against autograd, and its sums against a slow count."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_steps.modeling.gradient_record import (
    GradientRecord,
    sigmoid_logit_gradients,
    softmax_logit_gradients,
)
from pipeline_steps.modeling.losses import (
    classification_weights,
    sigmoid_classification_loss,
    softmax_classification_loss,
)

ROWS, CATEGORIES, IMAGES = 60, 7, 3


def random_batch(seed: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "labels": torch.randint(0, CATEGORIES + 1, (ROWS,), generator=g),
        "image_index": torch.randint(0, IMAGES, (ROWS,), generator=g),
        "tail": torch.rand(CATEGORIES, generator=g) < 0.6,
        "judged": torch.rand(IMAGES, CATEGORIES, generator=g) < 0.3,
        "known": torch.rand(IMAGES, CATEGORIES, generator=g) < 0.8,
        "row_weights": torch.rand(ROWS, generator=g).round(decimals=0) * 0.5,
        "logits": torch.randn(ROWS, CATEGORIES + 1, generator=g) * 4,
    }


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), parts=st.sets(st.sampled_from(["tail", "judged", "known", "row_weights"])))
def test_sigmoid_and_eql_gradients_equal_autograds(seed, parts):
    batch = random_batch(seed)
    if "judged" in parts:
        parts = parts | {"tail"}
    weights = classification_weights(batch["labels"], batch["image_index"], **{part: batch[part] for part in parts})
    logits = batch["logits"][:, :-1].clone().requires_grad_()
    (sigmoid_classification_loss(logits, batch["labels"], weights) * ROWS).backward()
    recorded = sigmoid_logit_gradients(logits.detach(), batch["labels"], weights)
    torch.testing.assert_close(recorded, logits.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("with_known", [False, True])
@pytest.mark.parametrize("with_rows", [False, True])
def test_softmax_gradients_equal_autograds(with_known, with_rows):
    batch = random_batch(5)
    known = batch["known"][batch["image_index"]] if with_known else None
    rows = batch["row_weights"] if with_rows else None
    logits = batch["logits"].clone().requires_grad_()
    (softmax_classification_loss(logits, batch["labels"], rows, known) * ROWS).backward()
    recorded = softmax_logit_gradients(logits.detach(), batch["labels"], rows, known)
    torch.testing.assert_close(recorded, logits.grad[:, :-1], rtol=1e-4, atol=1e-6)


def test_sums_are_those_of_a_count_entry_by_entry():
    batch = random_batch(1)
    labels = batch["labels"]
    weights = classification_weights(labels, batch["image_index"], tail=batch["tail"], judged=batch["judged"])
    gradients = sigmoid_logit_gradients(batch["logits"][:, :-1], labels, weights)
    record = GradientRecord(1, CATEGORIES)
    record.add(gradients, labels, weights)
    expected = torch.zeros(4, CATEGORIES, dtype=torch.float64)
    for r in range(ROWS):
        for j in range(CATEGORIES):
            own = int(labels[r]) == j
            expected[0 if own else 1, j] += abs(float(gradients[r, j]))
            expected[2 if own else 3, j] += float(weights[r, j]) != 0
    torch.testing.assert_close(record.sums[0], expected, rtol=1e-9, atol=1e-9)
    assert (expected > 0).all(dim=1).any()


def test_eql_takes_discouragement_from_tail_categories_and_nothing_else():
    batch = random_batch(2)
    logits, labels = batch["logits"][:, :-1], batch["labels"]
    records = {}
    for name, tail in {"sigmoid": None, "eql": batch["tail"]}.items():
        weights = classification_weights(
            labels, batch["image_index"], tail=tail, judged=None if tail is None else batch["judged"]
        )
        record = GradientRecord(1, CATEGORIES)
        record.add(sigmoid_logit_gradients(logits, labels, weights), labels, weights)
        records[name] = record.sums[0]
    less = records["eql"][1] < records["sigmoid"][1]
    assert torch.equal(less, batch["tail"])
    own_judged = records["eql"][0] <= records["sigmoid"][0]
    assert own_judged.all()


def test_windows_share_the_iterations_evenly():
    record = GradientRecord(4, CATEGORIES)
    windows = []
    for iteration in range(10):
        record.begin(iteration, 10)
        windows.append(record.window)
    assert windows == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]


def test_a_batch_goes_to_the_present_window_only():
    record = GradientRecord(3, CATEGORIES)
    record.begin(1, 3)
    record.add(torch.ones(2, CATEGORIES), torch.tensor([0, CATEGORIES]), None)
    assert record.sums[[0, 2]].sum() == 0
    assert record.sums[1, 0].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert record.sums[1, 3].tolist() == [1, 2, 2, 2, 2, 2, 2]


def test_no_proposals_add_nothing():
    record = GradientRecord(1, CATEGORIES)
    labels = torch.zeros(0, dtype=torch.long)
    record.add(sigmoid_logit_gradients(torch.zeros(0, CATEGORIES), labels, None), labels, None)
    assert record.sums.sum() == 0
