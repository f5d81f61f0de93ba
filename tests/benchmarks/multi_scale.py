"""Five-scale box and mask testing of one image: detectron2's ``GeneralizedRCNNWithTTA`` against ours, on one model.

The paper's scales (600 to 1400, no two of them equal: detectron2 would count those again), 1,230 categories, 1,000
proposals, 300 detections. The model has random weights whose scores, boxes and masks are spread as a trained one's.
Ours includes the encoding of the masks as run lengths; detectron2's ends with bitmaps. On the CPU one pair takes
minutes; results have to be identical.

    python -m tests.benchmarks multi_scale --device cuda --images 20 --detectors r50_fpn x101_dcn_fpn

On a GPU the time is that of the clock, peak memory is told too, and results count as equal when both find as many
objects with the same sorted scores to 0.001: a GPU's convolutions choose other algorithms for other batches.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.benchmarks.measure import Row, in_turns

SCALES = (600, 800, 1000, 1200, 1400)
LONGER_EDGE = 4000
CATEGORIES = 1230
KEEP = 300


def make_picture(height: int, width: int, seed: int) -> np.ndarray:
    """A smooth random picture uint8[height, width, 3]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 16, width // 16, generator=generator)
    fine = nn.functional.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    return (fine[0].clamp(0, 1) * 255).byte().permute(1, 2, 0).contiguous().numpy()


@torch.no_grad()
def spread(model: Any, picture: np.ndarray) -> None:
    """Rescale the last layers of each part, so that outputs vary as much as those of a trained detector."""

    def scale(layer: nn.Module, outputs: Tensor, deviation: float) -> None:
        layer.weight.mul_(deviation / outputs.std())

    pixels = torch.from_numpy(picture.transpose(2, 0, 1).copy())
    images = model.preprocess_image([{"image": pixels}])
    features = model.extract_features(images)
    for level in ("2", "3", "4", "5"):
        scale(getattr(model.backbone, f"fpn_output{level}"), features[f"p{level}"], 1.0)
    features = model.extract_features(images)
    head = model.proposal_generator.rpn_head
    hidden = head.conv(features["p3"])
    scale(head.objectness_logits, head.objectness_logits(hidden), 2.0)
    scale(head.anchor_deltas, head.anchor_deltas(hidden), 0.15)
    proposals = model.propose(images, features)
    logits, deltas = model.roi_heads.box_predictions(features, proposals)
    predictor = model.roi_heads.box_predictor
    # By the largest value: scores that are saturated would be tied, and detectron2's order of ties is arbitrary.
    predictor.cls_score.weight.mul_(5 / (logits - logits.mean(dim=0)).abs().max())
    scale(predictor.bbox_pred, deltas - deltas.mean(dim=0), 0.5)
    logits, deltas = model.roi_heads.box_predictions(features, proposals)
    generator = torch.Generator().manual_seed(0)
    predictor.cls_score.bias += -5 + 1.3 * torch.randn(predictor.num_classes, generator=generator) - logits.mean(dim=0)
    predictor.bbox_pred.bias -= deltas.mean(dim=0)
    masks = torch.logit(model.roi_heads.soft_masks(features, [proposals[0].proposal_boxes.tensor[:50]])[0])
    scale(model.roi_heads.mask_head.predictor, masks, 3.0)


def build(detector: str, picture: np.ndarray, device: torch.device, categories: int = CATEGORIES) -> tuple[Any, Any]:
    """The model of a detector file, and the configuration for detectron2's test-time augmentation."""
    from pipeline_steps.modeling.build import build_from_config, read_detector_file
    from pipeline_steps.modeling.cpu.modules import use_fast_cpu_modules

    torch.manual_seed(0)
    cfg = read_detector_file(detector)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = categories
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 1000
    cfg.TEST.DETECTIONS_PER_IMAGE = KEEP
    cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.MAX_SIZE, cfg.TEST.AUG.FLIP = SCALES, LONGER_EDGE, False
    cfg.freeze()
    model = build_from_config(cfg)
    model.train(False)
    spread(model, picture)
    return use_fast_cpu_modules(model) if device.type == "cpu" else model.to(device), cfg


