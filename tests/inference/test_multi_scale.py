"""Multi-scale boxes and masks give the results of detectron2's test-time augmentation, with less work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data.transforms import AugInput, HFlipTransform, ResizeShortestEdge, ResizeTransform, TransformList
from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.modeling import GeneralizedRCNNWithTTA
from hypothesis import given
from hypothesis import strategies as st

from pipeline_steps.data.images import fit_size
from pipeline_steps.inference.multi_scale import (
    average_soft_masks,
    detect_boxes,
    predict_rles,
    unique_boxes,
)
from pipeline_steps.inference.rle import encode_box_masks
from pipeline_steps.inference.views import View, plan_views, render_images
from pipeline_steps.modeling.build import detector_config
from pipeline_steps.recipe import load_recipe
from pipeline_steps.recipe.testing import Testing
from tests.inference.detectors import CATEGORIES, boxes_and_masks, make_image, make_model, small_recipe

CONFIG = Path(__file__).parents[2] / "config"
RECIPES = sorted(path.name for path in CONFIG.glob("*.yaml"))
KEEP = 60
SETTINGS = Testing(keep_per_image=KEEP)


@pytest.fixture(scope="module")
def model():
    return make_model(small_recipe())


def augmented(model, image, scales, longer_edge, flip):
    """detectron2's test-time augmentation of ``model`` on an image uint8[H, W, 3]."""
    cfg = detector_config(small_recipe(), "basic", CATEGORIES).clone()
    cfg.defrost()
    cfg.TEST.DETECTIONS_PER_IMAGE = KEEP
    cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.MAX_SIZE, cfg.TEST.AUG.FLIP = list(scales), longer_edge, flip
    model.roi_heads.box_predictor.test_topk_per_image = KEEP
    height, width = image.shape[:2]
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
    with torch.no_grad():
        inputs = [{"image": pixels, "height": height, "width": width}]
        return GeneralizedRCNNWithTTA(cfg, model, batch_size=1)(inputs)[0]["instances"]


def without_repetitions(size, scales, longer_edge):
    """The scales, without those that detectron2 resizes to a size that an earlier one has: it would count it again."""
    sizes = [ResizeShortestEdge.get_output_shape(*size, scale, longer_edge) for scale in scales]
    return [scale for i, scale in enumerate(scales) if sizes[i] not in sizes[:i]]


@pytest.mark.parametrize("flip", [False, True], ids=["no_flip", "flip"])
@pytest.mark.parametrize("scales", [(64, 96, 128), (96,), (64, 128, 256, 512)], ids=["distinct", "one", "collapsing"])
@pytest.mark.parametrize("size", [(100, 140), (90, 61)], ids=["landscape", "portrait"])
def test_boxes_scores_and_masks_are_those_of_detectron2_test_time_augmentation(model, size, scales, flip):
    image = make_image(1, *size)
    assert len(without_repetitions(size, scales, 150)) == min(len(scales), 3 - (512 in scales))
    theirs = augmented(model, image, without_repetitions(size, scales, 150), 150, flip)
    ((ours, soft_masks),) = boxes_and_masks(model, render_images([image], scales, 150, flip), SETTINGS)
    assert len(theirs) > 30
    assert theirs.scores.unique().numel() == len(theirs), "ties would leave detectron2's order to chance"
    assert torch.equal(ours.boxes, theirs.pred_boxes.tensor)
    assert torch.equal(ours.scores, theirs.scores)
    assert torch.equal(ours.categories, theirs.pred_classes)
    pasted = paste_masks_in_image(soft_masks, ours.boxes, size)
    assert torch.equal(pasted, theirs.pred_masks)
    assert 0 < pasted.float().mean() < 1


def test_the_backbone_runs_once_for_each_distinct_view(model, monkeypatch):
    seen = []
    original = model.extract_features
    monkeypatch.setattr(model, "extract_features", lambda images: seen.append(images.image_sizes) or original(images))
    images = render_images([make_image(1, 100, 140)], (64, 96, 512, 1024), 150, False)
    boxes = detect_boxes(model, images, SETTINGS)
    assert seen == [[(64, 90)], [(96, 134)], [(107, 150)]]
    seen.clear()
    average_soft_masks([model], images, [boxes[0].boxes])
    assert seen == [[(64, 90)], [(96, 134)], [(107, 150)]]


