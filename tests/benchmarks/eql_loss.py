"""Equalization loss, forward and backward: the usual public formulation against ours, time and saved memory.

``python -m tests.benchmarks eql_loss [--device cuda] [--rows 1024] [--categories 1230]``

The baseline is written here after the public detectron2 code of the loss (github.com/tztztztztz/eql.detectron2,
projects/EQL/eql/fast_rcnn.py): a dense one-hot target, dense weights 1 - E(r) T(f_j) (1 - y_rj) made of three factors
of the size of the logits, ``binary_cross_entropy_with_logits`` without reduction, product, sum. It leaves S_P and S_N
out. Ours is measured with them, and without them, where its gradient must be the baseline's.

Saved memory: bytes of all distinct tensors that autograd keeps between forward and backward.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline_steps.modeling.losses import classification_weights, sigmoid_classification_loss
from tests.benchmarks.measure import Row

Loss = Callable[[Tensor], Tensor]


def usual_loss(logits: Tensor, labels: Tensor, tail: Tensor) -> Tensor:
    """The formulation of the public code: see the module's docstring."""
    rows, categories = logits.shape
    one_hot = logits.new_zeros(rows, categories + 1)
    one_hot[torch.arange(rows, device=logits.device), labels] = 1
    target = one_hot[:, :categories]
    is_object = (labels != categories).float().view(rows, 1).expand(rows, categories)
    below_threshold = logits.new_zeros(categories)
    below_threshold[tail] = 1
    below_threshold = below_threshold.view(1, categories).expand(rows, categories)
    weights = 1 - is_object * below_threshold * (1 - target)
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return torch.sum(losses * weights) / rows


def make_losses(rows: int, categories: int, device: str, seed: int = 0) -> tuple[Tensor, dict[str, Loss]]:
    """Logits as early in training (prior 0.001), two images, a quarter of the proposals foreground."""
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(rows, categories, generator=generator) * 2 - 6.9).to(device)
    labels = torch.randint(0, categories, (rows,), generator=generator)
    labels[torch.rand(rows, generator=generator) < 0.75] = categories
    labels = labels.to(device)
    image_index = (torch.arange(rows) * 2 // max(rows, 1)).to(device)
    tail = (torch.rand(categories, generator=generator) < 915 / 1230).to(device)
    judged = (torch.rand(2, categories, generator=generator) < 0.02).to(device)

    hits_coco_box = torch.rand(rows, generator=generator).to(device) < 0.1
    row_weights = torch.where((labels == categories) & hits_coco_box, 0.5, 1.0)

    def ours(logits: Tensor, judged: Tensor | None, row_weights: Tensor | None = None) -> Tensor:
        weights = classification_weights(labels, image_index, tail=tail, judged=judged, row_weights=row_weights)
        return sigmoid_classification_loss(logits, labels, weights)

    return logits, {
        "public formulation": lambda x: usual_loss(x, labels, tail),
        "ours, own category judged": lambda x: ours(x, None),
        "ours, S_P and S_N judged": lambda x: ours(x, judged),
        "the same with COCO Ignore": lambda x: ours(x, judged, row_weights),
    }


def gradient(loss: Loss, logits: Tensor) -> Tensor:
    """Forward and backward."""
    leaf = logits.detach().requires_grad_()
    loss(leaf).backward()
    if leaf.is_cuda:
        torch.cuda.synchronize()
    return leaf.grad


def saved_bytes(loss: Loss, logits: Tensor) -> int:
    """Bytes of the distinct tensors kept for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss(logits.detach().requires_grad_())
    del value
    return sum(kept.values())


def measure(rows: int, categories: int, device: str, repeats: int) -> list[tuple[str, float, int]]:
    """Per formulation: name, median milliseconds, saved bytes.

    CPU time on a CPU; taken in turns, so that other load on the machine hits all alike.
    """
    logits, losses = make_losses(rows, categories, device)
    names = list(losses)
    clock = time.perf_counter if device.startswith("cuda") else time.process_time
    baseline, own_judged = (gradient(losses[name], logits) for name in names[:2])
    torch.testing.assert_close(own_judged, baseline, rtol=1e-4, atol=1e-9)
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for repeat in range(repeats + 3):
        for name, loss in losses.items():
            start = clock()
            gradient(loss, logits)
            if repeat >= 3:
                seconds[name].append(clock() - start)
    return [(name, statistics.median(seconds[name]) * 1e3, saved_bytes(losses[name], logits)) for name in losses]


def main(argv: list[str] | None = None) -> list[Row]:
    """Measure; rows of the common table: time of each formulation, then saved memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--categories", type=int, default=1230)
    parser.add_argument("--repeats", type=int, default=50)
    arguments = parser.parse_args(argv)
    results = measure(arguments.rows, arguments.categories, arguments.device, arguments.repeats)
    (baseline, base_time, base_bytes), *ours = results
    size = f"EQL forward + backward, {arguments.rows} x {arguments.categories}"
    rows = [
        # Only with the own category judged do both compute the same; measure() has compared their gradients.
        Row(f"{size}; {name}", baseline, base_time / 1e3, time / 1e3, equal=equal, runs=arguments.repeats)
        for (name, time, _), equal in zip(ours, (True, None, None))
    ]
    saved = ours[1][2]
    return [*rows, Row(f"{size}; saved memory", baseline, base_bytes / 2**20, saved / 2**20, unit="MiB")]