def contenders(model: Any, cfg: Any) -> tuple[Callable, Callable]:
    """detectron2's test-time augmentation and ours, on one model: functions of a picture and its scales."""
    from detectron2.modeling import GeneralizedRCNNWithTTA

    from pipeline_steps.inference.rle import encode_box_masks
    from pipeline_steps.inference.views import render_images
    from pipeline_steps.recipe.testing import Testing
    from tests.inference.detectors import boxes_and_masks

    augmented = GeneralizedRCNNWithTTA(cfg, model, batch_size=1)

    @torch.no_grad()
    def usual(picture: np.ndarray, scales: tuple[int, ...]) -> Any:
        augmented.tta_mapper.min_sizes = scales
        height, width = picture.shape[:2]
        pixels = torch.from_numpy(picture.transpose(2, 0, 1).copy())
        return augmented([{"image": pixels, "height": height, "width": width}])[0]["instances"].to("cpu")

    def ours(picture: np.ndarray, scales: tuple[int, ...]) -> tuple[Any, list[dict]]:
        images = render_images([picture], scales, LONGER_EDGE, False)
        settings = Testing(nms_iou=cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST, keep_per_image=KEEP)
        ((found, masks),) = boxes_and_masks(model, images, settings)
        return found, encode_box_masks(masks, found.boxes, *images.image_size)

    return usual, ours


def identical(theirs: Any, mine: tuple[Any, list[dict]]) -> bool:
    """Whether boxes, scores, categories and masks are the same to the last bit."""
    import pycocotools.mask as coco_mask

    detections, rles = mine
    painted = (np.asfortranarray(mask.numpy().astype(np.uint8)) for mask in theirs.pred_masks)
    return (
        torch.equal(theirs.pred_boxes.tensor, detections.boxes)
        and torch.equal(theirs.scores, detections.scores)
        and torch.equal(theirs.pred_classes, detections.categories)
        and [coco_mask.encode(mask) for mask in painted] == rles
    )


def close(theirs: Any, mine: tuple[Any, list[dict]]) -> bool:
    """Whether the numbers of objects are equal, and their scores to 0.001."""
    scores = mine[0].scores.cpu()
    return len(scores) == len(theirs.scores) and torch.allclose(theirs.scores, scores, atol=1e-3)


def peak_on_gpu(function: Callable, *arguments: Any) -> float:
    """Peak MiB of GPU memory in a call, the model included."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    function(*arguments)
    return torch.cuda.max_memory_allocated() / 2**20


def rows_of(detector: str, sizes: Sequence[str], images: int, device: torch.device) -> list[Row]:
    """Time, and on a GPU memory, of one detector."""
    usual, ours = contenders(*build(f"config/detectors/{detector}.yaml", make_picture(320, 480, 0), device))
    rows = []
    for size in sizes:
        width, height = map(int, size.split("x"))
        inputs = [(make_picture(height, width, seed), SCALES) for seed in range(images)]
        name, baseline = f"five-scale boxes and masks, {size}", "GeneralizedRCNNWithTTA"
        if device.type == "cpu":
            first = (make_picture(64, 96, 0), (64,))
            rows.append(in_turns(usual, ours, inputs, identical, first=first).row(name, baseline))
            continue
        # Both end with results on the CPU: the clock needs no other synchronisation.
        pairs = in_turns(usual, ours, inputs, close, clock=time.perf_counter)
        name = f"{name}, {detector}"
        rows.append(pairs.row(f"{name} ({1 / pairs.ours:.2f} images/s)", baseline))
        rows.append(Row(name, baseline, peak_on_gpu(usual, *inputs[0]), peak_on_gpu(ours, *inputs[0]), "MiB"))
    return rows


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Measure."""
    parser = argparse.ArgumentParser("multi_scale", description=__doc__)
    parser.add_argument("--detectors", nargs="+", default=["r50_fpn"], help="config/detectors/<name>.yaml")
    parser.add_argument("--images", type=int, default=1, help="pairs for each size")
    parser.add_argument("--sizes", nargs="+", default=["640x427", "640x480"], metavar="WIDTHxHEIGHT")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("multi_scale: no GPU here, nothing measured", file=sys.stderr)
        return []
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    return [
        row for detector in arguments.detectors for row in rows_of(detector, arguments.sizes, arguments.images, device)
    ]


if __name__ == "__main__":
    from tests.benchmarks.__main__ import main as run

    raise SystemExit(run(["multi_scale"]))
