"""Deformable convolution in one batched product against torchvision's operator, forward and backward."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torchvision.ops import deform_conv2d

from pipeline_steps.modeling.backbones import deformable
from pipeline_steps.modeling.backbones.deformable import DeformableConv2d, batched_deform_conv2d


def inputs(groups: int, stride: int, kernel: int = 3, images: int = 2) -> list[Tensor]:
    """float64 input, zero offsets and weight, all to be differentiated."""
    generator = torch.Generator().manual_seed(10 * groups + stride)
    x = torch.randn(images, 8, 9, 12, generator=generator, dtype=torch.float64)
    size = [-(-edge // stride) for edge in x.shape[2:]]
    offset = torch.zeros(images, 2 * kernel**2, *size, dtype=torch.float64)
    weight = torch.randn(12, 8 // groups, kernel, kernel, generator=generator, dtype=torch.float64)
    return [tensor.requires_grad_() for tensor in (x, offset, weight)]


def assert_equal_to_torchvision(tensors: list[Tensor], stride: int) -> None:
    x, offset, weight = tensors
    padding = weight.shape[-1] // 2
    expected = deform_conv2d(x, offset, weight, stride=stride, padding=padding)
    result = batched_deform_conv2d(x, offset, weight, stride, padding)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
    seed = torch.randn(expected.shape, dtype=expected.dtype, generator=torch.Generator().manual_seed(1))
    gradients = (torch.autograd.grad(output, tensors, seed) for output in (result, expected))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("offsets", ["none", "small", "whole pixels", "far outside", "one far tap"])
@pytest.mark.parametrize(("groups", "stride", "kernel"), [(1, 1, 3), (4, 2, 3), (4, 1, 3), (2, 1, 1), (2, 2, 5)])
def test_output_and_gradients_of_input_offset_and_weight_are_torchvisions(monkeypatch, groups, stride, kernel, offsets):
    """In float64, and with parts so small that an image needs several.

    Whole pixels are where the bilinear weights bend: without offsets every point is there.
    """
    monkeypatch.setattr(deformable, "_CPU_BYTES", 8 * 8 * kernel**2 * 7)
    tensors = inputs(groups, stride, kernel)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        noise = torch.randn(tensors[1].shape, dtype=torch.float64, generator=generator)
        if offsets == "small":
            tensors[1] += noise
        elif offsets == "whole pixels":
            tensors[1] += (noise * 4).round()
        elif offsets == "far outside":
            tensors[1] += noise * 1e6
        elif offsets == "one far tap":
            tensors[1][:, 0] = -1e30
    assert_equal_to_torchvision(tensors, stride)


def test_inputs_need_not_be_contiguous_and_channels_last_stays():
    x, offset, weight = inputs(4, 1)
    wide = torch.randn(2, 8, 9, 24, dtype=torch.float64)[..., ::2].requires_grad_()
    turned = torch.randn(2, 18, 12, 9, dtype=torch.float64).transpose(2, 3).requires_grad_()
    assert not any(tensor.is_contiguous() for tensor in (wide, turned))
    assert_equal_to_torchvision([wide, turned, weight], 1)
    last = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    assert_equal_to_torchvision([last, offset, weight], 1)
    assert batched_deform_conv2d(last, offset, weight, 1, 1).is_contiguous(memory_format=torch.channels_last)
    assert batched_deform_conv2d(x, offset, weight, 1, 1).is_contiguous()


def test_no_images_have_zero_gradients():
    tensors = inputs(4, 1, images=0)
    result = batched_deform_conv2d(*tensors, 1, 1)
    assert result.shape == (0, 12, 9, 12)
    assert all(not gradient.any() for gradient in torch.autograd.grad(result.sum(), tensors))


def layers(norm: str = "") -> tuple[DeformableConv2d, DeformableConv2d]:
    torch.manual_seed(0)
    plain = DeformableConv2d(16, 16, stride=1, groups=4, norm=norm)
    torch.nn.init.normal_(plain.offset.weight, std=0.05)
    batched = copy.deepcopy(plain)
    batched.batched = True
    return plain, batched


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_the_layer_gives_the_same_in_every_precision_checkpointed_or_not(dtype, checkpointed):
    outcomes = []
    seed = torch.randn(2, 16, 10, 8, generator=torch.Generator().manual_seed(2))
    for layer in layers("BN"):
        x = torch.randn(2, 16, 10, 8, generator=torch.Generator().manual_seed(1)).to(dtype or torch.float32)
        x.requires_grad_()
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            out = checkpoint(layer, x, use_reentrant=False) if checkpointed else layer(x)
        assert out.dtype == (dtype or torch.float32)
        (out.float() * seed).sum().backward()
        outcomes.append([out, x.grad, *(parameter.grad for parameter in layer.parameters())])
    for theirs, ours in zip(*outcomes, strict=True):
        scale = theirs.float().abs().max()
        tolerance = 1e-5 if dtype is None else 4e-2
        torch.testing.assert_close(ours.float() / scale, theirs.float() / scale, rtol=0, atol=tolerance)


def test_nothing_of_the_sampled_pixels_is_kept_for_the_backward_pass():
    x, offset, weight = (tensor.detach().requires_grad_() for tensor in inputs(4, 1))
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        batched_deform_conv2d(x, offset, weight, 1, 1)
    assert max(kept) < 9 * x[0].numel()


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_runs_on_fake_tensors(device):
    """On those of a GPU forward only: the backward pass asks the driver for the device, fake or not."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x, offset, weight = (
            torch.empty(shape, device=device, requires_grad=True)
            for shape in ((2, 64, 50, 84), (2, 18, 50, 84), (64, 4, 3, 3))
        )
        out = batched_deform_conv2d(x, offset, weight, 1, 1)
        assert (out.shape, out.device.type) == ((2, 64, 50, 84), device)
        if device == "cpu":
            gradients = torch.autograd.grad(out.sum(), (x, offset, weight))
            assert [gradient.shape for gradient in gradients] == [x.shape, offset.shape, weight.shape]


def test_model_files_fit_both():
    plain, batched = layers("BN")
    assert plain.state_dict().keys() == batched.state_dict().keys()
