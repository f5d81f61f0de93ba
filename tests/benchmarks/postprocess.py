"""Box post-processing of one image: detectron2's ``fast_rcnn_inference`` against ``select_detections``.

1,000 proposals x 1,230 categories, score threshold 0, 300 detections; boxes class-agnostic and class-specific, and,
for the latter, decoded for the candidates only. Scores are sigmoids around a few objects over a long tail.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from tests.benchmarks.measure import Row, in_turns

HEIGHT, WIDTH = 800, 1067


def make_input(seed: int, proposals: int, categories: int, specific: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Scores [R, C], deltas [R, 4] or [R, 4 C] and proposals [R, 4] of one image with 15 objects."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    centres = (0.1 + 0.8 * torch.rand(15, 2, generator=generator)) * torch.tensor([WIDTH, HEIGHT])
    sizes = torch.exp(3.2 + 2.5 * torch.rand(15, 2, generator=generator))
    owner = torch.randint(0, 15, (proposals,), generator=generator)
    middle = centres[owner] + normal(proposals, 2) * sizes[owner] * 0.12
    half = sizes[owner] * torch.exp(normal(proposals, 2) * 0.2) / 2
    boxes = torch.cat([middle - half, middle + half], dim=1).clamp_(min=0)
    boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    likely = normal(15, categories) * 1.2
    for row in likely:
        row[torch.randint(0, categories, (8,), generator=generator)] += torch.tensor([9.0, 6, 5, 4, 4, 3, 3, 3])
    logits = -7 + normal(categories) * 1.5 + likely[owner] + normal(proposals, categories) * 0.5
    return logits.sigmoid(), normal(proposals, 4 * categories if specific else 4) * 0.4, boxes


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Measure."""
    parser = argparse.ArgumentParser("postprocess", description=__doc__)
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--proposals", type=int, default=1000)
    parser.add_argument("--categories", type=int, default=1230)
    arguments = parser.parse_args(argv)

    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference

    from pipeline_steps.inference.postprocess import select_detections, select_detections_from_deltas

    torch.set_num_threads(1)
    decode = Box2BoxTransform((10.0, 10.0, 5.0, 5.0)).apply_deltas
    settings = ((HEIGHT, WIDTH), 0.0, 0.5, 300)

    def usual(scores: Tensor, boxes: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        padded = torch.nn.functional.pad(scores, (0, 1))
        (found,), (index,) = fast_rcnn_inference([boxes], [padded], [settings[0]], *settings[1:])
        return found.pred_boxes.tensor, found.scores, found.pred_classes, index

    def usual_decoding(scores: Tensor, boxes: Tensor, deltas: Tensor, proposals: Tensor) -> tuple[Tensor, ...]:
        return usual(scores, decode(deltas, proposals))

    def ours(scores: Tensor, boxes: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        return select_detections(boxes, scores, *settings)

    def ours_decoding(scores: Tensor, boxes: Tensor, deltas: Tensor, proposals: Tensor) -> tuple[Tensor, ...]:
        return select_detections_from_deltas(deltas, proposals, decode, scores, *settings)

    def same(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> bool:
        return all(torch.equal(a, b) for a, b in zip(first, second))

    size = f"{arguments.proposals} x {arguments.categories}"
    rows = []
    for kind, baseline, contender in (
        ("class-agnostic boxes", usual, ours),
        ("class-specific boxes", usual, ours),
        ("class-specific deltas", usual_decoding, ours_decoding),
    ):
        inputs = []
        for seed in range(arguments.images):
            made = make_input(seed, arguments.proposals, arguments.categories, "specific" in kind)
            inputs.append((made[0], decode(*made[1:]), *made[1:]))
        pairs = in_turns(baseline, contender, inputs, same)
        rows.append(pairs.row(f"box post-processing, {size}, {kind}", "detectron2 fast_rcnn_inference"))
    return rows


if __name__ == "__main__":
    from tests.benchmarks.__main__ import main as run

    raise SystemExit(run(["postprocess"]))
