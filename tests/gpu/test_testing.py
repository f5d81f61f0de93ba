"""Testing on a GPU: detections, masks and multi-scale results are those of the CPU.

Where the input is the same, results are equal to the last bit: NMS decides by torchvision's own kernel on either
device, masks are encoded on the CPU. Where a network comes first (float32, no TF32), scores agree to 1e-3 and boxes to
0.05 pixels, and 99 of 100 detections are found on both sides.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from pipeline_steps.inference.multi_scale import detect_boxes, predict_rles
from pipeline_steps.inference.nms_device import select_lazily_on_device
from pipeline_steps.inference.postprocess import merge_detections, select_detections
from pipeline_steps.inference.rle import encode_box_masks
from pipeline_steps.inference.views import render_images
from pipeline_steps.recipe.testing import Testing
from tests.inference.detectors import CATEGORIES, make_image, make_model, small_recipe

IMAGE = (480, 640)


def random_boxes(generator, count, spread=1.0):
    corners = torch.rand(count, 2, generator=generator) * torch.tensor([560.0, 400.0])
    return torch.cat([corners, corners + 8 + torch.rand(count, 2, generator=generator) * 72 * spread], dim=1)


@pytest.mark.parametrize("ties", [False, True])
def test_nms_keeps_what_it_keeps_on_the_cpu(size, ties):
    """1,000 proposals x 1,230 categories at threshold 0 on a GPU; on a CPU the same tensor operations, smaller."""
    rows, columns, top_k = (1000, 1230, 300) if size.on_gpu else (80, 40, 60)
    generator = torch.Generator().manual_seed(int(ties))
    boxes, scores = random_boxes(generator, rows), torch.rand(rows, columns, generator=generator) ** 4
    if ties:
        scores = (scores * 50).round() / 50 + 0.01
    wanted = select_detections(boxes, scores, IMAGE, 0.0, 0.5, top_k)
    if size.on_gpu:
        found = select_detections(boxes.to(size.device), scores.to(size.device), IMAGE, 0.0, 0.5, top_k)
    else:
        clipped = boxes.clamp(min=0).minimum(torch.tensor([640.0, 480.0, 640.0, 480.0]))
        found = select_lazily_on_device(
            lambda proposals, _: clipped[proposals], scores.reshape(-1), columns, 0.0, 0.5, top_k
        )
    for mine, theirs in zip(found, wanted):
        assert torch.equal(mine.cpu(), theirs)


def test_merging_keeps_what_it_keeps_on_the_cpu(size):
    count = 30_000 if size.on_gpu else 500  # above and below the number up to which torchvision shifts categories apart
    generator = torch.Generator().manual_seed(5)
    boxes, scores = random_boxes(generator, count), torch.rand(count, generator=generator)
    categories = torch.randint(0, 300, (count,), generator=generator)
    wanted = merge_detections(boxes, scores, categories, 300, IMAGE, 0.5, 300)
    inputs = (values.to(size.device) for values in (boxes, scores, categories))
    for mine, theirs in zip(merge_detections(*inputs, 300, IMAGE, 0.5, 300), wanted):
        assert torch.equal(mine.cpu(), theirs)


def test_masks_are_encoded_to_the_same_bytes(size):
    generator = torch.Generator().manual_seed(9)
    count = 300 if size.on_gpu else 20
    boxes, masks = random_boxes(generator, count, 3.0), torch.rand(count, 28, 28, generator=generator)
    found = encode_box_masks(masks.to(size.device), boxes.to(size.device), *IMAGE)
    assert found == encode_box_masks(masks, boxes, *IMAGE)


@pytest.fixture
def models(size):
    """One detector twice: on the CPU, and on the device of the test."""
    recipe = small_recipe()
    model = make_model(recipe)
    return model, copy.deepcopy(model).to(size.device)


def matched(found, wanted):
    """Share of ``wanted``'s detections that ``found`` has: same category, boxes to 0.05 pixels, scores to 1e-3."""
    hits = 0
    for box, score, category in zip(wanted.boxes, wanted.scores, wanted.categories):
        near = (found.boxes.cpu() - box).abs().amax(dim=1) < 0.05
        near &= (found.scores.cpu() - score).abs() < 1e-3
        hits += bool((near & (found.categories.cpu() == category)).any())
    return hits / max(1, len(wanted.boxes))


def test_multi_scale_boxes_and_masks_are_those_of_the_cpu(size, models):
    scales = (64, 96, 128)
    pictures = [make_image(seed, 96, 128) for seed in range(2)]
    settings = Testing(keep_per_image=100)
    images = render_images(pictures, scales, 400, True)
    wanted, found = (detect_boxes(model, images, settings) for model in models)
    for mine, theirs in zip(found, wanted, strict=True):
        assert abs(len(mine.boxes) - len(theirs.boxes)) <= 1
        assert matched(mine, theirs) >= 0.99
    boxes = [image.boxes.numpy() for image in wanted]
    theirs, mine = (predict_rles([model], images, boxes) for model in models)
    assert overlap(mine, theirs, *pictures[0].shape[:2]) > 0.999


def overlap(found, wanted, height, width):
    """Mean IoU of masks given as counts; two empty ones are equal."""
    import pycocotools.mask as coco_mask

    def rles(counts):
        return [{"size": [height, width], "counts": value} for of_image in counts for value in of_image]

    pairs = zip(rles(found), rles(wanted), strict=True)
    values = [
        float(coco_mask.iou([mine], [theirs], [0])[0, 0]) if coco_mask.area(theirs) else float(not coco_mask.area(mine))
        for mine, theirs in pairs
    ]
    return float(np.mean(values))


def test_the_tests_look_at_varied_detections(models):
    images = render_images([make_image(0, 96, 128)], (96,), 400, False)
    (found,) = detect_boxes(models[0], images, Testing(keep_per_image=100))
    assert len(found.boxes) > 50
    assert len(found.categories.unique()) > CATEGORIES // 4
