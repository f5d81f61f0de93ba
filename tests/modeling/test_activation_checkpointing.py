"""Activation checkpointing of blocks with each kind of normalisation: in every bit what the plain blocks do."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import nn

from pipeline_steps.modeling.activation_checkpointing import checkpoint_activations


def stage(norm: str) -> nn.Sequential:
    torch.manual_seed(0)
    shape = {"in_channels": 4, "out_channels": 8, "bottleneck_channels": 4, "stride_per_block": [2, 1]}
    return nn.Sequential(*ResNet.make_stage(BottleneckBlock, 2, **shape, norm=norm))


def two_steps(blocks: nn.Sequential) -> list[torch.Tensor]:
    """Outputs, input and parameter gradients of two batches, and the buffers after them."""
    generator = torch.Generator().manual_seed(1)
    seen = []
    for _ in range(2):
        x = torch.randn(3, 4, 12, 10, generator=generator).requires_grad_()
        y = blocks(x)
        y.square().sum().backward()
        seen += [y.detach(), x.grad]
    return [*seen, *(parameter.grad for parameter in blocks.parameters()), *blocks.buffers()]


@pytest.mark.parametrize("norm", ["SyncBN", "BN"])
def test_the_layers_that_train_on_a_gpu_keep_every_bit_of_output_gradient_and_running_statistic(norm):
    """Without a process group ``nn.SyncBatchNorm`` runs on a CPU too, with all its checks."""
    plain = stage(norm)
    assert any(isinstance(layer, nn.SyncBatchNorm) for layer in plain.modules()) == (norm == "SyncBN")
    checkpointed = copy.deepcopy(plain)
    assert checkpoint_activations(checkpointed) == 2
    for expected, result in zip(two_steps(plain), two_steps(checkpointed), strict=True):
        assert torch.equal(result, expected)
    counters = [buffer for name, buffer in checkpointed.named_buffers() if name.endswith("num_batches_tracked")]
    assert counters
    assert all(counter == 2 for counter in counters)
    assert all(layer.momentum == 0.1 for layer in checkpointed.modules() if isinstance(layer, nn.SyncBatchNorm))