def test_images_of_a_batch_are_detected_as_each_alone(model):
    pictures = [make_image(seed, 100, 140) for seed in range(3)]
    together = detect_boxes(model, render_images(pictures, (64, 96), 150, False), SETTINGS)
    for picture, found in zip(pictures, together):
        alone = detect_boxes(model, render_images([picture], (64, 96), 150, False), SETTINGS)[0]
        # Rounding may depend on the batch, so best detections are compared, and not to the last bit.
        assert torch.allclose(found.scores[:10], alone.scores[:10], rtol=1e-3, atol=1e-5)
        assert torch.allclose(found.boxes[:10], alone.boxes[:10], atol=0.05)
        assert torch.equal(found.categories[:10], alone.categories[:10])


def test_soft_masks_are_the_mean_over_models_and_distinct_scales(model):
    other = make_model(small_recipe(), seed=5)
    picture = make_image(1, 100, 140)
    boxes = [torch.tensor([[10.0, 20.0, 60.0, 70.0], [30.0, 5.0, 90.0, 99.0]])]

    def masks(models, scales):
        return average_soft_masks(models, render_images([picture], scales, 150, False), boxes)[0]

    one, two = masks([model], (64,)), masks([model], (512,))
    assert torch.equal(masks([model], (64, 512, 1024)), (one + two) / 2)
    assert torch.allclose(masks([model, other], (64,)), (one + masks([other], (64,))) / 2, atol=1e-6)
    assert not torch.allclose(one, masks([other], (64,)), atol=0.05)


def test_equal_boxes_get_one_mask(model, monkeypatch):
    boxes = np.array([[10, 20, 60, 70], [30, 5, 90, 99], [10, 20, 60, 70], [0, 0, 5, 5]], np.float32)
    seen = []
    original = model.roi_heads.soft_masks
    monkeypatch.setattr(model.roi_heads, "soft_masks", lambda f, b: seen.append([len(x) for x in b]) or original(f, b))
    images = render_images([make_image(1, 100, 140)], (64,), 150, False)
    rles = predict_rles([model], images, [boxes])[0]
    assert seen == [[3]]
    assert rles[0] == rles[2]
    soft = average_soft_masks([model], images, [torch.from_numpy(boxes)])[0]
    assert rles == [rle["counts"] for rle in encode_box_masks(soft, torch.from_numpy(boxes), 100, 140)]


def test_images_without_boxes_and_batches_without_any_are_no_trouble(model):
    images = render_images([make_image(1, 100, 140), make_image(2, 100, 140)], (64,), 150, False)
    box = np.array([[10, 20, 60, 70]], np.float32)
    nothing = np.zeros((0, 4), np.float32)
    first, second = predict_rles([model], images, [box, nothing])
    assert (len(first), len(second)) == (1, 0)
    assert predict_rles([model], images, [nothing, nothing]) == [[], []]


@pytest.mark.parametrize("fusion", ["nms", "wbf"])
def test_a_cap_that_makes_scales_equal_leaves_what_the_distinct_ones_find(model, fusion):
    """Against the same scales written out once: nothing of a view that was asked for again is counted again."""
    picture = make_image(1, 100, 140)
    settings = Testing(keep_per_image=KEEP, scale_fusion=fusion)

    def found(scales):
        return detect_boxes(model, render_images([picture], scales, 150, False), settings)[0]

    repeated, written_out = found((64, 512, 64, 1024, 2048)), found((64, 512))
    assert len(repeated.scores) == KEEP
    assert (repeated.scores[1:] <= repeated.scores[:-1]).all()
    assert all(torch.equal(mine, expected) for mine, expected in zip(repeated, written_out))
    assert not torch.equal(repeated.scores, found((64,)).scores)


