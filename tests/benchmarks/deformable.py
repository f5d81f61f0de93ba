"""Deformable convolution with 64 groups: torchvision's operator against all groups in one product.

``python -m tests.benchmarks deformable [--device cuda] [--images 1] [--runs 5]``

Layers of ResNeXt-101 64x4d at res4 and res3 for an image of 800 x 1333, and a small one; float32, channels-last as the
challenge recipe trains; forward, and forward and backward to input, offsets and weight. CPU seconds; on a GPU those of
the wall clock with its queue emptied. Results are equal to float32 rounding (1e-4 of the largest value).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from pipeline_steps.modeling.backbones.deformable import batched_deform_conv2d
from tests.benchmarks.measure import Row, in_turns

GROUPS = 64
SHAPES = [(1024, 50, 84), (512, 100, 167), (256, 24, 32)]


def same(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Equal but for float32 rounding."""
    return all(bool((a - b).abs().max() <= 1e-4 * a.abs().max()) for a, b in zip(first, second, strict=True))


def rows(channels: int, height: int, width: int, images: int, runs: int, device: torch.device) -> list[Row]:
    """Both passes of one layer."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    x = random(images, channels, height, width).to(memory_format=torch.channels_last).requires_grad_()
    offset = (2 * random(images, 18, height, width)).requires_grad_()
    weight = random(channels, channels // GROUPS, 3, 3).requires_grad_()
    seed = random(images, channels, height, width)

    def torchvisions() -> Tensor:
        return deform_conv2d(x, offset, weight, padding=1)

    def ours() -> Tensor:
        return batched_deform_conv2d(x, offset, weight, 1, 1)

    def forward(layer: Callable[[], Tensor]) -> Callable[[], Sequence[Tensor]]:
        return torch.no_grad()(lambda: (layer(),))

    def both(layer: Callable[[], Tensor]) -> Callable[[], Sequence[Tensor]]:
        return lambda: torch.autograd.grad(layer(), (x, offset, weight), seed)

    def clock() -> float:
        if device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    name = f"deformable convolution, {channels} channels of {height} x {width}, {device.type}"
    result = []
    for what, passes in (("forward", forward), ("forward and backward", both)):
        pairs = in_turns(passes(torchvisions), passes(ours), [()] * runs, same, clock)
        result.append(pairs.row(f"{name}; {what}", "torchvision"))
    return result


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Measure."""
    parser = argparse.ArgumentParser("deformable", description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="the smallest layer only")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    shapes = SHAPES[-1:] if arguments.small else SHAPES
    return [row for shape in shapes for row in rows(*shape, arguments.images, arguments.runs, device)]
