"""Activation checkpointing of a backbone: its blocks keep only their inputs and compute the rest again backwards.

For GPUs whose memory the activations of large images would fill. Off by default: the challenge models do not need it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from detectron2.layers import CNNBlockBase
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


@contextmanager
def _running_statistics_untouched(block: nn.Module) -> Iterator[None]:
    """Without this the second forward pass would count every batch twice in the running statistics.

    The counter is a copy meanwhile, not None: ``nn.SyncBatchNorm`` insists on having one.
    """
    layers = [layer for layer in block.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    before = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer, (_, counter) in zip(layers, before):
        layer.momentum, layer.num_batches_tracked = 0.0, None if counter is None else counter.clone()
    try:
        yield
    finally:
        for layer, (momentum, counter) in zip(layers, before):
            layer.momentum, layer.num_batches_tracked = momentum, counter


class _Checkpointed:
    """Forward function of a block that is checkpointed in training."""

    def __init__(self, block: nn.Module) -> None:
        self.block, self.forward = block, block.forward

    def __call__(self, x: Tensor) -> Tensor:
        trained = self.block.training and any(parameter.requires_grad for parameter in self.block.parameters())
        if not trained:
            return self.forward(x)
        return checkpoint(
            self.forward,
            x,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), _running_statistics_untouched(self.block)),
        )


def checkpoint_activations(backbone: nn.Module) -> int:
    """Checkpoint every residual block below ``backbone`` that has parameters to train; returns their number.

    Results, gradients and running statistics are those of the plain backbone.
    """
    blocks = [
        block
        for block in backbone.modules()
        if isinstance(block, CNNBlockBase) and any(parameter.requires_grad for parameter in block.parameters())
    ]
    for block in blocks:
        block.forward = _Checkpointed(block)
    return len(blocks)
