"""encode_box_masks gives the bytes of detectron2's paste_masks_in_image followed by pycocotools encode."""

from __future__ import annotations

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from detectron2.layers.mask_ops import _do_paste_mask, paste_masks_in_image
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from pipeline_steps.inference import rle
from pipeline_steps.inference.rle import encode_box_masks


def reference(masks, boxes, height, width, threshold=0.5):
    """detectron2's way to a results file; where its paste fails for want of pixels to look at, the mask is empty."""
    result = []
    for mask, box in zip(masks, boxes):
        begin = (box[:2].floor() - 1).clamp(min=0)
        end = torch.minimum(box[2:].ceil() + 1, torch.tensor([float(width), float(height)]))
        if (end <= begin).any():
            pasted = torch.zeros(height, width)
        else:
            pasted = paste_masks_in_image(mask[None], box[None], (height, width), threshold)[0]
        result.append(coco_mask.encode(np.asarray(pasted[:, :, None], order="F", dtype="uint8"))[0])
    return result


def blobs(generator: torch.Generator, number: int, size: int) -> torch.Tensor:
    """Smooth random masks, as a mask head gives them."""
    low = torch.randn(number, 1, 5, 5, generator=generator)
    ramp = torch.linspace(-1, 1, size)
    dome = 1.1 - 2 * (ramp[:, None] ** 2 + ramp[None] ** 2)
    smooth = functional.interpolate(low, size=size, mode="bicubic", align_corners=False)[:, 0]
    return (smooth * 1.5 + 3 * dome).sigmoid()


KINDS = {
    "blobs": blobs,
    "noise": lambda g, n, s: torch.rand(n, s, s, generator=g),
    "crisp": lambda g, n, s: (torch.rand(n, s, s, generator=g) > 0.5).float(),
    "full": lambda g, n, s: torch.ones(n, s, s),
    "empty": lambda g, n, s: torch.zeros(n, s, s),
    "exactly at 0.5": lambda g, n, s: torch.full((n, s, s), 0.5),
    "just below 0.5": lambda g, n, s: torch.full((n, s, s), float(np.nextafter(np.float32(0.5), np.float32(0)))),
    "steps around 0.5": lambda g, n, s: 0.5 + (torch.randint(-3, 4, (n, s, s), generator=g)) * 2.0**-24,
    "tiny": lambda g, n, s: torch.rand(n, s, s, generator=g) * 1e-30,
    "wide range": lambda g, n, s: torch.randn(n, s, s, generator=g) * 1000,
}


@given(
    seed=st.integers(0, 2**31 - 1),
    kind=st.sampled_from(sorted(KINDS)),
    size=st.sampled_from([28, 28, 14, 7, 1, 2, 56]),
    height=st.one_of(st.integers(1, 200), st.just(1)),
    width=st.one_of(st.integers(1, 200), st.just(1)),
    spread=st.sampled_from([0.5, 3.0, 5.5]),
    whole_pixels=st.booleans(),
    clip=st.booleans(),
    threshold=st.sampled_from([0.5, 0.5, 0.5, 0.1, 0.0, 1.0, 0.3]),
)
def test_equals_paste_and_encode_on_any_input(seed, kind, size, height, width, spread, whole_pixels, clip, threshold):
    generator = torch.Generator().manual_seed(seed)
    masks = KINDS[kind](generator, 12, size)
    centre = torch.rand(12, 2, generator=generator) * torch.tensor([width, height])
    extent = torch.exp(torch.rand(12, 2, generator=generator) * spread - 1)
    boxes = torch.cat([centre - extent / 2, centre + extent / 2], dim=1)
    if whole_pixels:
        boxes = boxes.round()
    if clip:
        boxes = torch.stack([boxes[:, i].clamp(0, (width, height)[i % 2]) for i in range(4)], dim=1)
    ours = encode_box_masks(masks, boxes, height, width, threshold)
    assert ours == reference(masks, boxes, height, width, threshold)