def test_mixed_precision_finds_the_same_objects(model):
    images = render_images([make_image(1, 100, 140)], (64, 96), 150, False)
    exact = detect_boxes(model, images, SETTINGS)[0]
    mixed = detect_boxes(model, images, SETTINGS, "bf16")[0]
    assert mixed.scores.dtype == torch.float32
    assert abs(float(exact.scores[:20].mean() - mixed.scores[:20].mean())) < 0.05


@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    shorter=st.integers(1, 2000),
    longer=st.integers(32, 2000),
)
def test_sizes_are_those_of_detectron2(height, width, shorter, longer):
    expected = ResizeShortestEdge.get_output_shape(height, width, shorter, longer)
    assert fit_size(height, width, shorter, longer) == tuple(max(1, edge) for edge in expected)


def test_sizes_are_those_of_detectron2_over_a_grid():
    """Among them sizes whose product is a half, which float arithmetic in another order rounds the other way."""
    assert fit_size(136, 640, 600, 1400) == (297, 1400)
    for height in range(100, 641):
        for size in ((height, 640), (640, height), (height, 427)):
            for limit in ((600, 1400), (800, 1333), (1100, 1400), (1400, 1400), (1400, 4000)):
                assert fit_size(*size, *limit) == ResizeShortestEdge.get_output_shape(*size, *limit), (size, limit)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(64, 90), (333, 467), (100, 140)])
def test_pixels_and_boxes_of_a_view_are_those_of_detectron2(size, flip):
    image = make_image(3, 100, 140)
    transforms = TransformList([ResizeTransform(100, 140, *size), *([HFlipTransform(size[1])] if flip else [])])
    given = AugInput(image.copy())
    given.transform(transforms)
    view = View(*size, flip)
    assert np.array_equal(view.render(image).permute(1, 2, 0).numpy(), given.image)
    boxes = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)) * 60
    boxes[:, 2:] += boxes[:, :2]
    there = torch.from_numpy(transforms.apply_box(boxes.numpy()))
    assert torch.equal(view.boxes_to_view(boxes, (100, 140)), there)
    back = torch.from_numpy(transforms.inverse().apply_box(there.numpy()))
    assert torch.equal(view.boxes_to_image(there, (100, 140)), back)


def test_scales_that_the_longest_edge_makes_equal_are_one_view():
    views = plan_views(427, 640, (600, 800, 1000, 1200, 1400), 1000, True)
    assert views == tuple(View(*size, flip) for size in ((600, 899), (667, 1000)) for flip in (False, True))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("size", [(480, 640), (640, 427), (500, 500), (360, 640), (640, 256), (216, 640)])
def test_every_scale_of_a_shipped_recipe_gives_a_view_of_its_own(name, size):
    """Proportions up to 2.96 to 1, and the images of the mini world."""
    recipe = load_recipe(CONFIG / name)
    if recipe.data.source == "mini":
        size = (recipe.data.mini.image_size,) * 2
    for scales in (recipe.testing.box_scales, recipe.testing.mask_scales):
        views = plan_views(*size, scales, recipe.testing.longer_edge, False)
        assert len(views) == len(scales)
        if len(scales) == 5:
            assert [min(view.height, view.width) for view in views[:4]] == [600, 800, 1000, 1200]


def test_the_longest_view_of_a_panorama_is_limited():
    """The memory of a test job is that of 4000 x 1400 pixels at most."""
    testing = load_recipe(CONFIG / "challenge.yaml").testing
    for height in range(30, 641, 10):
        views = plan_views(height, 640, testing.box_scales, testing.longer_edge, False)
        assert max(view.height * view.width for view in views) <= 4000 * 1400


@pytest.mark.parametrize("count", [0, 1, 40])
def test_unique_boxes_keep_the_order_of_first_occurrence(count):
    generator = np.random.default_rng(0)
    boxes = generator.integers(0, 3, (count, 4)).astype(np.float32)
    distinct, index = unique_boxes(boxes)
    assert np.array_equal(distinct[index], boxes)
    assert len({row.tobytes() for row in distinct}) == len(distinct)
    firsts = [next(i for i, row in enumerate(boxes) if np.array_equal(row, one)) for one in distinct]
    assert firsts == sorted(firsts)
