"""The CPU paths of pooling and mask head against detectron2's own."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from detectron2.structures import Boxes
from torchvision.ops import roi_align

from pipeline_steps.modeling.cpu.modules import MatrixProductMaskHead, PyramidPooler
from pipeline_steps.modeling.roi_heads import pool_in_float32


def _boxes(count: int) -> Boxes:
    """Boxes of all sizes, some partly or wholly outside an image of 128 pixels."""
    corner = torch.rand(count, 2) * 160 - 25
    return Boxes(torch.cat([corner, corner + torch.rand(count, 2) ** 2 * 120], dim=1))


@pytest.mark.parametrize("sampling_ratio", [0, 1, 2])
@pytest.mark.parametrize("levels", [1, 3])
def test_compiled_pooling_equals_roi_align_in_every_bit_and_so_does_its_gradient_but_for_rounding(
    sampling_ratio: int, levels: int
) -> None:
    torch.manual_seed(sampling_ratio + 10 * levels)
    arguments = {
        "output_size": 7,
        "scales": tuple(1 / (4 * 2**level) for level in range(levels)),
        "sampling_ratio": sampling_ratio,
        "pooler_type": "ROIAlignV2",
        "canonical_box_size": 48,
    }
    sizes = [(32 // 2**level, 24 // 2**level) for level in range(levels)]
    features = [torch.randn(3, 5, *size, dtype=torch.float32).requires_grad_() for size in sizes]
    boxes = [_boxes(40), Boxes(torch.zeros(0, 4)), _boxes(31)]
    expected = ROIPooler(**arguments)(features, boxes)
    pooled = PyramidPooler(**arguments)(features, boxes)
    assert torch.equal(pooled, expected)
    gradient = torch.randn_like(expected)
    for mine, theirs in zip(
        torch.autograd.grad(pooled, features, gradient), torch.autograd.grad(expected, features, gradient), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=5e-5, rtol=1e-4)


def test_pooling_under_autocast_keeps_the_precision_of_the_features() -> None:
    pooler = PyramidPooler(7, (0.25, 0.125), 1, "ROIAlignV2", canonical_box_size=48)
    features = [torch.randn(1, 4, 16, 16).bfloat16(), torch.randn(1, 4, 8, 8).bfloat16()]
    assert pooler(features, [_boxes(3)]).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", [ROIPooler, PyramidPooler])
def test_boxes_keep_their_place_where_features_are_bfloat16(kind):
    """A box at 1,001 pixels is one at 1,000 in bfloat16, to which detectron2 rounds boxes with such features."""
    pooler = kind(7, (0.25,), 2, "ROIAlignV2")
    features = torch.arange(300.0).expand(1, 2, 4, 300).bfloat16()
    boxes = Boxes(torch.tensor([[1001.0, 2, 1015, 12]]))
    pooled = pool_in_float32(pooler, [features], [boxes])
    assert pooled.dtype == torch.bfloat16
    expected = roi_align(features.float(), [boxes.tensor], 7, 0.25, 2, aligned=True)
    assert torch.equal(pooled, expected.bfloat16())
    rounded = roi_align(features.float(), [boxes.tensor.bfloat16().float()], 7, 0.25, 2, aligned=True)
    assert (rounded - expected).abs().max() > 0.2


@pytest.mark.parametrize("classes", [1, 3])
def test_mask_head_as_matrix_products_equals_transposed_convolution(classes: int) -> None:
    torch.manual_seed(classes)
    shape = ShapeSpec(channels=6, width=5, height=5)
    plain = MaskRCNNConvUpsampleHead(shape, num_classes=classes, conv_dims=[8, 8, 4], conv_norm="")
    fast = MatrixProductMaskHead(shape, num_classes=classes, conv_dims=[8, 8, 4], conv_norm="")
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    fast.load_state_dict(plain.state_dict())
    x = torch.randn(7, 6, 5, 5)
    expected, result = plain.layers(x), fast.layers(x)
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)
    gradient = torch.randn_like(expected)
    expected.backward(gradient)
    result.backward(gradient)
    for (name, mine), theirs in zip(fast.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-3, rtol=1e-3, msg=name)
