"""300 soft masks of one 640 x 480 image to run lengths: detectron2's paste and pycocotools' encode against ours."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tests.benchmarks.measure import Row, in_turns


def make_masks(seed: int, number: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Smooth blobs float32[k, 28, 28] in boxes float32[k, 4] with edges of 9 to 220 pixels."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.randn(number, 1, 5, 5, generator=generator)
    ramp = torch.linspace(-1, 1, 28)
    dome = 3.3 - 6 * (ramp[:, None] ** 2 + ramp[None] ** 2)
    smooth = torch.nn.functional.interpolate(low, size=28, mode="bicubic", align_corners=False)[:, 0]
    extent = torch.exp(torch.rand(number, 2, generator=generator) * 3.2 + 2.2)
    centre = torch.rand(number, 2, generator=generator) * torch.tensor([width, height])
    boxes = torch.cat([centre - extent / 2, centre + extent / 2], dim=1).clamp_(min=0)
    limits = torch.tensor([width, height, width, height])
    return (smooth * 1.5 + dome).sigmoid(), torch.minimum(boxes, limits)


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Measure."""
    parser = argparse.ArgumentParser("mask_rle", description=__doc__)
    parser.add_argument("--images", type=int, default=15)
    parser.add_argument("--masks", type=int, default=300)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=640)
    arguments = parser.parse_args(argv)

    import pycocotools.mask as coco_mask
    from detectron2.layers.mask_ops import paste_masks_in_image

    from pipeline_steps.inference.rle import encode_box_masks

    torch.set_num_threads(1)
    height, width = arguments.height, arguments.width

    def usual(masks: Tensor, boxes: Tensor) -> list[dict]:
        pasted = paste_masks_in_image(masks, boxes, (height, width), 0.5)
        return [coco_mask.encode(np.array(mask[:, :, None], order="F", dtype="uint8"))[0] for mask in pasted]

    def ours(masks: Tensor, boxes: Tensor) -> list[dict]:
        return encode_box_masks(masks, boxes, height, width)

    inputs = [make_masks(seed, arguments.masks, height, width) for seed in range(arguments.images)]
    pairs = in_turns(usual, ours, inputs, lambda first, second: first == second)
    return [pairs.row(f"{arguments.masks} masks to RLE, {width} x {height}", "paste_masks_in_image + pycocotools")]


if __name__ == "__main__":
    from tests.benchmarks.__main__ import main as run

    raise SystemExit(run(["mask_rle"]))