BOXES = {
    "one pixel": [3.0, 4.0, 4.0, 5.0],
    "part of a pixel": [3.2, 4.3, 3.3, 4.4],
    "whole image": [0.0, 0.0, 40.0, 30.0],
    "at the right and lower border": [35.0, 25.0, 40.0, 30.0],
    "beyond every border": [-20.0, -10.0, 70.0, 50.0],
    "left of the image": [-9.0, 3.0, -3.0, 8.0],
    "far right of the image": [100.0, 3.0, 108.0, 8.0],
    "touching the left border from outside": [-5.0, 3.0, 0.0, 8.0],
    "below the image": [3.0, 31.5, 9.0, 40.0],
    "no width": [7.0, 3.0, 7.0, 20.0],
    "no height": [7.0, 3.0, 17.0, 3.0],
    "a point": [7.5, 3.5, 7.5, 3.5],
    "corners swapped": [20.0, 20.0, 10.0, 10.0],
    "full height": [10.0, -4.0, 20.0, 34.0],
    "full height up to the right border": [30.0, 0.0, 40.0, 30.0],
    "huge": [-1e6, -1e6, 1e6, 1e6],
    "huge and one-sided": [0.0, 0.0, 3e9, 3e9],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threshold", [0.5, 0.05, 0.0])
def test_equals_paste_and_encode_for_unusual_boxes(kind, threshold):
    masks = KINDS[kind](torch.Generator().manual_seed(0), len(BOXES), 28)
    boxes = torch.tensor(list(BOXES.values()))
    ours = encode_box_masks(masks, boxes, 30, 40, threshold)
    expected = reference(masks, boxes, 30, 40, threshold)
    assert {name: a for name, a, b in zip(BOXES, ours, expected) if a != b} == {}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_masks_with_infinite_values_go_the_straight_way_and_the_others_do_not_suffer(value):
    masks = blobs(torch.Generator().manual_seed(0), 5, 28)
    masks[2, 3, 4] = value
    boxes = torch.tensor([[3.0, 4.0, 25.0, 28.0]]).repeat(5, 1)
    assert encode_box_masks(masks, boxes, 30, 40) == reference(masks, boxes, 30, 40)


def test_close_pixels_are_decided_by_grid_sample(monkeypatch):
    # Without the exact decision the result must differ somewhere: the guard is needed, and it is used.
    generator = torch.Generator().manual_seed(0)
    masks = KINDS["steps around 0.5"](generator, 60, 28)
    boxes = torch.tensor([[1.3, 2.7, 77.7, 91.1]]).repeat(60, 1)
    expected = reference(masks, boxes, 100, 90)
    assert encode_box_masks(masks, boxes, 100, 90) == expected
    monkeypatch.setattr(rle, "_guard", lambda size, mask_range: 0.0)
    assert encode_box_masks(masks, boxes, 100, 90) != expected


def test_a_threshold_that_equals_a_pixel_value_is_decided_exactly():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(60, 28, 28, generator=generator)
    boxes = torch.tensor([[1.3, 2.7, 77.7, 91.1]]).repeat(60, 1)
    for mask, box in zip(masks, boxes):
        values, _ = _do_paste_mask(mask[None, None], box[None], 100, 90)
        value = values.flatten()[int(torch.randint(values.numel(), (), generator=generator))].numpy()
        for threshold in (value, np.nextafter(value, np.float32(1)), np.nextafter(value, np.float32(0))):
            arguments = (mask[None], box[None], 100, 90, float(threshold))
            assert encode_box_masks(*arguments) == reference(*arguments)


def test_no_masks_give_an_empty_list():
    assert encode_box_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), 10, 10) == []


def test_input_is_not_changed_and_may_be_of_another_type():
    masks = blobs(torch.Generator().manual_seed(0), 3, 28)
    boxes = torch.tensor([[3.0, 4.0, 25.0, 28.0]]).repeat(3, 1)
    before = masks.clone()
    expected = reference(masks, boxes, 30, 40)
    assert encode_box_masks(masks.double(), boxes.double(), 30, 40) == expected
    assert encode_box_masks(masks.transpose(1, 2).contiguous().transpose(1, 2), boxes, 30, 40) == expected
    assert torch.equal(masks, before)


@pytest.mark.parametrize(
    ("masks", "boxes", "threshold"),
    [((3, 28, 28), (2, 4), 0.5), ((3, 28, 27), (3, 4), 0.5), ((3, 1, 28, 28), (3, 4), 0.5), ((3, 28, 28), (3, 4), -1)],
)
def test_input_that_does_not_fit_is_refused(masks, boxes, threshold):
    with pytest.raises(ValueError, match=r"expected|negative"):
        encode_box_masks(torch.zeros(masks), torch.zeros(boxes), 10, 10, threshold)


def test_a_box_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="NaN or infinite"):
        encode_box_masks(torch.zeros(1, 28, 28), torch.tensor([[0.0, 0.0, np.nan, 5.0]]), 10, 10)
