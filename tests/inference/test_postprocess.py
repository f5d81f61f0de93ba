"""select_detections and its siblings give what detectron2's fast_rcnn_inference gives, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import boxes as torchvision_boxes
from torchvision.ops import clip_boxes_to_image

from pipeline_steps.inference import lazy_nms, postprocess
from pipeline_steps.inference.nms_device import (
    TooManyCloseCalls,
    keep_greedily_by_rounds,
    select_lazily_on_device,
    suppression_matrix,
)
from pipeline_steps.inference.postprocess import (
    Detections,
    merge_detections,
    select_detections,
    select_detections_from_deltas,
)

pytestmark = pytest.mark.usefixtures("stable_sort")
TRANSFORM = Box2BoxTransform((10.0, 10.0, 5.0, 5.0))


def reference(boxes, scores, image_size, score_threshold, nms_threshold, top_k) -> Detections:
    """detectron2, with an empty background column."""
    padded = torch.cat([scores, scores.new_zeros(len(scores), 1)], dim=1)
    found, index = fast_rcnn_inference_single_image(boxes, padded, image_size, score_threshold, nms_threshold, top_k)
    return Detections(found.pred_boxes.tensor, found.scores, found.pred_classes, index)


def assert_same(ours: Detections, theirs: Detections) -> None:
    for name, a, b in zip(Detections._fields, ours, theirs):
        assert a.dtype == b.dtype, name
        assert torch.equal(a, b), name


def make_boxes(generator: np.random.Generator, rows: int, categories: int, grid: float) -> torch.Tensor:
    """Boxes [rows, 4 * categories] around a few objects, partly outside of 100 x 120; coordinates on a grid if > 0."""
    centre = generator.uniform(0, 110, (3, 2))[generator.integers(0, 3, rows)]
    centre = centre[:, None] + generator.normal(0, 6, (rows, categories, 2))
    size = np.exp(generator.normal(3, 0.6, (rows, categories, 2)))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=2)
    boxes = np.round(boxes / grid) * grid if grid else boxes
    return torch.from_numpy(boxes.reshape(rows, 4 * categories).astype(np.float32))


def make_scores(generator: np.random.Generator, rows: int, categories: int, levels: int) -> torch.Tensor:
    """Scores [rows, categories], most of them small; ``levels`` > 0 gives many ties."""
    scores = generator.uniform(0, 1, (rows, categories)) ** 4
    scores = np.ceil(scores * levels) / levels if levels else scores
    return torch.from_numpy(scores.astype(np.float32))


@pytest.mark.parametrize("specific", [False, True], ids=["class_agnostic", "class_specific"])
@pytest.mark.parametrize("first_chunk", [16, 2048])
@pytest.mark.parametrize("score_threshold", [0.0, 0.05, 0.9, 1.0])
def test_equals_detectron2_on_random_input(specific, first_chunk, score_threshold, monkeypatch):
    monkeypatch.setattr(lazy_nms, "FIRST_CHUNK", first_chunk)
    generator = np.random.default_rng(0)
    for top_k in (300, 1, 0, 20, -1):
        boxes = make_boxes(generator, 150, 40 if specific else 1, 0)
        scores = make_scores(generator, 150, 40, 0)
        arguments = (boxes, scores, (100, 120), score_threshold, 0.5, top_k)
        assert_same(select_detections(*arguments), reference(*arguments))


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 90),
    categories=st.integers(1, 60),
    specific=st.booleans(),
    levels=st.sampled_from([0, 1, 2, 7, 100]),
    grid=st.sampled_from([0, 0, 1, 5, 50]),
    score_threshold=st.sampled_from([0.0, 0.05, 0.5, 1 / 7, 1.0]),
    nms_threshold=st.sampled_from([0.5, 0.3, 1 / 3, 0.0, 0.7, 1.0]),
    top_k=st.sampled_from([-1, 0, 1, 10, 300, 5000]),
    first_chunk=st.sampled_from([8, 100, 2048]),
    broken=st.sampled_from([0, 0, 0, 1, 5]),
)
def test_equals_detectron2_on_any_input(
    seed, rows, categories, specific, levels, grid, score_threshold, nms_threshold, top_k, first_chunk, broken
):
    generator = np.random.default_rng(seed)
    boxes = make_boxes(generator, rows, categories if specific else 1, grid)
    scores = make_scores(generator, rows, categories, levels)
    for _ in range(broken if rows else 0):  # NaN and infinities in scores or boxes
        target = (boxes, scores)[generator.integers(2)]
        row, column = generator.integers(rows), generator.integers(target.shape[1])
        target[row, column] = float(generator.choice([np.nan, np.inf, -np.inf]))
    arguments = (boxes, scores, (100, 120), score_threshold, nms_threshold, top_k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lazy_nms, "FIRST_CHUNK", first_chunk)
        assert_same(select_detections(*arguments), reference(*arguments))


ADVERSARIAL = {
    "all scores equal": lambda g: (make_boxes(g, 60, 1, 0), torch.full((60, 50), 0.25)),
    "saturated scores": lambda g: (make_boxes(g, 60, 1, 0), torch.ones(60, 50)),
    "identical boxes": lambda g: (torch.tensor([[5.0, 5, 50, 60]]).repeat(60, 1), make_scores(g, 60, 50, 0)),
    "boxes without area": lambda g: (torch.tensor([[5.0, 5, 5, 60]]).repeat(60, 1), make_scores(g, 60, 50, 3)),
    "boxes outside": lambda g: (make_boxes(g, 60, 1, 0) + 500, make_scores(g, 60, 50, 0)),
    "corners swapped": lambda g: (make_boxes(g, 60, 1, 0)[:, [2, 3, 0, 1]], make_scores(g, 60, 50, 0)),
    "one category": lambda g: (make_boxes(g, 3000, 1, 0), make_scores(g, 3000, 1, 0)),
    "IoU at the threshold": lambda g: (
        torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 5, 10, 10], [0, 0, 5, 10]]).repeat(15, 1),
        make_scores(g, 60, 50, 0),
    ),
    "negative scores": lambda g: (make_boxes(g, 60, 1, 0), make_scores(g, 60, 50, 0) - 0.5),
    "tiny scores": lambda g: (make_boxes(g, 60, 1, 0), make_scores(g, 60, 50, 0) * 1e-39),
    "huge boxes": lambda g: (make_boxes(g, 60, 1, 0) * 1e36, make_scores(g, 60, 50, 0)),
    "one NaN row": lambda g: (
        make_boxes(g, 60, 1, 0),
        make_scores(g, 60, 50, 0).index_fill_(0, torch.tensor([7]), torch.nan),
    ),
    "no proposals": lambda g: (torch.zeros(0, 4), torch.zeros(0, 50)),
    "thousand candidates": lambda g: (make_boxes(g, 20, 1, 0), make_scores(g, 20, 50, 0) + 0.01),
    "thousand and one candidates": lambda g: (make_boxes(g, 143, 1, 0), make_scores(g, 143, 7, 0) + 0.01),
}


@pytest.mark.parametrize("case", ADVERSARIAL)
@pytest.mark.parametrize("first_chunk", [50, 2048])
def test_equals_detectron2_on_adversarial_input(case, first_chunk, monkeypatch):
    monkeypatch.setattr(lazy_nms, "FIRST_CHUNK", first_chunk)
    boxes, scores = ADVERSARIAL[case](np.random.default_rng(1))
    for threshold in (0.0, 0.5, -1.0):
        for top_k in (300, -1, 5):
            arguments = (boxes.clone(), scores.clone(), (100, 120), threshold, 0.5, top_k)
            assert_same(select_detections(*arguments), reference(*arguments))


def test_score_threshold_is_compared_in_float32():
    # 0.05 as float32 is above 0.05 as float64: a float64 comparison would keep these.
    scores = torch.full((60, 50), 0.05)
    boxes = make_boxes(np.random.default_rng(0), 60, 1, 0)
    assert len(select_detections(boxes, scores, (100, 120), 0.05, 0.5, 300).scores) == 0


def test_input_is_not_changed_and_may_be_a_slice():
    generator = np.random.default_rng(0)
    boxes, scores = make_boxes(generator, 60, 1, 0) * 3, make_scores(generator, 60, 51, 0)
    before = boxes.clone(), scores.clone()
    arguments = (boxes, scores[:, :-1], (100, 120), 0.0, 0.5, 100)
    assert_same(select_detections(*arguments), reference(*arguments))
    assert torch.equal(boxes, before[0])
    assert torch.equal(scores, before[1])


@pytest.mark.parametrize(("boxes", "scores"), [((5, 8), (5, 3)), ((5, 4), (6, 3)), ((5, 4), (5,))])
def test_shapes_that_do_not_fit_are_refused(boxes, scores):
    with pytest.raises(ValueError, match=r"expected|neither"):
        select_detections(torch.zeros(boxes), torch.zeros(scores), (10, 10), 0.0, 0.5, 10)


@pytest.mark.parametrize("specific", [False, True], ids=["class_agnostic", "class_specific"])
@pytest.mark.parametrize("broken", [None, np.nan, np.inf, 3e38])
def test_decoding_candidates_only_equals_decoding_everything(specific, broken):
    generator = np.random.default_rng(0)
    deltas = torch.from_numpy(generator.normal(0, 1, (120, 160 if specific else 4)).astype(np.float32))
    if broken is not None:
        deltas[3, 1] = broken
    proposals, scores = make_boxes(generator, 120, 1, 0), make_scores(generator, 120, 40, 0)
    ours = select_detections_from_deltas(deltas, proposals, TRANSFORM.apply_deltas, scores, (100, 120), 0.0, 0.5, 300)
    theirs = reference(TRANSFORM.apply_deltas(deltas, proposals), scores, (100, 120), 0.0, 0.5, 300)
    assert_same(ours, theirs)


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.sampled_from([0, 1, 50, 1000, 1001, 1800]),
    levels=st.sampled_from([0, 3, 1000]),
    top_k=st.sampled_from([300, 1, -1]),
)
def test_merge_equals_the_merge_of_detectron2_test_time_augmentation(seed, count, levels, top_k):
    generator = np.random.default_rng(seed)
    boxes = make_boxes(generator, count, 1, 0)
    boxes[::3] = boxes[:1].clone()  # the same box from several views
    scores = make_scores(generator, count, 1, levels)[:, 0]
    scores[::7] = 1e-9
    categories = torch.from_numpy(generator.integers(0, 20, count))
    table = torch.zeros(count, 21)
    table[torch.arange(count), categories] = scores
    found, index = fast_rcnn_inference_single_image(boxes.clone(), table, (100, 120), 1e-8, 0.5, top_k)
    theirs = Detections(found.pred_boxes.tensor, found.scores, found.pred_classes, index)
    assert_same(merge_detections(boxes, scores, categories, 20, (100, 120), 0.5, top_k), theirs)


@pytest.mark.parametrize(("candidates", "expected"), [(1000, []), (1001, ["per category"])])
def test_torchvision_changes_its_path_where_we_think(candidates, expected, monkeypatch):
    called = []
    original = torchvision_boxes._batched_nms_vanilla
    monkeypatch.setattr(
        torchvision_boxes, "_batched_nms_vanilla", lambda *a: called.append("per category") or original(*a)
    )
    boxes = make_boxes(np.random.default_rng(0), candidates, 1, 0)
    torchvision_boxes.batched_nms(boxes, torch.rand(candidates), torch.zeros(candidates, dtype=torch.long), 0.5)
    assert called == expected
    assert postprocess.OFFSET_NMS_CANDIDATES["cpu"] == 1000


def select_with_tensor_operations(boxes, scores, image_size, score_threshold, nms_threshold, top_k, chunk):
    """The path of a GPU, here on CPU tensors."""
    return Detections(
        *select_lazily_on_device(
            lambda proposals, _: clip_boxes_to_image(boxes[proposals], image_size),
            scores.reshape(-1),
            scores.shape[1],
            score_threshold,
            nms_threshold,
            top_k,
            chunk,
        )
    )


@pytest.mark.parametrize("chunk", [64, 700])
@pytest.mark.parametrize("levels", [0, 5])
@pytest.mark.parametrize("grid", [0, 7])
def test_tensor_operations_equal_detectron2(chunk, levels, grid):
    generator = np.random.default_rng(3)
    boxes, scores = make_boxes(generator, 100, 1, grid), make_scores(generator, 100, 30, levels)
    for top_k in (1, 50, 300, 3000):
        arguments = (boxes, scores, (100, 120), 0.02, 0.47, top_k)
        assert_same(select_with_tensor_operations(*arguments, chunk), reference(*arguments))


def test_tensor_operations_decide_close_calls_as_torchvision_does():
    # 1/3 of the area each: IoUs that round to either side of the threshold.
    boxes = torch.tensor([[0.0, 0, 3, 1], [0, 0, 1, 1], [0.1, 0, 3.1, 1], [2, 0, 3, 1]])
    ours = suppression_matrix(boxes, boxes, torch.ones(4, 4, dtype=torch.bool), 1 / 3)
    for a in range(4):
        for b in range(4):
            kept = torchvision_boxes.nms(boxes[[a, b]], torch.tensor([1.0, 0.0]), 1 / 3)
            assert ours[a, b] == (len(kept) == 1)


def test_too_many_close_calls_are_reported_so_that_all_boxes_go_through_torchvision():
    boxes = torch.tensor([[0.0, 0, 2, 1], [0, 0, 1, 1]]).repeat(200, 1)
    with pytest.raises(TooManyCloseCalls):
        suppression_matrix(boxes, boxes, torch.ones(400, 400, dtype=torch.bool), 0.5)


def test_rounds_reach_the_greedy_result():
    generator = np.random.default_rng(0)
    for _ in range(50):
        suppresses = np.triu(generator.random((40, 40)) < 0.15, 1)
        alive = generator.random(40) < 0.9
        keep = []
        for j in range(40):
            if alive[j] and not any(suppresses[i, j] for i in keep):
                keep.append(j)
        ours = keep_greedily_by_rounds(torch.from_numpy(alive), torch.from_numpy(suppresses))
        assert torch.nonzero(ours)[:, 0].tolist() == keep
