"""LVIS test inference at one scale: boxes, masks and run lengths of each image, beside detectron2's own inference.

``python -m tests.benchmarks gpu_testing [--edge 800] [--images 40] [--detectors r50_fpn]``

1,230 categories, 1,000 proposals, score threshold 0, 300 detections of 640 x 480 pictures, bf16; the random weights are
spread as in ``multi_scale``. The baseline is detectron2's GeneralizedRCNN.inference on the same weights, with its
paste_masks_in_image and pycocotools' encoding; both start from decoded pixels and end with run lengths on the CPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from tests.benchmarks.measure import Row, in_turns
from tests.benchmarks.multi_scale import KEEP, build, make_picture

LONGER_EDGE = 1333
HEIGHT, WIDTH = 480, 640


def contenders(model: Any, edge: int, precision: str, device: torch.device) -> tuple[Callable, Callable]:
    """detectron2's inference and ours on one model: functions of a picture."""
    import pycocotools.mask as coco_mask
    from detectron2.layers import paste_masks_in_image
    from detectron2.modeling import GeneralizedRCNN

    from pipeline_steps.inference.rle import encode_box_masks
    from pipeline_steps.inference.views import render_images
    from pipeline_steps.modeling.device import autocast
    from pipeline_steps.recipe.testing import Testing
    from tests.inference.detectors import boxes_and_masks

    settings = Testing(keep_per_image=KEEP)

    @torch.inference_mode()
    def usual(picture: np.ndarray) -> list[dict]:
        pixels = render_images([picture], (edge,), LONGER_EDGE, False).pixels[0][0]
        height, width = picture.shape[:2]
        with autocast(device, precision):
            (found,) = GeneralizedRCNN.inference(model, [{"image": pixels}], do_postprocess=False)
        found = found.to("cpu")
        boxes = found.pred_boxes.tensor * torch.tensor([width / pixels.shape[2], height / pixels.shape[1]]).repeat(2)
        pasted = paste_masks_in_image(found.pred_masks[:, 0].float(), boxes, (height, width))
        return [coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8))) for mask in pasted]

    def ours(picture: np.ndarray) -> list[dict]:
        images = render_images([picture], (edge,), LONGER_EDGE, False)
        ((found, masks),) = boxes_and_masks(model, images, settings, precision)
        return encode_box_masks(masks, found.boxes, *images.image_size)

    return usual, ours


def rows_of(detector: str, edge: int, images: int, categories: int, precision: str, device: torch.device) -> list[Row]:
    """Seconds of an image."""
    model, _ = build(f"config/detectors/{detector}.yaml", make_picture(320, 480, 0), device, categories)
    usual, ours = contenders(model, edge, precision, device)
    inputs = [(make_picture(HEIGHT, WIDTH, seed),) for seed in range(images)]
    pairs = in_turns(usual, ours, inputs, clock=time.perf_counter)
    name = f"test {detector}, {edge} px, {categories:,} categories, {precision} ({1 / pairs.ours:.1f} images/s)"
    return [pairs.row(name, "detectron2 inference, paste, encode")]


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Rows of the table; none without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", nargs="+", default=["r50_fpn"], help="config/detectors/<name>.yaml")
    parser.add_argument("--edge", type=int, default=800, help="shorter edge")
    parser.add_argument("--images", type=int, default=40, help="measured images")
    parser.add_argument("--categories", type=int, default=1230)
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="bf16")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options = parser.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu_testing: no GPU here, nothing measured", file=sys.stderr)
        return []
    device = torch.device(options.device)
    return [
        row
        for detector in options.detectors
        for row in rows_of(detector, options.edge, options.images, options.categories, options.precision, device)
    ]
